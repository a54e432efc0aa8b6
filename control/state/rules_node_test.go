package state_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
)

func TestRegisterGivesAGrowingEpoch(t *testing.T) {
	w := newWorld(t)
	out := w.all(state.Register{Node: aNode("n1")}, state.Register{Node: aNode("n2")})
	if got, want := out[0].Node.Epoch, uint64(1<<12); got != want {
		t.Errorf("first: got epoch %d, want %d", got, want)
	}
	if got, want := out[1].Node.Epoch, uint64(1<<12|1); got != want {
		t.Errorf("second: got epoch %d, want %d", got, want)
	}
	again := w.register("n1")
	if again.Epoch <= out[1].Node.Epoch || again.Status != task.Ready || !again.RegisteredAt.Equal(w.now) {
		t.Errorf("got %+v, want a later epoch, ready", again)
	}
	want := aNode("n1")
	want.Epoch, want.Status, want.RegisteredAt = again.Epoch, task.Ready, w.now
	if !reflect.DeepEqual(*again, want) {
		t.Errorf("got %+v, want %+v", *again, want)
	}
}

func TestRegisterRefusesUnusableIDs(t *testing.T) {
	w := newWorld(t)
	for _, id := range []task.NodeID{"", "a\x00b"} {
		wantCode(t, w.do(state.Register{Node: task.Node{ID: id}}).Err, task.CodeBadRequest)
	}
}

func TestRegisterKeepsWhatTheAgentStillHolds(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	w.register("n2")
	kept, gone, once := w.live("kept", "n1"), w.live("gone", "n1"), w.live("once", "n1", atMostOnce)
	other := w.live("other", "n2")
	done := w.live("done", "n1")
	w.finish(done, task.Exited)
	w.must(state.Progress{Token: kept, StartedAt: w.now})
	old := w.node("n1").Epoch
	wrong := task.Token{Task: "gone", Attempt: 1, Epoch: gone.Epoch - 1}

	out := w.must(state.Register{Node: aNode("n1"), Running: []task.Token{kept, other, done, wrong}})

	if want := []task.Token{other, done, wrong}; !slices.Equal(out.Forget, want) {
		t.Errorf("forget: got %v, want %v", out.Forget, want)
	}
	if want := []task.Token{gone, once}; !slices.Equal(out.Lost, want) {
		t.Errorf("lost: got %v, want %v", out.Lost, want)
	}
	if got := w.task("kept"); got.State != task.Running || got.Live().Epoch != old {
		t.Errorf("kept: got %v in epoch %d, want running in its own epoch %d", got.State, got.Live().Epoch, old)
	}
	if got := w.task("gone"); got.State != task.Pending || got.Attempts[0].Outcome != task.NodeLost ||
		got.Attempts[0].Reason != "the node came back without it" {
		t.Errorf("gone: got %+v, want pending with its attempt lost", got)
	}
	if got := w.task("once"); got.State != task.Finished || got.Result.Outcome != task.NodeLost {
		t.Errorf("at most once: got %+v, want it ended", got)
	}
	if got := w.task("other"); got.State != task.Assigned {
		t.Errorf("other node's: got %v, want assigned", got.State)
	}
	if n := out.Node; n.Attempts != 1 || n.Reserved.MilliCPU != taskCPU {
		t.Errorf("got %d attempts with %+v, want one", n.Attempts, n.Reserved)
	}
	w.must(state.Finish{Token: kept, Result: task.Result{Outcome: task.Exited}})
}

func TestTheOperatorsDrainOutlivesRegistrations(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	if got := w.must(state.SetNode{Node: "n1", Drain: new(true)}).Node; !got.Drain || got.Status != task.Draining || got.Takes() {
		t.Errorf("drain: got %+v, want draining", got)
	}
	if got := w.register("n1"); !got.Drain || got.Status != task.Draining {
		t.Errorf("registered again: got %+v, want still draining", got)
	}
	if got := w.must(state.SetNode{Node: "n1", Drain: new(false)}).Node; got.Drain || got.Status != task.Ready || !got.Takes() {
		t.Errorf("undrain: got %+v, want ready", got)
	}
	w.must(state.LoseNode{Node: "n1", Epoch: w.node("n1").Epoch})
	if got := w.must(state.SetNode{Node: "n1", Drain: new(true)}).Node; !got.Drain || got.Status != task.Lost {
		t.Errorf("drain a lost node: got %+v, want it lost and the wish kept", got)
	}
}

