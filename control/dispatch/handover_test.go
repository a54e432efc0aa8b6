package dispatch

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// receiving is an agent that sends heartbeats, with its room for others' output,
// until its session ends.
func (b *bench) receiving(id string, epoch uint64) *fakeAgent {
	b.t.Helper()
	a := b.connect(id, epoch)
	b.done.Go(func() {
		for n := uint64(1); ; n++ {
			beat := &ecsv1.Heartbeat{Number: n, HasSpool: true, SpoolFree: 1 << 30}
			select {
			case a.in <- &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Heartbeat{Heartbeat: beat}}:
			case <-a.done:
				return
			}
			select {
			case <-time.After(time.Second):
			case <-a.done:
				return
			}
		}
	})
	synctest.Wait()
	return a
}

// leaving is an agent with the output of some tasks that takes none any more and
// wants it handed on.
func (b *bench) leaving(id string, outputs int) (a *fakeAgent, tokens []task.Token) {
	b.t.Helper()
	a = b.receiving(id, 0)
	for i := range outputs {
		tok := task.Token{Task: task.ID(fmt.Sprintf("%s-t%d", id, i)), Attempt: 1, Epoch: b.epoch(id)}
		spec := task.Spec{Image: "i:1"}.WithDefaults(task.V2, false)
		b.propose(state.Submit{Task: &task.Task{ID: tok.Task, Spec: spec}})
		b.propose(state.Place{Decisions: []state.Decision{{Task: tok.Task, Attempt: 1, Node: task.NodeID(id), Epoch: tok.Epoch}}})
		b.propose(state.Finish{Token: tok, Node: task.NodeID(id), Result: task.Result{Outcome: task.Exited, HasExit: true, Attempt: 1,
			Node: task.NodeID(id), OutputAddr: id + ":7451", Stdout: task.Stream{Bytes: 1 << 20, Kept: 1 << 20}}})
		if got := b.holder(tok); got != id {
			b.t.Fatalf("got the output of %s at %q", tok.Task, got)
		}
		tokens = append(tokens, tok)
	}
	unfit := "leaving"
	b.propose(state.SetNode{Node: task.NodeID(id), Unfit: &unfit, Epoch: b.epoch(id)})
	a.in <- &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_HandOn{HandOn: &ecsv1.HandOn{}}}
	synctest.Wait()
	return a, tokens
}

func (b *bench) holder(tok task.Token) string {
	t := b.log.store.Snapshot().Task(tok.Task)
	if t == nil || t.Result == nil {
		return ""
	}
	return string(t.Result.Holder())
}

// proof is what an agent knows that was ordered to take such output as there is here.
var proof = taskwire.TakeProof(&ecsv1.Take{Stdout: &ecsv1.Held{Sha256: make([]byte, 32)}, Stderr: &ecsv1.Held{Sha256: make([]byte, 32)}})

func (a *fakeAgent) answer(tok task.Token, taken *ecsv1.Taken) {
	taken.Token = taskwire.FromToken(tok)
	if taken.Proof == nil {
		taken.Proof = proof
	}
	a.in <- &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Taken{Taken: taken}}
	synctest.Wait()
}

func busyNow() *ecsv1.Taken { return &ecsv1.Taken{Problem: "too many others wait", Busy: true} }

func ordersTo(a *fakeAgent) int { return len(got(a, (*ecsv1.ControlMessage).GetTake)) }

func calledOff(a *fakeAgent) int { return len(got(a, (*ecsv1.ControlMessage).GetCallOff)) }

// toldOf gives what the agent that leaves was told last.
func toldOf(a *fakeAgent) *ecsv1.HandedOn {
	told := got(a, (*ecsv1.ControlMessage).GetHandedOn)
	if len(told) == 0 {
		return nil
	}
	return told[len(told)-1]
}

func (b *bench) wantOver(leaver *fakeAgent, moved, lost uint32) {
	b.t.Helper()
	if now := toldOf(leaver); !now.GetOver() || now.GetMoved() != moved || now.GetLost() != lost {
		b.t.Errorf("got %v, want it over with %d moved, %d lost", now, moved, lost)
	}
}

