package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"golang.org/x/sync/errgroup"

	"ecs/control/state"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// reportsAtOnce bounds the results of one agent that are being committed, so
// that one agent does not fill the queue of proposals.
const reportsAtOnce = 128

// endWithin is how long a session that is over may take to end by itself.
const endWithin = 500 * time.Millisecond

// session is one agent's stream under one epoch.
type session struct {
	*tenure
	stream rpc.Sessions_SessionServer
	node   task.NodeID
	epoch  uint64
	cancel context.CancelCauseFunc
	out    chan *ecsv1.ControlMessage
	beats  chan heard          // one slot, newest wins
	known  map[task.Token]bool // attempts the agent has; the writer's own

	// guarded by tenure.mu
	images  map[string]bool
	parked  map[uint64]int // containers that wait for a task, by the hash of their shape; not changed but replaced
	heardAt time.Duration
	unfit   string
	// what it has room for of others' output, if it takes any
	takesSpool bool
	spoolFree  int64
	opened     time.Time
	strays     map[task.Token]bool // output that it is to drop its copy of

	astray chan struct{} // one slot: there are strays

	gone chan struct{} // closed at the end
}

var (
	errReplaced  = errors.New("the agent opened another session")
	errLeaseOver = errors.New("lease over")
)

// serve runs one session until the stream, the lease or the term ends.
func (t *tenure) serve(stream rpc.Sessions_SessionServer, hello *ecsv1.Hello) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	stop := context.AfterFunc(t.ctx, func() { cancel(context.Canceled) })
	defer stop()

	s := &session{tenure: t, stream: stream, node: task.NodeID(hello.GetNode().GetId()), cancel: cancel,
		out: make(chan *ecsv1.ControlMessage, 64), beats: make(chan heard, 1),
		known: make(map[task.Token]bool), unfit: hello.GetNode().GetUnfit(), gone: make(chan struct{}),
		opened: time.Now(), strays: make(map[task.Token]bool), astray: make(chan struct{}, 1)}
	welcome, err := s.open(ctx, hello)
	if err != nil || welcome == nil {
		return err
	}
	s.enlist()
	defer s.delist()
	if err := stream.Send(s.message(&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Welcome{Welcome: welcome}})); err != nil {
		return err
	}

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.write(ctx, g) })
	g.Go(func() error { return s.beat(ctx) })
	g.Go(func() error { return s.read(ctx, g) })
	ended := make(chan error, 1)
	go func() { ended <- g.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	// Only the end of the stream frees a Send to an agent that does not read,
	// and only returning ends the stream. What is left ends right after it.
	patience := time.NewTimer(endWithin)
	defer patience.Stop()
	select {
	case err := <-ended:
		return err
	case <-patience.C:
		return context.Cause(ctx)
	}
}

// receive passes on what the agent says. Recv ends with the stream's own
// context only, which gRPC cancels when the handler returns: so the session
// does not wait for this goroutine, it ends right after it.
func (s *session) receive(ctx context.Context, to chan<- *ecsv1.AgentMessage, failed chan<- error) {
	for {
		m, err := s.stream.Recv()
		if err != nil {
			failed <- err
			return
		}
		select {
		case to <- m:
		case <-ctx.Done():
			return
		}
	}
}

// open resumes or begins a registration. A nil welcome means that the agent
// was refused and told why.
func (s *session) open(ctx context.Context, hello *ecsv1.Hello) (*ecsv1.Welcome, error) {
	running := make([]task.Token, 0, len(hello.GetRunning()))
	for _, r := range hello.GetRunning() {
		running = append(running, taskwire.ToToken(r))
	}
	welcome := &ecsv1.Welcome{Lease: int64(task.DefaultLease)}
	if epoch := hello.GetEpoch(); epoch != 0 {
		if !s.holds(s.node, epoch) {
			return nil, s.stream.Send(refused(true, "the registration is over: its lease lapsed or another took its place"))
		}
		s.epoch = epoch
		sn := s.cfg.Snapshot()
		for _, tok := range running {
			if live(sn, tok) {
				s.known[tok] = true
			} else {
				welcome.Forget = append(welcome.Forget, taskwire.FromToken(tok))
			}
		}
		return welcome, nil
	}

	s.expire(s.node)
	node := taskwire.ToNode(hello.GetNode())
	out, err := s.cfg.Log.Propose(ctx, state.Register{Node: *node, Running: running})
	if err != nil {
		return nil, fmt.Errorf("register node %s: %w", s.node, err)
	}
	if out.Err != nil {
		return nil, refuse(s.stream, out.Err.Error())
	}
	s.epoch = out.Node.Epoch
	s.begin(s.node, s.epoch)
	for _, tok := range running {
		s.known[tok] = true
	}
	for _, tok := range out.Forget {
		delete(s.known, tok)
		welcome.Forget = append(welcome.Forget, taskwire.FromToken(tok))
	}
	s.cfg.Logger.Info("agent registered", "node", s.node, "name", node.Name, "zone", node.Zone, "epoch", s.epoch, "term", s.term)
	return welcome, nil
}