func TestUnfitBelongsToAnEpoch(t *testing.T) {
	w := newWorld(t)
	n := w.register("n1")
	wantCode(t, w.do(state.SetNode{Node: "n9", Drain: new(true)}).Err, task.CodeNotFound)
	wantCode(t, w.do(state.SetNode{Node: "n1", Unfit: new("x"), Epoch: n.Epoch - 1}).Err, task.CodeStale)
	wantCode(t, w.do(state.SetNode{Node: "n1", Unfit: new("x"), Drain: new(true)}).Err, task.CodeStale)
	if w.node("n1") != n {
		t.Error("a stale report changed the node")
	}
	if got := w.must(state.SetNode{Node: "n1", Unfit: new("disk full"), Epoch: n.Epoch}).Node; got.Unfit != "disk full" || got.Takes() {
		t.Errorf("got %+v, want unfit", got)
	}
	if got := w.must(state.SetNode{Node: "n1", Unfit: new(""), Epoch: n.Epoch}).Node; !got.Takes() {
		t.Errorf("got %+v, want fit again", got)
	}
}

func TestLoseNodeEndsWhatItsLeaseCovered(t *testing.T) {
	w := newWorld(t)
	n := w.register("n1")
	short := w.live("short", "n1")
	long := w.live("long", "n1", lasting(5*time.Minute))

	for _, c := range []state.LoseNode{{Node: "n1", Epoch: n.Epoch - 1}, {Node: "n1", Epoch: n.Epoch + 1}, {Node: "n9"}} {
		wantCode(t, w.do(c).Err, task.CodeStale)
	}
	out := w.must(state.LoseNode{Node: "n1", Epoch: n.Epoch, Lease: 10 * time.Second})
	if want := []task.Token{short}; !slices.Equal(out.Lost, want) {
		t.Errorf("lost: got %v, want %v", out.Lost, want)
	}
	if out.Node.Status != task.Lost || out.Node.Takes() || out.Node.Attempts != 1 {
		t.Errorf("got %+v, want it lost with one attempt", out.Node)
	}
	if got := w.task("long"); got.State != task.Assigned {
		t.Errorf("long lease: got %v, want it live", got.State)
	}

	w.must(state.LoseAttempt{Token: long, Reason: "its lease ended"})
	got := w.task("long")
	if got.State != task.Pending || got.Attempts[0].Outcome != task.NodeLost || got.Attempts[0].Reason != "its lease ended" {
		t.Errorf("got %+v, want pending again", got)
	}
	wantCode(t, w.do(state.LoseAttempt{Token: long}).Err, task.CodeStale)
	if n := w.node("n1"); n.Attempts != 0 || n.Reserved != (task.Capacity{}) {
		t.Errorf("got %d attempts, %+v reserved, want none", n.Attempts, n.Reserved)
	}
}

func TestALostNodeMayComeBackWithItsLongLeases(t *testing.T) {
	w := newWorld(t)
	n := w.register("n1")
	long := w.live("long", "n1", lasting(5*time.Minute))
	w.must(state.LoseNode{Node: "n1", Epoch: n.Epoch, Lease: 10 * time.Second})
	back := w.register("n1", long)
	if back.Status != task.Ready || back.Attempts != 1 || w.task("long").State != task.Assigned {
		t.Errorf("got %+v, want it ready with its attempt", back)
	}
	// Its older attempts go with the new epoch.
	w.must(state.LoseNode{Node: "n1", Epoch: back.Epoch, Lease: 5 * time.Minute})
	if got := w.task("long").State; got != task.Pending {
		t.Errorf("got %v, want pending", got)
	}
}

func TestANodeThatLeavesEndsEverything(t *testing.T) {
	w := newWorld(t)
	n := w.register("n1")
	w.live("long", "n1", lasting(10*time.Minute))
	w.live("once", "n1", atMostOnce)
	out := w.must(state.LoseNode{Node: "n1", Epoch: n.Epoch, Left: true})
	if out.Node.Status != task.Left || len(out.Lost) != 2 || out.Node.Attempts != 0 {
		t.Errorf("got %+v and %v, want it left and both lost", out.Node, out.Lost)
	}
	if got := w.task("long").State; got != task.Pending {
		t.Errorf("long: got %v, want pending", got)
	}
	if got := w.task("once").Result; got == nil || got.Outcome != task.NodeLost || !strings.Contains(got.Reason, "left") {
		t.Errorf("once: got %+v, want node_lost because it left", got)
	}
	// Losing it later changes nothing: it had left in good order.
	if out := w.must(state.LoseNode{Node: "n1", Epoch: n.Epoch}); out.Node.Status != task.Left {
		t.Errorf("got %s, want left", out.Node.Status)
	}
}

