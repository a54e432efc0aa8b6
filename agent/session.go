package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"ecs/agent/warm"
	"ecs/internal/task"
)

// How a visit to a control node ends. Whatever else is the connection's fault.
var (
	errSilent      = errors.New("no answer in time")
	errUnreachable = errors.New("no connection in time")
	errOldTerm     = errors.New("it speaks for a term that is over")
	errNewTerm     = errors.New("its term changed")
	errVoid        = errors.New("the lease lapsed")
	errExpired     = errors.New("the leader says that the lease is over")
	errSaidGoodbye = errors.New("said goodbye")
	errUnexpected  = errors.New("unexpected answer")
)

// redirected: the node does not lead, addr (or nobody) does.
type redirected struct{ addr string }

func (r *redirected) Error() string { return fmt.Sprintf("not the leader, try %q", r.addr) }

// refused: the leader does not register this node.
type refused struct{ reason string }

func (r *refused) Error() string { return "refused: " + r.reason }

// session keeps this node on the leader's line: it finds the leader, registers
// or resumes, and when the line breaks does so again. All but line and
// farewell belongs to the goroutine of run.
type session struct {
	cfg        *Config
	lease      *lease
	supervisor *supervisor
	reporter   *reporter
	health     *health
	wishes     *wishes
	handover   *handover
	takes      *takes
	farewell   chan struct{} // closed when the node leaves

	conns   map[string]*connection
	targets targets
	newest  uint64 // the highest term seen
	leader  string // where the last session was

	line atomic.Pointer[line] // the open one, for Status
}

func newSession(cfg *Config, l *lease, sup *supervisor, rep *reporter, h *health) *session {
	random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	return &session{cfg: cfg, lease: l, supervisor: sup, reporter: rep, health: h,
		farewell: make(chan struct{}), conns: map[string]*connection{}, targets: newTargets(random)}
}

// run keeps a session open until ctx ends or goodbye has been said.
func (s *session) run(ctx context.Context) {
	defer s.reach(ctx, nil)
	for ctx.Err() == nil {
		addr := s.choose(ctx)
		if addr == "" {
			continue // ctx ended, or somebody appeared
		}
		err := s.visit(ctx, addr)
		if ctx.Err() != nil || errors.Is(err, errSaidGoodbye) {
			return
		}
		s.learn(addr, err)
	}
}

// choose waits for its turn and gives the control node to visit, or "" to
// choose again.
func (s *session) choose(ctx context.Context) string {
	addrs, changed := s.cfg.Controls()
	if len(addrs) == 0 && s.leader != "" {
		addrs = []string{s.leader} // gossip knows nobody; it is only a hint
	}
	addr, pause := s.targets.next(addrs, time.Now())
	if addr == "" {
		select {
		case <-changed:
		case <-ctx.Done():
		}
		return ""
	}
	s.reach(ctx, append(slices.Clone(addrs), addr))
	if pause > 0 {
		sleep(ctx, pause)
	}
	return addr
}

// loudFailures is how many visits in a row may fail before the rest of them is
// only worth a debugger's attention.
const loudFailures = 10

// learn draws the conclusions from a visit.
func (s *session) learn(addr string, err error) {
	now := time.Now()
	var redirect *redirected
	var refusal *refused
	log := s.cfg.Log.With("control", addr, "err", err)
	say := log.Warn
	if s.targets.fails > loudFailures {
		say = log.Debug
	}
	switch {
	case errors.As(err, &redirect):
		log.Debug("redirected")
		s.targets.redirected(addr, redirect.addr, now)
		return
	case errors.As(err, &refusal):
		log.Error("registration refused")
		s.targets.refused()
		return
	case errors.Is(err, errExpired), errors.Is(err, errVoid), errors.Is(err, errNewTerm):
		say("session over")
		s.targets.again(addr, now)
		return
	case errors.Is(err, errUnreachable):
		say("control node out of reach")
		s.targets.fellSilent(addr, now)
		return // it goes on connecting
	case errors.Is(err, errSilent):
		say("control node silent")
		s.targets.fellSilent(addr, now)
	default:
		say("session broken")
		s.targets.failed(now)
	}
	s.hangUp(addr)
}

// connection is one to a control node. They are kept to all of them, so that
// another leader is a message away and not a handshake.
type connection struct {
	*grpc.ClientConn
	made time.Time
}

// connectFor is how long a connection may be in the making before it is made
// anew: what went out while the other side could not be reached is only
// repeated after ever longer pauses.
const connectFor = 5 * time.Second

// reach begins to connect to these and closes all others.
func (s *session) reach(ctx context.Context, addrs []string) {
	for addr := range s.conns {
		if !slices.Contains(addrs, addr) {
			s.hangUp(addr)
		}
	}
	for _, addr := range addrs {
		if c, err := s.conn(ctx, addr); err == nil {
			c.Connect()
		}
	}
}

// conn gives the connection to a control node, a new one if need be.
func (s *session) conn(ctx context.Context, addr string) (*connection, error) {
	if c := s.conns[addr]; c != nil {
		switch state := c.GetState(); {
		case state == connectivity.TransientFailure, state == connectivity.Connecting && time.Since(c.made) > connectFor:
			s.hangUp(addr) // it would wait before it tries again
		default:
			return c, nil
		}
	}
	c, err := s.cfg.Dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	s.conns[addr] = &connection{ClientConn: c, made: time.Now()}
	return s.conns[addr], nil
}

func (s *session) hangUp(addr string) {
	if c := s.conns[addr]; c != nil {
		delete(s.conns, addr)
		_ = c.Close() // says only that it was closed before
	}
}

// visit opens a stream to one control node and stays on it until it ends, with
// an error that says why.
func (s *session) visit(ctx context.Context, addr string) error {
	epoch, void := s.lease.begin()
	// What the Hello does not name has ended, and the leader acts on that: so
	// first it ends.
	running, err := s.supervisor.settle(ctx, epoch == 0)
	if err != nil {
		return err
	}
	if isClosed(void) {
		return errVoid // while it ended; look again what there is to name
	}
	conn, err := s.conn(ctx, addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l := &line{session: s, addr: addr, void: void, cancel: cancel}
	err = l.open(ctx, conn, epoch, running)
	if err == nil {
		s.leader = addr
		s.line.Store(l)
		err = l.serve(ctx)
		s.line.Store(nil)
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, errSaidGoodbye) {
		return cause // what broke the stream, not how it broke
	}
	return err
}

// node is how this node registers.
func (s *session) node() *task.Node {
	engine, now := s.health.description(), s.health.present()
	attributes := map[string]string{}
	for name, value := range s.cfg.Attributes {
		attributes[name] = value
	}
	if engine.Egress {
		attributes[task.AttributeEgress] = "true"
	}
	attributes[task.AttributeWarmSlots] = strconv.Itoa(warm.Slots(s.cfg.WarmCount, s.cfg.WarmMemory))
	gossip := ""
	if s.cfg.GossipAddr != nil {
		gossip = s.cfg.GossipAddr()
	}
	return &task.Node{GossipAddr: gossip, ID: s.cfg.ID, Name: s.cfg.Name, Zone: s.cfg.Zone, Version: s.cfg.Version,
		Capacity: s.cfg.Capacity, Attributes: attributes, OutputAddr: s.cfg.OutputAddr,
		Engine: engine.Description, Unfit: now.unfit}
}

// broken names how a stream ended; a clean end is a control node that stopped.
func broken(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the control node ended the session")
	}
	return err
}