// live reports whether the record still waits for the end of this attempt.
func live(sn *state.Snapshot, tok task.Token) bool {
	t := sn.Task(tok.Task)
	return t != nil && t.Live() != nil && t.Live().Token(t.ID) == tok
}

func (s *session) message(m *ecsv1.ControlMessage) *ecsv1.ControlMessage {
	m.Term, m.Epoch = s.term, s.epoch
	return m
}

// say queues a message for the writer.
func (s *session) say(ctx context.Context, m *ecsv1.ControlMessage) error {
	select {
	case s.out <- s.message(m):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write is the only sender. It streams what the record wants of the agent, at
// once, and the answers that others queued. A refusal is the last of them.
func (s *session) write(ctx context.Context, g *errgroup.Group) error {
	stopped := make(map[task.Token]bool)
	for {
		sn := s.cfg.Snapshot()
		changed := sn.WatchOn(s.node)
		unopened, err := s.sync(sn, stopped)
		if err != nil {
			return err
		}
		for _, tok := range unopened {
			g.Go(func() error { return s.fail(ctx, tok, "its secrets could not be opened by the leader") })
		}
	answers:
		for {
			select {
			case m := <-s.out:
				if err := s.stream.Send(m); err != nil {
					return err
				}
				if m.GetRefused() != nil {
					return errLeaseOver
				}
			case <-s.astray:
				if err := s.dropStrays(); err != nil {
					return err
				}
			case <-changed:
				break answers
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

// sync sends every assignment and stop the agent does not know yet.
// It returns the attempts whose secrets could not be opened: they fail, and
// nothing else does.
func (s *session) sync(sn *state.Snapshot, stopped map[task.Token]bool) (unopened []task.Token, err error) {
	present := make(map[task.Token]bool)
	for t := range sn.On(s.node) {
		tok := t.Live().Token(t.ID)
		present[tok] = true
		if !s.known[tok] {
			if tok.Epoch != s.epoch {
				continue // an older registration's; its loss is on its way
			}
			assignment, err := s.assignment(t, tok)
			if err != nil {
				s.known[tok] = true
				unopened = append(unopened, tok)
				s.cfg.Logger.Error("secrets not opened: do all control nodes have the same seal key?",
					"task", t.ID, "attempt", tok.Attempt, "cid", t.CID, "owner", t.Owner, "err", err)
				continue
			}
			if err := s.stream.Send(s.message(assignment)); err != nil {
				return nil, err
			}
			s.known[tok] = true
			s.sent(tok, &t.Spec)
			s.cfg.Logger.Info("attempt assigned", "task", t.ID, "attempt", tok.Attempt, "cid", t.CID, "owner", t.Owner, "agent", s.node)
		}
		if t.StopAs != "" && !stopped[tok] {
			stopped[tok] = true
			if err := s.stream.Send(s.message(&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Stop{Stop: &ecsv1.StopAttempt{
				Token: taskwire.FromToken(tok), Outcome: string(t.StopAs)}}})); err != nil {
				return nil, err
			}
		}
	}
	gone := func(tok task.Token, _ bool) bool { return !present[tok] }
	maps.DeleteFunc(s.known, gone)
	maps.DeleteFunc(stopped, gone)
	return unopened, nil
}

// fail ends an attempt that was never sent.
func (s *session) fail(ctx context.Context, tok task.Token, reason string) error {
	_, err := s.cfg.Log.Propose(ctx, state.Finish{Token: tok, Node: s.node,
		Result: task.Result{Outcome: task.StartFailed, Reason: reason}})
	return err
}

func (s *session) assignment(t *task.Task, tok task.Token) (*ecsv1.ControlMessage, error) {
	spec := t.Spec
	a := &ecsv1.Assignment{Token: taskwire.FromToken(tok), Cid: t.CID, Owner: t.Owner, Trace: t.Trace}
	if len(spec.Secrets) > 0 {
		secrets, err := s.cfg.OpenSecrets(t.ID, spec.Secrets)
		if err != nil {
			return nil, fmt.Errorf("open the secrets of task %s: %w", t.ID, err)
		}
		a.Secrets = taskwire.FromSecrets(&secrets)
		spec.Secrets = nil
	}
	a.Spec = taskwire.FromSpec(spec)
	return &ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Assignment{Assignment: a}}, nil
}

// read acts on what the agent says until the stream ends.
func (s *session) read(ctx context.Context, g *errgroup.Group) error {
	messages, failed := make(chan *ecsv1.AgentMessage), make(chan error, 1)
	go s.receive(ctx, messages, failed)
	slots := make(chan struct{}, reportsAtOnce)
	handing := false
	for {
		var m *ecsv1.AgentMessage
		select {
		case m = <-messages:
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return context.Canceled
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
		switch {
		case m.GetHeartbeat() != nil:
			s.hear(m.GetHeartbeat())
		case m.GetStatus() != nil:
			// Not waited for here: a heartbeat may be behind it. An agent has
			// one report an attempt under way, which bounds them.
			received := time.Now()
			g.Go(func() error {
				select {
				case slots <- struct{}{}:
				case <-ctx.Done():
					return ctx.Err()
				}
				defer func() { <-slots }()
				return s.report(ctx, m.GetStatus(), received)
			})
		case m.GetHandOn() != nil && !handing:
			handing = true
			g.Go(func() error { return s.handOn(ctx) })
		case m.GetTaken() != nil:
			s.took(ctx, g, m.GetTaken())
		case m.GetGoodbye() != nil:
			return s.leave(ctx)
		}
	}
}

// report commits a status and acknowledges it.
func (s *session) report(ctx context.Context, st *ecsv1.AttemptStatus, received time.Time) error {
	tok := taskwire.ToToken(st.GetToken())
	var cmd state.Command
	final := st.GetResult() != nil
	if final {
		bill := taskwire.ToBill(st.GetBill())
		s.settle(tok, &bill)
		result := *taskwire.ToResult(st.GetResult())
		result.Attempt, result.Node = tok.Attempt, s.node
		cmd = state.Finish{Token: tok, Node: s.node, Result: result, Bill: bill, StartedAt: taskwire.ToTime(st.GetStartedAt())}
	} else {
		cmd = state.Progress{Token: tok, Node: s.node, StartedAt: taskwire.ToTime(st.GetStartedAt())}
	}
	out, err := s.cfg.Log.Propose(ctx, cmd)
	if err != nil {
		return fmt.Errorf("commit the report of task %s: %w", tok.Task, err)
	}
	stale := errors.Is(out.Err, &task.Error{Code: task.CodeStale})
	if out.Err != nil && !stale {
		return fmt.Errorf("report of task %s: %w", tok.Task, out.Err)
	}
	s.cfg.Metrics.AddSample([]string{"dispatch", "report_ms"}, float32(time.Since(received).Seconds()*1000))
	return s.say(ctx, &ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Status{Status: &ecsv1.StatusAnswer{
		Token: st.GetToken(), Final: final || stale, Stale: stale}}})
}

// SendAway asks an agent that has a session here to leave the cluster, and reports
// whether there is one.
func (s *Server) SendAway(ctx context.Context, node task.NodeID) bool {
	t := s.enter()
	if t == nil {
		return false
	}
	defer t.active.Done()
	t.mu.Lock()
	session := t.mu.sessions[node]
	t.mu.Unlock()
	if session == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, endWithin)
	defer cancel()
	return session.say(ctx, &ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Leave{Leave: &ecsv1.Leave{}}}) == nil
}

// leave gives the lease up for the agent, which has ended everything.
func (s *session) leave(ctx context.Context) error {
	s.expire(s.node)
	out, err := s.cfg.Log.Propose(ctx, state.LoseNode{Node: s.node, Epoch: s.epoch, Left: true, Lease: task.MaxLease})
	if err != nil {
		return fmt.Errorf("node %s leaves: %w", s.node, err)
	}
	if out.Err == nil {
		s.cfg.Logger.Info("agent left", "node", s.node, "epoch", s.epoch, "term", s.term)
	}
	return context.Canceled
}