func TestABusyReceiverIsAskedAgainAndNotWithoutPause(t *testing.T) {
	leading(t, func(b *bench) {
		only := b.receiving("only", 0)
		leaver, tokens := b.leaving("leaver", 1)
		began := time.Now()
		for asked := 1; time.Since(began) < time.Minute; asked++ {
			for wait := time.Now(); ordersTo(only) < asked; time.Sleep(100 * time.Millisecond) {
				if time.Since(wait) > mostPause+time.Second {
					t.Fatalf("got no order %d after %s", asked, time.Since(wait))
				}
			}
			only.answer(tokens[0], busyNow())
		}
		if n := ordersTo(only); n < 5 || n > 9 {
			t.Errorf("got %d orders in a minute, want one after each pause", n)
		}
		if now := toldOf(leaver); now.GetOver() || now.GetLost() != 0 {
			t.Errorf("got %v, want it under way", now)
		}
		if n := len(got(leaver, (*ecsv1.ControlMessage).GetHandedOn)); n != 1 {
			t.Errorf("told %d times that nothing has moved, want once", n)
		}
		for n := ordersTo(only); ordersTo(only) == n; {
			time.Sleep(time.Second)
		}
		only.answer(tokens[0], &ecsv1.Taken{})
		if at := b.holder(tokens[0]); at != "only" {
			t.Errorf("got the output at %s, want it moved", at)
		}
		b.wantOver(leaver, 1, 0)
	})
}

func TestOthersAreAskedBeforeOneIsAskedAgain(t *testing.T) {
	leading(t, func(b *bench) {
		agents := map[string]*fakeAgent{}
		for _, id := range []string{"a", "b", "c"} {
			agents[id] = b.receiving(id, 0)
		}
		leaver, tokens := b.leaving("leaver", 1)
		refused := map[string]bool{}
		for range agents {
			for id, a := range agents {
				if ordersTo(a) == 1 && !refused[id] {
					refused[id] = true
					a.answer(tokens[0], busyNow())
					break
				}
			}
		}
		for id, a := range agents {
			if ordersTo(a) != 1 {
				t.Errorf("got %s asked %d times, want each once", id, ordersTo(a))
			}
		}
		time.Sleep(2 * time.Second)
		for id, a := range agents {
			if ordersTo(a) == 2 {
				a.answer(tokens[0], &ecsv1.Taken{})
				if at := b.holder(tokens[0]); at != id {
					t.Errorf("got the output at %s, want %s", at, id)
				}
			}
		}
		b.wantOver(leaver, 1, 0)
	})
}

func TestAReceiverWhoseSessionEndedIsAskedAgain(t *testing.T) {
	leading(t, func(b *bench) {
		only := b.receiving("only", 0)
		leaver, tokens := b.leaving("leaver", 1)
		if ordersTo(only) != 1 {
			t.Fatalf("got %d orders, want 1", ordersTo(only))
		}
		only.cut()
		time.Sleep(3 * time.Second) // out of reach, under its lease
		if now := toldOf(leaver); now.GetOver() {
			t.Fatalf("got %v while it may come back", now)
		}
		only = b.receiving("only", b.epoch("only"))
		time.Sleep(mostPause)
		if ordersTo(only) != 1 {
			t.Fatalf("got %d orders on the new session, want 1", ordersTo(only))
		}
		only.answer(tokens[0], &ecsv1.Taken{})
		b.wantOver(leaver, 1, 0)
	})
}

// What an agent says on its next session answers the order of the one before.
func TestAnAnswerCountsOnAnotherSession(t *testing.T) {
	leading(t, func(b *bench) {
		before := b.receiving("only", 0)
		leaver, tokens := b.leaving("leaver", 1)
		before.cut()
		only := b.receiving("only", b.epoch("only"))
		only.answer(tokens[0], &ecsv1.Taken{})
		b.wantOver(leaver, 1, 0)
		if at := b.holder(tokens[0]); at != "only" || ordersTo(only) != 0 || calledOff(only) != 0 {
			t.Errorf("got the output at %s, %d orders, %d called off; want it to count", at, ordersTo(only), calledOff(only))
		}
	})
}

