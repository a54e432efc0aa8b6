// Package agent runs attempts on one node.
//
// An Agent keeps a session with the cluster's leader, runs what the leader
// assigns and reports what came of it. It never outlives its lease: an attempt
// is ended by contact plus its lease less task.FenceAhead, where contact is when
// the last heartbeat was sent that the leader answered.
//
// Its loops and what they own:
//
//	session     the connections, where the leader is, one line at a time
//	  line      one stream: a receiver and the only sender
//	supervisor  the attempts; starts one runner for each and waits for it
//	  runner    one container, from the image to the removal
//	lease       watches deadlines, also those that pass while nobody asks
//	health      probes the engine and lists its images
//	warm        starts containers ahead of their attempts (package warm)
//	takes       fetches the output that agents which leave hand on
//	wishes      has it start those that are wished for, and gets their images
//	sweep       removes containers that no attempt claims
//
// An agent that was killed left its programs running, and in its journal what
// there is to know of them. The next one on the same boot goes on with all that
// is still under the lease.
//
// Statuses wait in the reporter, the newest of each attempt, until the leader
// has acknowledged them.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/armon/go-metrics"
	"google.golang.org/grpc"

	"ecs/agent/images"
	"ecs/agent/journal"
	"ecs/agent/runtime"
	"ecs/agent/spool"
	"ecs/agent/warm"
	"ecs/internal/task"
)

const (
	// DefaultGrace is how long running attempts may go on when the node leaves.
	DefaultGrace = 10 * time.Second
	// DefaultRemovals is how many containers are being removed at once.
	DefaultRemovals = 4
	// DefaultWarmMemory is the usual budget for containers that are started ahead,
	// where any are, and MaxWarmCount the most of them.
	DefaultWarmMemory = 128 << 20
	MaxWarmCount      = 256

	// The steps of leaving, after Grace, have a time each. With DefaultGrace they are
	// over before the unit's TimeoutStopSec. One end of a container may take the
	// engine killTimeout, and a broken one is tried again.
	endPatience     = killTimeout + 5*time.Second
	flushPatience   = 5 * time.Second
	goodbyePatience = 3 * time.Second
	removePatience  = 30 * time.Second
)

// ErrKilled, as the cause of the end of Run's context, makes Run return at
// once, as the end of the process would: nothing is ended, removed or told.
var ErrKilled = errors.New("the agent was killed")

// Images makes images available; *images.Images is the real one.
type Images interface {
	// Ensure makes an image present that the owner may use. Errors are
	// *runtime.Failure where the outcome is known. It ends with ctx.
	Ensure(context.Context, images.Request) (runtime.Image, error)
	// Present names the images that the engine holds, for placement to prefer.
	Present(context.Context) []string
}

// Config is what an Agent needs. What has no default and is not said to be
// optional is required.
type Config struct {
	ID                  task.NodeID
	Name, Zone, Version string
	Capacity            task.Capacity     // see MeasureCapacity
	Attributes          map[string]string // optional
	OutputAddr          string            // host:port where this node's output is served
	Runtime             runtime.Runtime
	Images              Images
	Spool               *spool.Spool
	// Controls gives the gRPC addresses of the control nodes as far as known,
	// and a channel that is closed when they may have changed.
	Controls func() (addrs []string, changed <-chan struct{})
	// Dial makes a connection, secured and with keepalive. It need not connect.
	Dial func(ctx context.Context, addr string) (*grpc.ClientConn, error)
	// DialAgent makes a connection to another agent's output port, secured. Nil: this
	// node takes nothing of what others hand on.
	DialAgent func(addr string) (*grpc.ClientConn, error)
	// HandOver is how long others may take to fetch what the spool holds when the
	// node leaves for good; see ErrForGood. Default DefaultHandOver; negative is not
	// at all.
	HandOver time.Duration
	// Now is the clock that leases are counted by. It must not stand still
	// while the machine sleeps nor be set: CLOCK_BOOTTIME.
	Now func() time.Duration
	// JournalDir is where the agent keeps what it needs to go on after it was
	// killed. Empty: it does not go on, and ends what it finds.
	JournalDir string
	// BootID tells one boot of the machine from the next. Default the kernel's.
	BootID string
	// Removals is how many containers are being removed at once. Default
	// DefaultRemovals; agents that share an engine share this out among them.
	Removals int
	// Unfit, if there is one, says why the node must take no tasks now, or
	// nothing. It is asked for every heartbeat and must not block.
	Unfit func() string
	// Leave, if there is one, is called when the leader asks the node to leave:
	// it ends Run's context, and must not block.
	Leave func()
	// GossipAddr gives where gossip reaches this node, for others to find it
	// again; optional.
	GossipAddr func() string
	// WarmCount and WarmMemory are the budget for containers that are started
	// ahead of their tasks (package warm). Default: none.
	WarmCount  int
	WarmMemory int64
	// Grace is how long running attempts may go on after the end of Run's
	// context. Default DefaultGrace; negative is none at all.
	Grace   time.Duration
	Log     *slog.Logger
	Metrics *metrics.Metrics
}

