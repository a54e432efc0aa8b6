// Package replica puts hashicorp/raft behind few verbs: propose a command, read
// at a point that includes everything acknowledged, follow who leads and in
// which term. It is the only importer of raft, owns its log and snapshots on
// disk, and ends the process when that disk stops working.
//
// It knows commands only as bytes and outcomes: what they mean is package
// state's, which it calls from one goroutine, in the order of the log.
package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/armon/go-metrics"
	"github.com/hashicorp/raft"

	"ecs/control/state"
	"ecs/internal/task"
)

// The ways a proposal fails. What Apply refuses is not among them: that is in
// the Outcome.
var (
	// ErrNotLeader says that this node does not lead, or could not take the
	// proposal in time. Nothing was written: propose it elsewhere or again.
	ErrNotLeader = errors.New("not the leader, nothing was written")
	// ErrUnknown says that the proposal may have been written, or may be yet.
	// Proposing it again is safe only because commands are idempotent.
	ErrUnknown = errors.New("outcome unknown, it may have been written")
	// ErrTooBig says that a command alone is larger than an entry may be.
	// Nothing was written.
	ErrTooBig = errors.New("command is larger than a log entry may be")
)

// Config is what a Node needs. DefaultConfig fills what is not particular to a
// node; zero values of those fields mean the defaults too.
type Config struct {
	ID   string // for ever
	Addr string // what peers dial; must be the Stream's, or empty
	Dir  string // log, snapshots and probe; created. Unused when Stores is set
	// Stream carries raft's connections; Run closes it.
	Stream StreamLayer
	Stores *Stores      // nil: on disk in Dir
	Store  *state.Store // fresh: Run fills it from snapshot and log
	// Closed has a node without state answer no peer until it founds a cluster
	// (Bootstrap) or Admit is called. A voter that lost its disk must not vote as
	// if it had never acknowledged anything.
	Closed bool
	// Logger takes raft's own logs too.
	Logger  *slog.Logger
	Metrics *metrics.Metrics

	Timing
	// SnapshotThreshold is how many entries after a snapshot make the next due.
	SnapshotThreshold uint64
	// TrailingLogs is how many entries stay after a snapshot, so that a follower
	// that was away for a while needs no snapshot. It must exceed what is
	// written while a snapshot travels, or a follower never catches up.
	TrailingLogs uint64

	// Compose, when not nil, completes the commands of an entry that is about to
	// be made: it may say in a Submit where the task runs. It is called from one
	// goroutine, in the order of the entries, while others are on their way, and
	// must not block. What it gives is called with the outcomes once the entry is
	// applied here, or with nil when it was not or that is not known.
	Compose func(batch []state.Command) (settled func([]state.Outcome))

	// Over, when not nil, is called with the tasks that an entry has ended and
	// the entry's term, from one goroutine, in the order of the log; also with
	// those of entries that are applied anew at the start. It must not block.
	Over func(term uint64, ended []*task.Task)

	// Fatal, when not nil, is called once, from any goroutine, when the node
	// can't go on: its disk hangs, is full, broken or read-only, or the log
	// holds what this version can't read. Production exits the process in it: a
	// leader whose disk hangs keeps its followers and answers nobody. Run
	// returns the same error; what hangs on the disk it leaves behind.
	Fatal func(error)

	// probe writes to the disk, for the watchdog; nil: a file in Dir.
	probe func() error
}

// Timing is when raft gives up on what. See DefaultConfig for the numbers.
type Timing struct {
	// HeartbeatTimeout is how long a follower hears nothing before it stands
	// for election; the leader sends three times as often.
	HeartbeatTimeout time.Duration
	// ElectionTimeout is how long an election may take before the next; never
	// less than HeartbeatTimeout.
	ElectionTimeout time.Duration
	// LeaderLeaseTimeout is how long a leader out of contact with a majority
	// goes on as one; never more than HeartbeatTimeout.
	LeaderLeaseTimeout time.Duration
	// CommitTimeout is how long an idle leader waits before it repeats to its
	// followers how far the log is committed. They learn it at once otherwise.
	CommitTimeout time.Duration
	// RPCTimeout bounds dialing and each exchange with a peer. After a
	// partition healed, a peer is heard of again at most this much later.
	RPCTimeout time.Duration
	// SnapshotInterval is how often a snapshot is considered; between one and
	// two of them apart.
	SnapshotInterval time.Duration
	// Stabilization is how long a node without a vote must have answered and kept
	// up before it may get one.
	Stabilization time.Duration
}