func TestAReceiverThatStaysAwayEndsTheWait(t *testing.T) {
	leading(t, func(b *bench) {
		before := b.receiving("only", 0)
		leaver, tokens := b.leaving("leaver", 1)
		before.cut()
		time.Sleep(task.DefaultLease + task.LeaseMargin + 2*time.Second)
		b.wantOver(leaver, 0, 1)
		if at := b.holder(tokens[0]); at != "leaver" {
			t.Errorf("got the output at %s, want it where it was", at)
		}
	})
}

func TestALateAnswerCounts(t *testing.T) {
	leading(t, func(b *bench) {
		only := b.receiving("only", 0)
		leaver, tokens := b.leaving("leaver", 1)
		time.Sleep(3 * takeWithin)
		if ordersTo(only) != 1 || toldOf(leaver).GetOver() {
			t.Fatalf("got %d orders, %v; want one under way", ordersTo(only), toldOf(leaver))
		}
		only.answer(tokens[0], &ecsv1.Taken{})
		b.wantOver(leaver, 1, 0)
		if at := b.holder(tokens[0]); at != "only" {
			t.Errorf("got the output at %s, want only", at)
		}
	})
}

func TestALateCopyIsDroppedWhenAnotherWasQuicker(t *testing.T) {
	leading(t, func(b *bench) {
		agents := map[string]*fakeAgent{}
		for _, id := range []string{"a", "b"} {
			agents[id] = b.receiving(id, 0)
		}
		leaver, tokens := b.leaving("leaver", 1)
		slow, quick := agents["a"], agents["b"]
		if ordersTo(slow) == 0 {
			slow, quick = quick, slow
		}
		time.Sleep(takeWithin + 2*time.Second)
		if ordersTo(quick) != 1 {
			t.Fatalf("got %d orders to the other when the first was overdue, want 1", ordersTo(quick))
		}
		quick.answer(tokens[0], &ecsv1.Taken{})
		b.wantOver(leaver, 1, 0)
		if calledOff(slow) != 1 || calledOff(quick) != 0 {
			t.Fatalf("got %d and %d called off, want the slow one's", calledOff(slow), calledOff(quick))
		}
		slow.answer(tokens[0], &ecsv1.Taken{}) // crossed it
		if calledOff(slow) != 2 || agents[b.holder(tokens[0])] != quick {
			t.Errorf("got %d called off, the output at %s", calledOff(slow), b.holder(tokens[0]))
		}
		quick.answer(tokens[0], &ecsv1.Taken{}) // says it twice
		if calledOff(quick) != 0 {
			t.Error("got the copy that the record needs called off")
		}
	})
}

// What was taken for an agent whose session ends before the record says so is known.
func TestWhatAHandoverHadTakenOutlivesIt(t *testing.T) {
	leading(t, func(b *bench) {
		only := b.receiving("only", 0)
		leaver, tokens := b.leaving("leaver", 1)
		b.log.mu.Lock()
		b.log.stuck = true
		b.log.mu.Unlock()
		only.answer(tokens[0], &ecsv1.Taken{})
		if at := b.holder(tokens[0]); at != "leaver" {
			t.Fatalf("got the output at %s before the record was told", at)
		}
		leaver.cut()
		synctest.Wait()
		if at := b.holder(tokens[0]); at != "only" {
			t.Errorf("got the output at %s, want it where it was taken", at)
		}
	})
}

// An agent that was not ordered to take an output can't have it for its own.
func TestOutputIsNobodysWhoWasNotOrderedToTakeIt(t *testing.T) {
	leading(t, func(b *bench) {
		thief := b.receiving("thief", 0)
		leaver, tokens := b.leaving("a1", 2)
		for _, tok := range tokens {
			thief.answer(tok, &ecsv1.Taken{Proof: []byte("a guess")})
		}
		if at := b.holder(tokens[0]); at != "a1" {
			t.Errorf("got the output at %s, want it where it was", at)
		}
		leaver.cut()
		thief.answer(tokens[0], &ecsv1.Taken{Proof: []byte("a guess")})
		if at := b.holder(tokens[0]); at != "a1" || calledOff(thief) != 1 {
			t.Errorf("got the output at %s after the session, %d called off", at, calledOff(thief))
		}
	})
}