// Agent runs attempts on one node.
type Agent struct {
	cfg        Config
	lease      *lease
	reporter   *reporter
	health     *health
	warm       *warm.Pool
	wishes     *wishes
	supervisor *supervisor
	session    *session
	journal    *journal.Journal
	handover   *handover
	takes      *takes
	sweepNow   chan struct{} // one slot

	// Of the preparation:
	recovered bool
	unwanted  []journal.Record
}

// New makes an Agent that Run sets to work.
func New(cfg Config) *Agent {
	if cfg.Grace == 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.HandOver == 0 {
		cfg.HandOver = DefaultHandOver
	}
	if cfg.Removals <= 0 {
		cfg.Removals = DefaultRemovals
	}
	cfg.Log = cfg.Log.With("node", cfg.ID)
	a := &Agent{cfg: cfg, lease: newLease(cfg.Now), reporter: newReporter(), sweepNow: make(chan struct{}, 1),
		journal: journal.New(cfg.JournalDir, cfg.Log)}
	a.lease.journal, a.lease.log = a.journal, cfg.Log
	a.warm = warm.New(warm.Config{Runtime: cfg.Runtime, Count: cfg.WarmCount, Memory: cfg.WarmMemory,
		Removals: cfg.Removals, Now: cfg.Now, Log: cfg.Log, Metrics: cfg.Metrics})
	a.lease.pool = a.warm
	a.wishes = newWishes(cfg.Images, a.warm, cfg.Log)
	a.health = newHealth(&a.cfg, a.journal)
	a.health.removed = a.warm.Removed
	a.supervisor = newSupervisor(&kit{node: cfg.ID, outputAddr: cfg.OutputAddr, engine: cfg.Runtime,
		images: cfg.Images, warm: a.warm, spool: cfg.Spool, journal: a.journal, lease: a.lease, reporter: a.reporter, health: a.health,
		removing: make(chan struct{}, cfg.Removals), collecting: make(chan struct{}, collectSlots), log: cfg.Log, metrics: cfg.Metrics}, a.sweepNow)
	a.session = newSession(&a.cfg, a.lease, a.supervisor, a.reporter, a.health)
	a.handover, a.takes = newHandover(), newTakes(&a.cfg)
	a.session.wishes, a.session.handover, a.session.takes = a.wishes, a.handover, a.takes
	return a
}

// Run takes part in the cluster until ctx ends, and leaves in good order then:
// it takes nothing new, lets running attempts go on for Grace, ends the rest
// without a report (the leader places them elsewhere; those whose program has
// ended are reported without their files), hands over its results,
// gives the lease up and removes its containers. With ErrForGood it has other nodes
// take the output that it holds before it gives the lease up. Each step has its limit.
//
// The error says what could not be ended or removed, or is ErrKilled.
func (a *Agent) Run(ctx context.Context) (err error) {
	defer func() {
		if failed := a.journal.Close(); failed != nil {
			err = errors.Join(err, fmt.Errorf("close the journal: %w", failed))
		}
	}()
	// The loops outlive ctx: they stop after the leave.
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	var loops sync.WaitGroup
	defer loops.Wait()
	defer stop()
	loops.Go(func() { a.supervisor.run(life) })
	loops.Go(func() { a.lease.watch(life) })
	loops.Go(func() { a.lease.keep(life) })
	if !a.prepare(ctx) {
		return a.died(ctx)
	}
	loops.Go(func() { a.health.run(life) })
	loops.Go(func() { a.warm.Run(life) })
	loops.Go(func() { a.wishes.run(life) })
	loops.Go(func() { a.takes.run(life) })
	loops.Go(func() { a.sweep(life) })
	loops.Go(func() { a.measure(life) })

	online, hangUp := context.WithCancel(life)
	defer hangUp()
	offline := make(chan struct{})
	loops.Go(func() {
		defer close(offline)
		a.session.run(online)
	})
	<-ctx.Done()
	if err := a.died(ctx); err != nil {
		return err
	}
	handOver := time.Duration(0)
	if errors.Is(context.Cause(ctx), ErrForGood) {
		handOver = a.cfg.HandOver
	}
	if err := a.leave(life, handOver, hangUp, offline); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}

