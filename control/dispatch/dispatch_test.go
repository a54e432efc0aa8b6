package dispatch

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"ecs/control/state"
	"ecs/internal/pki"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	"ecs/internal/telemetry"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// memLog applies commands at once, as a cluster of one would.
type memLog struct {
	store *state.Store
	mu    sync.Mutex
	index uint64
	lead  error // what Verify answers
	seen  []timed
	// stuck has the next command that moves outputs come to nothing when its caller
	// gives up.
	stuck bool
}

type timed struct {
	at  time.Time
	cmd state.Command
}

func (l *memLog) Propose(ctx context.Context, c state.Command) (state.Outcome, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, moves := c.(state.MoveOutputs); moves && l.stuck {
		l.stuck = false
		l.mu.Unlock()
		<-ctx.Done()
		l.mu.Lock()
		return state.Outcome{}, ctx.Err()
	}
	l.index++
	now := time.Now()
	l.seen = append(l.seen, timed{now, c})
	entry, err := proto.Marshal(&ecsv1.Entry{Commands: []*ecsv1.Command{state.ToWire(c, now)}})
	if err != nil {
		return state.Outcome{}, err
	}
	out, err := l.store.Apply(l.index, entry)
	if err != nil {
		return state.Outcome{}, err
	}
	return out[0], nil
}

func (l *memLog) VerifyAtNextBeat(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lead
}

func (l *memLog) Leader() (string, string) { return "me", "" }

// when says at which moments commands of c's type were proposed.
func when[T state.Command](l *memLog) []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	var at []time.Time
	for _, s := range l.seen {
		if _, ok := s.cmd.(T); ok {
			at = append(at, s.at)
		}
	}
	return at
}

// bench is a leader with agents whose streams the test holds.
type bench struct {
	t     *testing.T
	log   *memLog
	srv   *Server
	start time.Time
	ctx   context.Context
	stop  context.CancelFunc
	done  sync.WaitGroup
}

func leading(t *testing.T, f func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		store := state.NewStore(state.Limits{})
		start := time.Now()
		b := &bench{t: t, log: &memLog{store: store}, start: start}
		b.ctx, b.stop = context.WithCancel(context.Background())
		b.srv = New(Config{Log: b.log, Snapshot: store.Snapshot,
			LeaderAddr: func() (string, string) { return "other", "other:7448" },
			Peer: func(ctx context.Context) (pki.Identity, error) {
				return pki.Identity{Role: pki.RoleAgent, ID: ctx.Value(peerKey{}).(string)}, nil
			},
			OpenSecrets: func(task.ID, []byte) (task.Secrets, error) { return task.Secrets{}, errors.New("none") },
			Now:         func() time.Duration { return time.Since(start) + time.Hour },
			Logger:      slog.New(slog.DiscardHandler), Metrics: telemetry.Discard()})
		b.done.Go(func() { _ = b.srv.Lead(b.ctx, 7) })
		synctest.Wait()
		f(b)
		b.stop()
		b.done.Wait()
	})
}

type peerKey struct{}

// fakeAgent is the agent's end of a session.
type fakeAgent struct {
	grpc.ServerStream
	ctx  context.Context
	in   chan *ecsv1.AgentMessage
	mu   sync.Mutex
	out  []*ecsv1.ControlMessage
	done chan struct{}
	deaf chan struct{} // not nil: Send waits until it closes
	cut  func()        // breaks the stream
}

func (a *fakeAgent) Context() context.Context { return a.ctx }

func (a *fakeAgent) Send(m *ecsv1.ControlMessage) error {
	a.mu.Lock()
	deaf := a.deaf
	a.mu.Unlock()
	if deaf != nil {
		<-deaf
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.out = append(a.out, m)
	return nil
}

func (a *fakeAgent) Recv() (*ecsv1.AgentMessage, error) {
	select {
	case m, ok := <-a.in:
		if !ok {
			return nil, io.EOF
		}
		return m, nil
	case <-a.ctx.Done():
		return nil, a.ctx.Err()
	}
}

var _ rpc.Sessions_SessionServer = (*fakeAgent)(nil)

func (b *bench) connect(id string, epoch uint64, running ...task.Token) *fakeAgent {
	ctx, cancel := context.WithCancel(context.WithValue(b.ctx, peerKey{}, id))
	a := &fakeAgent{ctx: ctx, in: make(chan *ecsv1.AgentMessage, 10), done: make(chan struct{})}
	a.cut = func() { cancel(); <-a.done }
	node := taskwire.FromNode(&task.Node{ID: task.NodeID(id), Name: id, Zone: "z", OutputAddr: id + ":7451", Capacity: task.Capacity{MilliCPU: 4000, Memory: 4 << 30}})
	hello := &ecsv1.Hello{Node: node, Epoch: epoch}
	for _, tok := range running {
		hello.Running = append(hello.Running, taskwire.FromToken(tok))
	}
	a.in <- &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Hello{Hello: hello}}
	b.done.Go(func() {
		defer close(a.done)
		defer cancel()
		_ = b.srv.Session(a)
	})
	synctest.Wait()
	return a
}