// The answer to the order of a leader of before, or of a session that ended, comes
// when nobody hands that output on.
func TestACopyNobodyWaitsForCountsWhereItIsNeeded(t *testing.T) {
	leading(t, func(b *bench) {
		only := b.receiving("only", 0)
		leaver, tokens := b.leaving("leaver", 1)
		leaver.cut()
		only.answer(tokens[0], &ecsv1.Taken{})
		if at := b.holder(tokens[0]); at != "only" || calledOff(only) != 0 {
			t.Errorf("got the output at %s, %d called off; want it to count", at, calledOff(only))
		}
		fit := ""
		b.propose(state.SetNode{Node: "only", Unfit: &fit, Epoch: b.epoch("only")})
		other := b.receiving("other", 0)
		other.answer(tokens[0], &ecsv1.Taken{})
		if at := b.holder(tokens[0]); at != "only" || calledOff(other) != 1 {
			t.Errorf("got the output at %s, %d called off; want the second copy dropped", at, calledOff(other))
		}
		other.answer(task.Token{Task: "unknown", Attempt: 1, Epoch: 1}, &ecsv1.Taken{})
		if calledOff(other) != 2 {
			t.Errorf("got %d called off, want what the record does not know dropped, too", calledOff(other))
		}
	})
}

func TestOutputThatCannotBeTakenIsGivenUp(t *testing.T) {
	leading(t, func(b *bench) {
		only := b.receiving("only", 0)
		leaver, tokens := b.leaving("leaver", 2)
		began, failed := time.Now(), 0
		for answered := 0; !toldOf(leaver).GetOver() && time.Since(began) < 10*time.Minute; time.Sleep(100 * time.Millisecond) {
			for _, m := range got(only, (*ecsv1.ControlMessage).GetTake)[answered:] {
				answered++
				if tok := taskwire.ToToken(m.GetToken()); tok == tokens[0] {
					failed++
					only.answer(tok, &ecsv1.Taken{Problem: "another hash came"})
				} else {
					only.answer(tok, &ecsv1.Taken{Gone: true, Problem: "not here"})
				}
			}
		}
		b.wantOver(leaver, 0, 2)
		if failed != takeTries {
			t.Errorf("got %d tries, want %d", failed, takeTries)
		}
	})
}

func TestAFullReceiverIsAskedAgainForWhatFits(t *testing.T) {
	for _, tc := range []struct {
		f          fullness
		size, free int64
		want       bool
	}{
		{fullness{}, 10, 0, false},
		{fullness{least: 10, free: 5}, 9, 5, false},
		{fullness{least: 10, free: 5}, 10, 5, true},
		{fullness{least: 10, free: 5}, 10, 9, true},
		{fullness{least: 10, free: 5}, 10, 10, false},
		{fullness{least: 10, free: 12}, 10, 12, true}, // what it said was old
	} {
		if got := tc.f.bars(tc.size, tc.free); got != tc.want {
			t.Errorf("%+v: %d bytes with %d free: got %t, want %t", tc.f, tc.size, tc.free, got, tc.want)
		}
	}
}

// Two that leave at once share one receiver whose queue is long.
func TestTwoThatLeaveShareOneReceiver(t *testing.T) {
	leading(t, func(b *bench) {
		only := b.receiving("only", 0)
		first, one := b.leaving("first", 5)
		second, two := b.leaving("second", 5)
		for answered := 0; answered < 10; time.Sleep(10 * time.Second) {
			waiting := got(only, (*ecsv1.ControlMessage).GetTake)
			if open := len(waiting) - answered; open < 1 || open > 2*takesOfOne {
				t.Fatalf("got %d orders open after %d, want at most %d", open, answered, 2*takesOfOne)
			}
			only.answer(taskwire.ToToken(waiting[answered].GetToken()), &ecsv1.Taken{})
			answered++
		}
		b.wantOver(first, 5, 0)
		b.wantOver(second, 5, 0)
		for _, tok := range append(one, two...) {
			if at := b.holder(tok); at != "only" {
				t.Errorf("got the output of %s at %s", tok.Task, at)
			}
		}
		if n := ordersTo(only); n != 10 {
			t.Errorf("got %d orders for 10 outputs, want each ordered once", n)
		}
	})
}