// died makes sure that nothing on disk changes any more if the end of ctx is
// that of the process.
func (a *Agent) died(ctx context.Context) error {
	if !errors.Is(context.Cause(ctx), ErrKilled) {
		return nil
	}
	a.journal.Abandon()
	a.cfg.Spool.Abandon()
	return ErrKilled
}

// prepare waits until the engine works, takes up what an earlier process left on
// it and removes what nobody wants: a node that says hello has nothing that it
// does not name. It reports false when ctx ended before.
func (a *Agent) prepare(ctx context.Context) bool {
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		err := a.inspect(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		a.cfg.Log.Warn("not ready", "err", err)
		sleep(ctx, pause)
	}
}

func (a *Agent) inspect(ctx context.Context) error {
	if err := a.recover(); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, firstProbeTimeout)
	defer cancel()
	engine, err := a.cfg.Runtime.Probe(limited)
	if err != nil {
		return fmt.Errorf("probe the engine: %w", err)
	}
	a.health.fit(engine)
	if err := a.reap(ctx); err != nil {
		return fmt.Errorf("remove what was left: %w", err)
	}
	if err := a.discard(); err != nil {
		return err
	}
	a.cfg.Log.Info("container engine ready", "engine", engine.Description, "egress", engine.Egress)
	if !engine.Egress {
		a.cfg.Log.Warn("this node gives tasks no network, v1 tasks run elsewhere", "why", engine.EgressWhy)
	}
	return nil
}

// leave ends this node's part in good order.
func (a *Agent) leave(life context.Context, handOver time.Duration, hangUp func(), offline <-chan struct{}) error {
	a.cfg.Log.Info("leaving", "grace", a.cfg.Grace)
	a.health.leave()
	a.warm.Shut()
	a.takes.leave()
	_ = a.supervisor.leave() // stops only after life has ended, as all below
	graceful := a.within(life, a.cfg.Grace, hasEnded)
	a.lease.part()
	if graceful != nil {
		_ = a.supervisor.partAll(errLeaving)
	}
	ended := a.within(life, endPatience, hasEnded)
	flushed := a.within(life, flushPatience, isSettled)
	a.handOver(life, handOver)
	if ended == nil {
		// Goodbye gives the word that everything has ended.
		close(a.session.farewell)
		farewell := time.NewTimer(goodbyePatience)
		defer farewell.Stop()
		select {
		case <-offline:
		case <-farewell.C:
			a.cfg.Log.Warn("no goodbye: no session with the leader")
		}
	} else {
		ended = fmt.Errorf("end every attempt: %w", ended)
	}
	hangUp()
	<-offline
	if flushed != nil {
		a.cfg.Log.Warn("results not acknowledged", "results", a.reporter.unacknowledged())
	}
	removed := a.emptied(life)
	if removed != nil {
		removed = fmt.Errorf("remove every container: %w", removed)
	}
	left := a.reap(life)
	if left != nil {
		left = fmt.Errorf("look for containers left: %w", left)
	}
	return errors.Join(ended, removed, left)
}

// emptied waits until the containers of attempts are removed, and what is parked.
func (a *Agent) emptied(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, removePatience)
	defer cancel()
	return errors.Join(a.supervisor.every(ctx, isFinished), a.warm.Emptied(ctx))
}

// within waits until cond holds for every attempt.
func (a *Agent) within(ctx context.Context, limit time.Duration, cond func(*member) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return a.supervisor.every(ctx, cond)
}