func (a *fakeAgent) beat(n uint64) {
	a.in <- &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Heartbeat{Heartbeat: &ecsv1.Heartbeat{Number: n}}}
}

// got returns the messages of one kind so far.
func got[T any](a *fakeAgent, pick func(*ecsv1.ControlMessage) *T) []*T {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []*T
	for _, m := range a.out {
		if v := pick(m); v != nil {
			all = append(all, v)
		}
	}
	return all
}

func (b *bench) epoch(id string) uint64 { return b.log.store.Snapshot().Node(task.NodeID(id)).Epoch }

func (b *bench) propose(c state.Command) state.Outcome {
	b.t.Helper()
	out, err := b.log.Propose(b.ctx, c)
	if err != nil {
		b.t.Fatal(err)
	}
	synctest.Wait()
	return out
}

func TestSilentNodeIsLostAfterLeaseAndMargin(t *testing.T) {
	leading(t, func(b *bench) {
		a := b.connect("a1", 0)
		var last time.Time
		for n := range uint64(5) {
			time.Sleep(time.Second)
			a.beat(n)
			synctest.Wait()
			last = time.Now()
		}
		if answers := got(a, (*ecsv1.ControlMessage).GetHeartbeat); len(answers) != 5 {
			t.Fatalf("got %d heartbeats answered, want 5", len(answers))
		}
		time.Sleep(task.DefaultLease + task.LeaseMargin - time.Second)
		if lost := when[state.LoseNode](b.log); len(lost) != 0 {
			t.Fatalf("declared lost %s after the last answer", lost[0].Sub(last))
		}
		time.Sleep(2 * time.Second)
		lost := when[state.LoseNode](b.log)
		if len(lost) != 1 {
			t.Fatalf("got %d verdicts, want 1", len(lost))
		}
		if after := lost[0].Sub(last); after < task.DefaultLease+task.LeaseMargin {
			t.Errorf("declared lost after %s, want at least %s", after, task.DefaultLease+task.LeaseMargin)
		}
		<-a.done // the session ends with its lease
		if got := b.log.store.Snapshot().Node("a1").Status; got != task.Lost {
			t.Errorf("got status %s, want lost", got)
		}
	})
}

func TestAnExpiredEpochIsNeverAnsweredAgain(t *testing.T) {
	leading(t, func(b *bench) {
		b.connect("a1", 0)
		old := b.epoch("a1")
		time.Sleep(20 * time.Second)
		back := b.connect("a1", old)
		refusals := got(back, (*ecsv1.ControlMessage).GetRefused)
		if len(refusals) != 1 || !refusals[0].GetExpired() {
			t.Fatalf("got %v, want the old epoch refused as expired", refusals)
		}
		again := b.connect("a1", 0)
		if b.epoch("a1") <= old || len(got(again, (*ecsv1.ControlMessage).GetWelcome)) != 1 {
			t.Errorf("got epoch %d, want one after %d and a welcome", b.epoch("a1"), old)
		}
	})
}

func TestNoAnswerWithoutLeadership(t *testing.T) {
	leading(t, func(b *bench) {
		a := b.connect("a1", 0)
		b.log.mu.Lock()
		b.log.lead = errors.New("not leading")
		b.log.mu.Unlock()
		a.beat(1)
		<-a.done
		if answers := got(a, (*ecsv1.ControlMessage).GetHeartbeat); len(answers) != 0 {
			t.Errorf("got %d answers from a node that does not lead", len(answers))
		}
	})
}

