package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

const (
	// silence is how long a leader may leave heartbeats unanswered before it is
	// taken for lost.
	silence = 2 * time.Second
	// connectPatience is how long a connection may take, resumePatience and
	// registerPatience the answer to a Hello: a registration is committed
	// before it is answered.
	connectPatience  = time.Second
	resumePatience   = 1500 * time.Millisecond
	registerPatience = 5 * time.Second
)

// line is one stream to one control node.
type line struct {
	*session
	addr   string
	void   <-chan struct{} // closed when the Hello is not true any more
	cancel context.CancelCauseFunc
	stream rpc.Sessions_SessionClient
	epoch  uint64
	term   uint64
	beats  beats
	// leaving: goodbye is about to be, or has been, said. A clean end of the
	// stream after that is the leader's answer to it.
	leaving atomic.Bool
}

// open connects, says Hello and takes the welcome.
func (l *line) open(ctx context.Context, conn *connection, epoch uint64, running []task.Token) error {
	patience := time.AfterFunc(connectPatience, func() { l.cancel(errUnreachable) })
	defer patience.Stop()
	stream, err := rpc.NewSessionsClient(conn).Session(ctx)
	if err != nil {
		return fmt.Errorf("open a session: %w", err)
	}
	l.stream = stream
	limit := resumePatience
	if epoch == 0 {
		limit = registerPatience
	}
	patience.Stop()
	patience = time.AfterFunc(limit, func() { l.cancel(errSilent) })
	defer patience.Stop()
	sent := l.cfg.Now()
	hello := &ecsv1.Hello{Node: taskwire.FromNode(l.node()), Epoch: epoch, Running: taskwire.FromTokens(running)}
	if err := stream.Send(&ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Hello{Hello: hello}}); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("say hello: %w", err) // after io.EOF, Recv knows why
	}
	m, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("say hello: %w", broken(err))
	}
	return l.welcome(m, epoch, sent)
}

func (l *line) welcome(m *ecsv1.ControlMessage, resumed uint64, sent time.Duration) error {
	if err := l.turnedAway(m); err != nil {
		return err
	}
	w := m.GetWelcome()
	forget := taskwire.ToTokens(w.GetForget())
	switch {
	case w == nil:
		return fmt.Errorf("%w to a hello: %T", errUnexpected, m.GetKind())
	case m.GetTerm() < l.newest:
		return errOldTerm
	case !l.lease.welcome(l.void, m.GetEpoch(), sent, time.Duration(w.GetLease()), forget...):
		return errVoid
	}
	l.newest, l.term, l.epoch = m.GetTerm(), m.GetTerm(), m.GetEpoch()
	l.lease.save()
	count(l.cfg.Metrics, metricSessions, 1)
	if resumed == 0 {
		count(l.cfg.Metrics, metricRegistrations, 1)
	}
	l.cfg.Log.Info("session open", "control", l.addr, "term", l.term, "epoch", l.epoch, "resumed", resumed != 0, "forget", len(forget))
	return l.supervisor.forget(forget)
}

// turnedAway gives the error for an answer that sends this node elsewhere.
func (l *line) turnedAway(m *ecsv1.ControlMessage) error {
	if r := m.GetRedirect(); r != nil {
		return &redirected{addr: r.GetRpcAddr()}
	}
	r := m.GetRefused()
	switch {
	case r == nil:
		return nil
	case m.GetTerm() != 0 && m.GetTerm() < l.newest:
		return errOldTerm // it can't know
	case r.GetExpired():
		l.lease.revoke()
		return fmt.Errorf("%w: %s", errExpired, r.GetReason())
	}
	return &refused{reason: r.GetReason()}
}

// serve exchanges messages until the stream ends or has to.
func (l *line) serve(ctx context.Context) error {
	in := make(chan *ecsv1.ControlMessage)
	received, sent := make(chan error, 1), make(chan error, 1)
	var both sync.WaitGroup
	both.Go(func() { received <- l.receive(ctx, in) })
	both.Go(func() { sent <- l.send(ctx) })
	err := l.attend(ctx, in, received, sent)
	l.cancel(err)
	both.Wait()
	return err
}