// DefaultConfig gives the settings of production.
//
// A follower notices a dead leader after one to three heartbeat timeouts; its
// pre-vote is granted only once the other survivor has noticed too; and if that
// one lacks the newest entry, another election timeout passes. Over a thousand
// kills of the leader of three nodes, a new one answered after 2.4 timeouts in
// the median, 4.2 in the 99th percentile, 4.5 at worst. 600 ms keeps all of
// them under 3 s. Shorter would begin to flap on a starved machine: with these
// numbers three processes under full write load kept their leader on two cores
// at a load of 17.
func DefaultConfig() Config {
	return Config{
		Timing: Timing{
			HeartbeatTimeout:   600 * time.Millisecond,
			ElectionTimeout:    600 * time.Millisecond,
			LeaderLeaseTimeout: 600 * time.Millisecond,
			CommitTimeout:      time.Second,
			RPCTimeout:         3 * time.Second,
			SnapshotInterval:   2 * time.Minute,
			Stabilization:      5 * time.Second,
		},
		SnapshotThreshold: 8192,
		TrailingLogs:      10240,
	}
}

// withDefaults fills every field that was left out.
func (c Config) withDefaults() Config {
	d := DefaultConfig()
	fill(&c.HeartbeatTimeout, d.HeartbeatTimeout)
	fill(&c.ElectionTimeout, max(d.ElectionTimeout, c.HeartbeatTimeout))
	fill(&c.LeaderLeaseTimeout, min(d.LeaderLeaseTimeout, c.HeartbeatTimeout))
	fill(&c.CommitTimeout, d.CommitTimeout)
	fill(&c.RPCTimeout, d.RPCTimeout)
	fill(&c.SnapshotInterval, d.SnapshotInterval)
	fill(&c.Stabilization, d.Stabilization)
	fill(&c.SnapshotThreshold, d.SnapshotThreshold)
	fill(&c.TrailingLogs, d.TrailingLogs)
	return c
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Config) validate() error {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New(what))
		}
	}
	need(c.ID != "", "an ID is needed")
	need(c.Stream != nil, "a stream layer is needed")
	need(c.Store != nil, "a state store is needed")
	need(c.Logger != nil, "a logger is needed")
	need(c.Metrics != nil, "metrics are needed")
	need(c.Stores != nil || c.Dir != "", "a directory is needed")
	if c.Stream != nil && c.Addr != "" {
		need(c.Addr == c.Stream.Addr().String(), fmt.Sprintf("the address is %s but the stream's is %s", c.Addr, c.Stream.Addr()))
	}
	return errors.Join(errs...)
}

// Node is one member of the replicated log. All methods but Run may be called
// by anyone at any time; before Ready they answer as one that does not lead.
type Node struct {
	cfg   Config
	ready chan struct{}
	// up is what runs, from Ready on, also after Run has returned.
	up      atomic.Pointer[running]
	started time.Time
	ahead   *ahead // the log; Run's
	// lineage is the record's, from before it is read; nil: of a node without one.
	lineage atomic.Pointer[state.Lineage]

	proposals proposals
	applied   signal // fires after each entry applied
	lead      signal // fires when leadership may have changed
	leader    signal // fires when the known leader may have changed

	failOnce sync.Once
	failed   chan error // takes the first fatal error

	// futures counts calls into raft whose answers are awaited. Raft forgets
	// some of them when it shuts down, so it must not before they are in.
	futures struct {
		sync.Mutex
		sync.WaitGroup
		closed bool
	}
	stopped chan struct{} // closes when no proposal will be answered any more
}

// running is raft and what belongs to it.
type running struct {
	raft      *raft.Raft
	transport *transport
	gate      *gate
	stable    raft.StableStore
	turn      chan struct{} // one slot: whoever fills it may change the configuration
	// established is the last term in which everything earlier leaders
	// committed is known to be applied here.
	established atomic.Uint64
}

// New makes a node. It does no I/O; Run says what is wrong with cfg.
func New(cfg Config) *Node {
	n := &Node{
		cfg:     cfg.withDefaults(),
		ready:   make(chan struct{}),
		failed:  make(chan error, 1),
		stopped: make(chan struct{}),
	}
	n.proposals.init()
	return n
}

// Ready closes when the log is open and raft runs.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// stopWithin is how long Run waits for answers of raft before it shuts it down
// without them. A leader that lost its followers steps down long before.
const stopWithin = 5 * time.Second

// Run opens the stores and takes part in the cluster until ctx ends (nil) or
// something fails for good. It closes the stream layer and the stores it
// opened. Run it once.
func (n *Node) Run(ctx context.Context) error {
	if err := n.cfg.validate(); err != nil {
		return fmt.Errorf("run replica %q: %w", n.cfg.ID, err)
	}
	n.started = time.Now()
	defer close(n.stopped)
	stores, closeStores, err := n.openStores()
	if err != nil {
		_ = n.cfg.Stream.Close() // the error that matters is the stores'
		return fmt.Errorf("open the log of %s: %w", n.cfg.ID, err)
	}
	up, err := n.start(stores)
	if err != nil {
		return errors.Join(err, closeStores())
	}
	var writer sync.WaitGroup
	writing, written := context.WithCancel(context.WithoutCancel(ctx)) // as long as raft runs
	defer written()
	writer.Go(func() { n.ahead.run(writing) })
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var loops sync.WaitGroup
	loops.Go(func() { n.watchLeadership(ctx, up.raft) })
	loops.Go(func() { n.runProposer(ctx, up.raft) })
	n.startWatchdog(ctx, &loops)

	select {
	case <-ctx.Done():
	case err = <-n.failed:
	}
	cancel()
	loops.Wait()
	n.stop(up)
	if errors.Is(err, errHung) {
		return err // closing would hang too
	}
	written()
	writer.Wait()
	return errors.Join(err, closeStores())
}