func TestNewLeaderCountsAFullLease(t *testing.T) {
	leading(t, func(b *bench) {
		a := b.connect("a1", 0)
		a.beat(1)
		synctest.Wait()
		epoch := b.epoch("a1")
		b.stop() // the term ends
		b.done.Wait()
		if redirected := func() bool {
			b.ctx, b.stop = context.WithCancel(context.Background())
			r := got(b.connect("a1", epoch), (*ecsv1.ControlMessage).GetRedirect)
			return len(r) == 1 && r[0].GetRpcAddr() == "other:7448"
		}(); !redirected {
			t.Error("a node that does not lead must redirect")
		}
		time.Sleep(11 * time.Second) // more than the old lease had left
		led := time.Now()
		b.done.Go(func() { _ = b.srv.Lead(b.ctx, 8) })
		time.Sleep(time.Minute)
		lost := when[state.LoseNode](b.log)
		if len(lost) != 1 || lost[0].Sub(led) < task.DefaultLease+task.LeaseMargin {
			t.Errorf("got verdicts at %v, want one a full lease and margin after %v", lost, led)
		}
	})
}

func TestALongLeaseOutlivesItsNodes(t *testing.T) {
	leading(t, func(b *bench) {
		a := b.connect("a1", 0)
		submit := func(id task.ID, lease time.Duration) {
			spec := task.Spec{Image: "i:1", Lease: lease, InfrastructureRetries: 1}.WithDefaults(task.V2, false)
			b.propose(state.Submit{Task: &task.Task{ID: id, Spec: spec}})
			out := b.propose(state.Place{Decisions: []state.Decision{{Task: id, Attempt: 1, Node: "a1", Epoch: b.epoch("a1")}}})
			if !slices.Contains(out.Placed, id) {
				t.Fatalf("task %s was not placed", id)
			}
		}
		submit("short", 0)
		submit("long", time.Minute)
		if sent := got(a, (*ecsv1.ControlMessage).GetAssignment); len(sent) != 2 {
			t.Fatalf("got %d assignments, want 2", len(sent))
		}
		time.Sleep(15 * time.Second)
		sn := b.log.store.Snapshot()
		if s, l := sn.Task("short").State, sn.Task("long").State; s != task.Pending || l != task.Assigned {
			t.Errorf("after 15 s of silence got %s and %s, want pending and assigned", s, l)
		}
		time.Sleep(50 * time.Second)
		if l := b.log.store.Snapshot().Task("long").State; l != task.Pending {
			t.Errorf("after 65 s of silence got %s, want pending", l)
		}
		if lost := when[state.LoseAttempt](b.log); len(lost) != 1 || lost[0].Sub(b.start) < time.Minute+task.LeaseMargin {
			t.Errorf("got %v, want one loss after its minute and margin", lost)
		}
	})
}

func TestAReportIsAcknowledgedOnceCommitted(t *testing.T) {
	leading(t, func(b *bench) {
		a := b.connect("a1", 0)
		spec := task.Spec{Image: "i:1"}.WithDefaults(task.V2, false)
		b.propose(state.Submit{Task: &task.Task{ID: "t1", Spec: spec}})
		tok := task.Token{Task: "t1", Attempt: 1, Epoch: b.epoch("a1")}
		b.propose(state.Place{Decisions: []state.Decision{{Task: "t1", Attempt: 1, Node: "a1", Epoch: tok.Epoch}}})
		report := &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Status{Status: &ecsv1.AttemptStatus{Token: taskwire.FromToken(tok), StartedAt: 5,
			Result: taskwire.FromResult(&task.Result{Outcome: task.Exited, HasExit: true}), Bill: taskwire.FromBill(task.Bill{Run: time.Second})}}}
		a.in <- report
		synctest.Wait()
		a.in <- report // as after a lost acknowledgement
		synctest.Wait()
		answers := got(a, (*ecsv1.ControlMessage).GetStatus)
		if len(answers) != 2 || !answers[0].GetFinal() || answers[0].GetStale() || !answers[1].GetStale() {
			t.Errorf("got %v, want the first final and the second stale", answers)
		}
		if got := b.log.store.Snapshot().Task("t1"); got.State != task.Finished || got.Bill.Run != time.Second || got.Attempts[0].StartedAt.UnixNano() != 5 {
			t.Errorf("got %s %+v, want finished with its bill", got.State, got.Bill)
		}
	})
}