// receive passes on what the leader says.
func (l *line) receive(ctx context.Context, in chan<- *ecsv1.ControlMessage) error {
	for {
		m, err := l.stream.Recv()
		if err != nil {
			return err
		}
		select {
		case in <- m:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// attend acts on what the leader says, and on its silence.
func (l *line) attend(ctx context.Context, in <-chan *ecsv1.ControlMessage, received, sent <-chan error) error {
	quiet := time.NewTimer(silence)
	defer quiet.Stop()
	for {
		select {
		case m := <-in:
			answered, err := l.handle(m)
			if err != nil {
				return err
			}
			if answered {
				l.targets.contact(time.Now())
				quiet.Reset(silence)
			}
		case err := <-sent:
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("send to %s: %w", l.addr, err)
			}
			sent = nil // after io.EOF, received has the reason
			quiet.Reset(silence)
		case err := <-received:
			if l.leaving.Load() && errors.Is(err, io.EOF) {
				return errSaidGoodbye
			}
			return fmt.Errorf("receive from %s: %w", l.addr, broken(err))
		case <-quiet.C:
			return errSilent
		case <-l.void:
			return errVoid
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// handle acts on one message and reports whether it answered a heartbeat.
func (l *line) handle(m *ecsv1.ControlMessage) (answered bool, err error) {
	if err := l.turnedAway(m); err != nil {
		return false, err
	}
	switch {
	case m.GetTerm() < l.term:
		return false, errOldTerm
	case m.GetTerm() > l.term:
		return false, errNewTerm // a new leadership wants a new Hello
	case m.GetEpoch() != l.epoch:
		return false, fmt.Errorf("%w: for epoch %d in epoch %d", errUnexpected, m.GetEpoch(), l.epoch)
	}
	switch kind := m.GetKind().(type) {
	case *ecsv1.ControlMessage_Leave:
		l.cfg.Log.Info("asked to leave the cluster")
		if l.cfg.Leave != nil {
			l.cfg.Leave()
		}
	case *ecsv1.ControlMessage_Heartbeat:
		sent, known := l.beats.answered(kind.Heartbeat.GetNumber())
		if !known {
			return false, nil
		}
		if !l.lease.renew(l.epoch, sent) {
			return false, errVoid
		}
		l.supervisor.warm.Drain(kind.Heartbeat.GetDrain())
		l.wishes.hear(kind.Heartbeat.GetWishes())
		return true, nil
	case *ecsv1.ControlMessage_Assignment:
		return false, l.assign(kind.Assignment)
	case *ecsv1.ControlMessage_Stop:
		return false, l.supervisor.stop(taskwire.ToToken(kind.Stop.GetToken()), stopFor(kind.Stop))
	case *ecsv1.ControlMessage_Take:
		l.takes.order(kind.Take)
	case *ecsv1.ControlMessage_CallOff:
		l.takes.callOff(taskwire.ToToken(kind.CallOff.GetToken()))
	case *ecsv1.ControlMessage_Grant:
		l.handover.grant(kind.Grant)
	case *ecsv1.ControlMessage_HandedOn:
		l.handover.hear(kind.HandedOn)
	case *ecsv1.ControlMessage_Status:
		a := kind.Status
		return false, l.supervisor.answered(taskwire.ToToken(a.GetToken()), a.GetFinal(), a.GetStale())
	}
	return false, nil // from a newer leader; it must not depend on it
}

func (l *line) assign(a *ecsv1.Assignment) error {
	o := order{token: taskwire.ToToken(a.GetToken()), spec: taskwire.ToSpec(a.GetSpec()), cid: a.GetCid(), owner: a.GetOwner(), trace: a.GetTrace()}
	if secrets := taskwire.ToSecrets(a.GetSecrets()); secrets != nil {
		o.secrets = *secrets
	}
	l.supervisor.warm.Assigned() // after the leader's own counting
	return l.supervisor.assign(o)
}

func stopFor(m *ecsv1.StopAttempt) *stopped {
	s := &stopped{outcome: task.Outcome(m.GetOutcome()), reason: m.GetReason()}
	if s.reason == "" && s.outcome == task.DeadlineExceeded {
		s.reason = "the task's total time was up"
	}
	if s.reason == "" {
		s.reason = "stopped on request"
	}
	return s
}

// send is the only sender after the Hello: heartbeats, and statuses in between.
// It returns nil once it has said goodbye.
func (l *line) send(ctx context.Context) error {
	l.reporter.resend(0)
	tick := time.NewTicker(task.Heartbeat)
	defer tick.Stop()
	var said said
	asked := l.handover.asked
	err := l.beat(&said)
	for err == nil {
		select {
		case <-tick.C:
			l.reporter.resend(resendAfter)
			err = l.beat(&said)
			continue
		default: // a long row of statuses never delays a heartbeat
		}
		if report := l.reporter.take(); report != nil {
			err = l.report(report)
			continue
		}
		select {
		case <-tick.C:
			l.reporter.resend(resendAfter)
			err = l.beat(&said)
		case <-l.health.changed:
			err = l.beat(&said)
		case <-l.reporter.ready:
		case <-l.takes.ready:
			err = l.answerTakes()
		case <-asked:
			asked = nil // once a session: another leader knows nothing of it
			err = l.stream.Send(&ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_HandOn{HandOn: &ecsv1.HandOn{}}})
		case <-l.farewell:
			l.leaving.Store(true)
			err = l.stream.Send(&ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Goodbye{Goodbye: &ecsv1.Goodbye{}}})
			if err == nil {
				return l.stream.CloseSend()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// said is what the leader has been told with the heartbeats of this session.
type said struct {
	images int    // the version
	parked uint64 // the version; 0 at first, when the leader knows of none
}

// beat sends a heartbeat, with what is not as it was said before.
func (l *line) beat(said *said) error {
	p := l.health.present()
	h := &ecsv1.Heartbeat{Unfit: p.unfit}
	if p.version != said.images {
		h.HasImages, h.Images, said.images = true, p.images, p.version
	}
	if parked, version := l.supervisor.warm.Hints(); version != said.parked {
		said.parked, h.HasParked = version, true
		for shape, n := range parked {
			h.Parked = append(h.Parked, &ecsv1.Parked{Shape: shape, Count: uint32(n)})
		}
	}
	if l.cfg.DialAgent != nil {
		h.HasSpool, h.SpoolFree = true, l.cfg.Spool.Free()
	}
	h.Number = l.beats.next(l.cfg.Now())
	return l.stream.Send(&ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Heartbeat{Heartbeat: h}})
}

// answerTakes tells what became of orders to take output.
func (l *line) answerTakes() error {
	return l.takes.tell(func(a *ecsv1.Taken) error {
		return l.stream.Send(&ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Taken{Taken: a}})
	})
}

func (l *line) report(r *report) error {
	return l.stream.Send(&ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Status{Status: r.wire()}})
}

// beats remembers when the heartbeats left that are not answered yet. Its
// methods are safe for concurrent use.
type beats struct {
	mu   sync.Mutex
	last uint64
	sent map[uint64]time.Duration
}

// next counts a heartbeat that is sent now.
func (b *beats) next(now time.Duration) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sent == nil {
		b.sent = map[uint64]time.Duration{}
	}
	b.last++
	b.sent[b.last] = now
	return b.last
}

// answered gives when a heartbeat left, and forgets it and those before it.
func (b *beats) answered(number uint64) (sent time.Duration, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sent, known = b.sent[number]
	for n := range b.sent {
		if n <= number {
			delete(b.sent, n)
		}
	}
	return sent, known
}
