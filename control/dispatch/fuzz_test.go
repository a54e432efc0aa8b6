package dispatch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"ecs/control/state"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// maxMessages bounds those of one stream that are tried.
const maxMessages = 16

// stream writes messages as one string of bytes; messages reads what can be read.
func stream(all ...*ecsv1.AgentMessage) (text []byte) {
	for _, m := range all {
		b, err := proto.Marshal(m)
		if err != nil {
			panic(err)
		}
		text = protowire.AppendBytes(text, b)
	}
	return text
}

func messages(text []byte) (all []*ecsv1.AgentMessage) {
	for len(text) > 0 && len(all) < maxMessages {
		b, n := protowire.ConsumeBytes(text)
		if n < 0 {
			return all
		}
		m := &ecsv1.AgentMessage{}
		if proto.Unmarshal(b, m) == nil {
			all = append(all, m)
		}
		text = text[n:]
	}
	return all
}

// FuzzAgentStream has an agent say whatever it could: the leader lives, another
// agent's attempt is as it was, and its heartbeats are answered.
func FuzzAgentStream(f *testing.F) {
	hello := &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Hello{Hello: &ecsv1.Hello{
		Node: taskwire.FromNode(&task.Node{ID: "a1", Name: "a1", Zone: "z", OutputAddr: "a1:9", Capacity: task.Capacity{MilliCPU: 4000, Memory: 4 << 30}})}}}
	token := &ecsv1.Token{Task: "t1", Attempt: 1, Epoch: 1}
	status := &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Status{Status: &ecsv1.AttemptStatus{Token: token,
		Result: taskwire.FromResult(&task.Result{Outcome: task.Exited, HasExit: true})}}}
	beat := &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Heartbeat{Heartbeat: &ecsv1.Heartbeat{Number: 1, HasImages: true, Images: []string{"i:1"},
		HasParked: true, Parked: []*ecsv1.Parked{{Shape: 7, Count: 2}}, HasSpool: true, SpoolFree: 1 << 30}}}
	handOn := &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_HandOn{HandOn: &ecsv1.HandOn{}}}
	taken := &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Taken{Taken: &ecsv1.Taken{Token: token, Problem: "none"}}}
	goodbye := &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Goodbye{Goodbye: &ecsv1.Goodbye{}}}
	running := proto.Clone(hello).(*ecsv1.AgentMessage)
	running.GetHello().Running = []*ecsv1.Token{token, nil}
	f.Add(stream(hello, beat, status, taken, handOn, goodbye))
	f.Add(stream(running, beat, hello, status))
	f.Add(stream(&ecsv1.AgentMessage{}, hello))
	f.Add(stream(&ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Hello{}}))
	f.Fuzz(func(t *testing.T, text []byte) {
		all := messages(text)
		leading(t, func(b *bench) {
			other := b.connect("a2", 0)
			b.propose(state.Submit{Task: &task.Task{ID: "t1", Spec: task.Spec{Image: "i:1"}.WithDefaults(task.V2, false)}})
			b.propose(state.Place{Decisions: []state.Decision{{Task: "t1", Attempt: 1, Node: "a2", Epoch: b.epoch("a2")}}})
			ctx, cancel := context.WithCancel(context.WithValue(b.ctx, peerKey{}, "a1"))
			a := &fakeAgent{ctx: ctx, in: make(chan *ecsv1.AgentMessage, maxMessages), done: make(chan struct{})}
			b.done.Go(func() {
				defer close(a.done)
				defer cancel()
				_ = b.srv.Session(a) // it says why it ended, if it has to
			})
			for _, m := range all {
				a.in <- m
				synctest.Wait()
			}
			close(a.in)
			<-a.done
			other.beat(1)
			time.Sleep(2 * time.Second) // one check of the leadership a second serves all
			synctest.Wait()
			if len(got(other, (*ecsv1.ControlMessage).GetHeartbeat)) != 1 {
				t.Error("another agent's heartbeat is not answered")
			}
			live := b.log.store.Snapshot().Task("t1")
			if live.State != task.Assigned || live.Live() == nil || live.Live().Node != "a2" {
				t.Errorf("another agent's attempt is %+v", live)
			}
		})
	})
}