// What becomes of a task whose attempt is lost.
func TestALostAttemptIsRepeatedWithinTheBudget(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*task.Task)
		runs int // attempts until it ends
		want task.Outcome
	}{
		{"no retries", retrying(0), 1, task.NodeLost},
		{"one", retrying(1), 2, task.NodeLost},
		{"three", retrying(3), 4, task.NodeLost},
		{"at most once", func(t *task.Task) { t.Spec.Delivery = task.AtMostOnce; t.Spec.InfrastructureRetries = 3 }, 1, task.NodeLost},
	} {
		for _, way := range []string{"node", "attempt", "report"} {
			t.Run(tt.name+"/"+way, func(t *testing.T) {
				w := newWorld(t)
				w.submit("older")
				seq := w.submit("t1", tt.edit).Seq
				w.submit("younger")
				want := tt.want
				for run := 1; run <= tt.runs; run++ {
					w.register("n1")
					tok := w.place("t1", "n1")
					w.must(state.Progress{Token: tok, StartedAt: w.now})
					switch way {
					case "node":
						w.must(state.LoseNode{Node: "n1", Epoch: tok.Epoch, Lease: time.Hour})
					case "attempt":
						w.must(state.LoseAttempt{Token: tok, Reason: "gone"})
					case "report":
						want = task.Interrupted
						w.must(state.Finish{Token: tok, Bill: task.Bill{Run: 7}, Result: task.Result{
							Outcome: task.Interrupted, Reason: "removed from outside", Stdout: task.Stream{Bytes: 9}}})
					}
					got := w.task("t1")
					if run < tt.runs {
						if got.State != task.Pending || got.Result != nil || got.Seq != seq || got.Bill.Run != 0 {
							t.Fatalf("after attempt %d: got %+v, want pending again", run, got)
						}
						if got.BackingOff != (run > 1) {
							t.Errorf("after attempt %d: backing off is %v, want a pause from the second loss on", run, got.BackingOff)
						}
						if got.BackingOff {
							w.resume("t1")
						}
						if queue := taskIDs(slices.Collect(w.sn().Pending())); queue != "[older t1 younger]" {
							t.Errorf("queue: got %s, want t1 in its old place", queue)
						}
						if got.Spec.Secrets == nil {
							t.Error("the secrets are gone before the end")
						}
					}
				}
				got := w.task("t1")
				if got.State != task.Finished || got.Result.Outcome != want || got.Result.Attempt != tt.runs || len(got.Attempts) != tt.runs {
					t.Fatalf("got %v, %+v after %d attempts, want %s after %d", got.State, got.Result, len(got.Attempts), want, tt.runs)
				}
				if way == "report" && (got.Result.Stdout.Bytes != 9 || got.Bill.Run != 7) {
					t.Errorf("got %+v and %+v, want the last attempt's output and bill", got.Result, got.Bill)
				}
				if got.Result.Reason == "" || got.Spec.Secrets != nil {
					t.Errorf("got reason %q, secrets %q, want a sentence and none", got.Result.Reason, got.Spec.Secrets)
				}
			})
		}
	}
}

func TestAStoppedTaskIsNotRepeated(t *testing.T) {
	w := newWorld(t)
	n := w.register("n1")
	w.live("t1", "n1", func(t *task.Task) { t.Spec.Timeouts.Total = 3 * time.Second })
	w.must(state.Stop{Task: "t1", Outcome: task.DeadlineExceeded})
	w.must(state.LoseNode{Node: "n1", Epoch: n.Epoch, Lease: time.Hour})
	got := w.task("t1")
	if got.State != task.Finished || got.Result.Outcome != task.DeadlineExceeded || !strings.Contains(got.Result.Reason, "3s") {
		t.Errorf("got %v with %+v, want finished over its limit of 3s", got.State, got.Result)
	}
}

// A record that readers hold never changes under them.
func TestAttemptsAreNotShared(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	w.submit("t1", retrying(9))
	var held []*task.Task
	var said []string
	keep := func() {
		held = append(held, w.task("t1"))
		said = append(said, fmt.Sprintf("%+v", *w.task("t1")))
	}
	for range 6 {
		tok := w.place("t1", "n1")
		keep()
		w.must(state.Progress{Token: tok, StartedAt: w.now})
		keep()
		w.must(state.LoseAttempt{Token: tok})
		keep()
		if w.task("t1").BackingOff {
			w.resume("t1")
			keep()
		}
	}
	for i := range held {
		if got := fmt.Sprintf("%+v", *held[i]); got != said[i] {
			t.Errorf("record %d changed: got %s, want %s", i, got, said[i])
		}
	}
}