// start makes raft run on the stores.
func (n *Node) start(stores *Stores) (*running, error) {
	logger := newHCLogger(n.cfg.Logger)
	up := &running{turn: make(chan struct{}, 1)}
	up.gate = &gate{StreamLayer: n.cfg.Stream, node: n}
	up.transport = newTransport(up.gate, n.cfg.RPCTimeout, logger, func(term uint64) bool {
		up := n.up.Load()
		return up != nil && leads(up.raft, term)
	})
	up.transport.awaitDisk = n.ahead.awaitDisk
	up.transport.beat = n.cfg.HeartbeatTimeout / beatsPerTimeout
	err := errors.Join(n.dropCovered(stores), n.remember(stores.Stable))
	if err == nil {
		up.raft, err = raft.NewRaft(n.raftConfig(logger), &fsm{node: n, transport: up.transport, gate: up.gate, stable: stores.Stable},
			stores.Log, stores.Stable, stores.Snapshots, up.transport)
	}
	if err != nil {
		up.transport.shut()
		return nil, fmt.Errorf("start raft on %s: %w", n.cfg.ID, err)
	}
	up.stable = stores.Stable
	if !up.hasState() {
		n.lineage.Store(nil) // it was taken in once, and got nothing
	}
	if !n.cfg.Closed || up.hasState() {
		up.gate.open.Store(true)
	}
	n.up.Store(up)
	close(n.ready)
	return up, nil
}

func (n *Node) raftConfig(logger *hcLogger) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.cfg.ID)
	c.HeartbeatTimeout = n.cfg.HeartbeatTimeout
	c.ElectionTimeout = n.cfg.ElectionTimeout
	c.LeaderLeaseTimeout = n.cfg.LeaderLeaseTimeout
	c.CommitTimeout = n.cfg.CommitTimeout
	c.SnapshotInterval = n.cfg.SnapshotInterval
	c.SnapshotThreshold = n.cfg.SnapshotThreshold
	c.TrailingLogs = n.cfg.TrailingLogs
	c.MaxAppendEntries = maxAppendEntries
	c.NoLegacyTelemetry = true
	c.Logger = logger
	return c
}

// maxAppendEntries bounds what one exchange with a follower carries, together
// with the size of an entry: 16 MiB, which RPCTimeout allows for.
const maxAppendEntries = 32

// stop ends raft once its answers are in. Neither may take for ever: this may
// be the end of a process whose disk hangs.
func (n *Node) stop(up *running) {
	n.futures.Lock()
	n.futures.closed = true
	n.futures.Unlock()
	if !within(stopWithin, n.futures.Wait) {
		n.cfg.Logger.Warn("raft owes answers and is stopped without them")
	}
	down := up.raft.Shutdown()
	// The connections first: raft waits for exchanges that would time out.
	up.transport.shut()
	if !within(stopWithin, func() { _ = down.Error() }) { // has no error to give
		n.cfg.Logger.Warn("raft does not stop and is left behind")
	}
	n.lead.fire()
	n.leader.fire()
}

// within reports whether f returns in time; f runs on if not.
func within(d time.Duration, f func()) bool {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	late := time.NewTimer(d)
	defer late.Stop()
	select {
	case <-done:
		return true
	case <-late.C:
		return false
	}
}

// fail ends the node. The first error wins.
func (n *Node) fail(err error) {
	n.failOnce.Do(func() {
		n.cfg.Logger.Error("replica can't go on", "err", err)
		n.failed <- err
		if n.cfg.Fatal != nil {
			n.cfg.Fatal(err)
		}
	})
}

// call runs something that waits for raft, until it answers or ctx ends.
func (n *Node) call(ctx context.Context, f func(*running) error) error {
	up := n.up.Load()
	n.futures.Lock()
	if up == nil || n.futures.closed {
		n.futures.Unlock()
		return ErrNotLeader
	}
	n.futures.Add(1)
	n.futures.Unlock()
	answer := make(chan error, 1)
	go func() {
		defer n.futures.Done()
		answer <- f(up)
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// signal wakes everybody who waits, at each change of something.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait gives a channel that the next fire closes. Take it before looking at
// what may change.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