func TestAnAgentMayOnlySpeakForItself(t *testing.T) {
	leading(t, func(b *bench) {
		ctx := context.WithValue(b.ctx, peerKey{}, "a2")
		a := &fakeAgent{ctx: ctx, in: make(chan *ecsv1.AgentMessage, 1)}
		a.in <- &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Hello{Hello: &ecsv1.Hello{Node: &ecsv1.Node{Id: "a1"}}}}
		if err := b.srv.Session(a); err != nil {
			t.Fatal(err)
		}
		if r := got(a, (*ecsv1.ControlMessage).GetRefused); len(r) != 1 || r[0].GetExpired() {
			t.Errorf("got %v, want a refusal for good", r)
		}
	})
}

func TestAnAgentCannotFinishAnothersAttempt(t *testing.T) {
	leading(t, func(b *bench) {
		b.connect("a1", 0)
		other := b.connect("a2", 0)
		b.propose(state.Submit{Task: &task.Task{ID: "t1", Spec: task.Spec{Image: "i:1"}.WithDefaults(task.V2, false)}})
		tok := task.Token{Task: "t1", Attempt: 1, Epoch: b.epoch("a1")}
		b.propose(state.Place{Decisions: []state.Decision{{Task: "t1", Attempt: 1, Node: "a1", Epoch: tok.Epoch}}})
		other.in <- &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Status{Status: &ecsv1.AttemptStatus{Token: taskwire.FromToken(tok),
			Result: taskwire.FromResult(&task.Result{Outcome: task.Exited, HasExit: true})}}}
		synctest.Wait()
		if got := b.log.store.Snapshot().Task("t1").State; got != task.Assigned {
			t.Errorf("got %s after another node's report, want assigned", got)
		}
	})
}

func TestSecretsThatDoNotOpenFailTheirTaskAlone(t *testing.T) {
	leading(t, func(b *bench) {
		a := b.connect("a1", 0)
		for id, secrets := range map[task.ID][]byte{"sealed": {1, 2, 3}, "plain": nil} {
			spec := task.Spec{Image: "i:1", Secrets: secrets}.WithDefaults(task.V2, false)
			b.propose(state.Submit{Task: &task.Task{ID: id, Spec: spec}})
			b.propose(state.Place{Decisions: []state.Decision{{Task: id, Attempt: 1, Node: "a1", Epoch: b.epoch("a1")}}})
		}
		sn := b.log.store.Snapshot()
		if got := sn.Task("sealed"); got.State != task.Finished || got.Result.Outcome != task.StartFailed {
			t.Errorf("got %s, want it failed to start", got.State)
		}
		if sent := got(a, (*ecsv1.ControlMessage).GetAssignment); len(sent) != 1 || sent[0].GetToken().GetTask() != "plain" {
			t.Errorf("got %v assigned, want the plain one alone", sent)
		}
	})
}

// TestARegistrationWithoutASessionHasALease commits a registration whose
// session is gone before it could begin the lease.
func TestARegistrationWithoutASessionHasALease(t *testing.T) {
	leading(t, func(b *bench) {
		b.connect("a1", 0)
		b.propose(state.Register{Node: task.Node{ID: "a1", Zone: "z"}})
		time.Sleep(time.Minute)
		if got := b.log.store.Snapshot().Node("a1").Status; got != task.Lost {
			t.Errorf("got %s a minute later, want lost", got)
		}
	})
}

// TestAnAgentThatDoesNotReadEndsNoTermLate blocks a Send for ever.
func TestAnAgentThatDoesNotReadEndsNoTermLate(t *testing.T) {
	leading(t, func(b *bench) {
		a := b.connect("a1", 0)
		a.mu.Lock()
		a.deaf = make(chan struct{})
		a.mu.Unlock()
		spec := task.Spec{Image: "i:1"}.WithDefaults(task.V2, false)
		entry := state.Submit{Task: &task.Task{ID: "t1", Spec: spec}}
		b.propose(entry)
		b.propose(state.Place{Decisions: []state.Decision{{Task: "t1", Attempt: 1, Node: "a1", Epoch: b.epoch("a1")}}})
		stopped := time.Now()
		b.stop()
		<-a.done
		if took := time.Since(stopped); took > time.Second {
			t.Errorf("the session took %s to end", took)
		}
		close(a.deaf)
		b.done.Wait()
	})
}
