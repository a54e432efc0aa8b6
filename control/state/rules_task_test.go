package state_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
)

func TestSubmitAcceptsATask(t *testing.T) {
	w := newWorld(t)
	out := w.must(state.Submit{Task: aTask("t1", func(t *task.Task) {
		// What only the record decides is not taken from the proposer.
		t.Seq, t.State, t.StopAs = 99, task.Finished, task.Cancelled
		t.Result, t.Attempts = &task.Result{}, []task.Attempt{{Number: 1}}
		t.FinishedAt = time.Unix(1, 0)
	})})
	got := out.Task
	if got != w.sn().Task("t1") {
		t.Error("the outcome's task is not the record's")
	}
	if got.State != task.Pending || got.StopAs != "" || got.Result != nil || len(got.Attempts) != 0 || !got.FinishedAt.IsZero() {
		t.Errorf("got %+v, want a fresh pending task", got)
	}
	if want := uint64(1) << 12; got.Seq != want || out.Index != 1 || out.Existed {
		t.Errorf("got seq %d, index %d, existed %v, want %d, 1, false", got.Seq, out.Index, out.Existed, want)
	}
	if !got.SubmittedAt.Equal(w.now) {
		t.Errorf("submitted at: got %v, want %v", got.SubmittedAt, w.now)
	}
	if string(got.Spec.Secrets) != "sealed" || got.Bill.Accepted != time.Millisecond {
		t.Errorf("got secrets %q, accepted %v, want those of the request", got.Spec.Secrets, got.Bill.Accepted)
	}
}

func TestSubmitIsIdempotent(t *testing.T) {
	for _, tt := range []struct {
		name    string
		second  *task.Task
		code    task.Code
		want    task.ID
		existed bool
	}{
		{"same id", aTask("t1", keyed("k")), "", "t1", true},
		{"same id, all else different", aTask("t1", body("x"), keyed("q")), "", "t1", true},
		{"same key, same body", aTask("t2", keyed("k"), body("t1")), "", "t1", true},
		{"same key, another body", aTask("t2", keyed("k")), task.CodeKeyConflict, "", false},
		{"same key of another owner", aTask("t2", keyed("k"), owned("bob")), "", "t2", false},
		{"another key", aTask("t2", keyed("l"), body("t1")), "", "t2", false},
		{"no key", aTask("t2", body("t1")), "", "t2", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			first := w.submit("t1", keyed("k"))
			out := w.do(state.Submit{Task: tt.second})
			wantCode(t, out.Err, tt.code)
			if out.Existed != tt.existed {
				t.Errorf("existed: got %v, want %v", out.Existed, tt.existed)
			}
			if tt.want == "" && out.Task != nil || tt.want != "" && out.Task.ID != tt.want {
				t.Errorf("got %v, want task %q", out.Task, tt.want)
			}
			if got := w.task("t1"); got != first {
				t.Errorf("the first task was changed: %+v", got)
			}
		})
	}
}

func TestAKeyLivesAsLongAsItsRecord(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	tok := w.live("t1", "n1", keyed("k"))
	w.finish(tok, task.Exited)
	again := func() state.Outcome { return w.do(state.Submit{Task: aTask("t2", keyed("k"), body("t1"))}) }
	if out := again(); !out.Existed || out.Task.ID != "t1" || out.Task.State != task.Finished {
		t.Errorf("after its end: got %+v, want the finished t1", out)
	}
	if got := w.sn().ByKey("ann", "k"); got == nil || got.ID != "t1" {
		t.Errorf("by key: got %v, want t1", got)
	}
	w.must(state.Forget{Tasks: []task.ID{"t1"}})
	if got := w.sn().ByKey("ann", "k"); got != nil {
		t.Errorf("by key after forgetting: got %v, want none", got.ID)
	}
	if out := again(); out.Existed || out.Task.ID != "t2" {
		t.Errorf("after forgetting: got %+v, want a new t2", out)
	}
}

func TestOneEntryMayRepeatAKey(t *testing.T) {
	w := newWorld(t)
	out := w.all(
		state.Submit{Task: aTask("t1", keyed("k"))},
		state.Submit{Task: aTask("t2", keyed("k"), body("t1"))},
		state.Submit{Task: aTask("t3")},
	)
	if !out[1].Existed || out[1].Task.ID != "t1" {
		t.Errorf("got %+v, want t1", out[1])
	}
	if got, want := out[2].Task.Seq, uint64(1<<12|2); got != want {
		t.Errorf("seq: got %d, want %d", got, want)
	}
}

func TestSubmitRefusesWhatCantBeATask(t *testing.T) {
	w := newWorld(t)
	wantCode(t, w.do(state.Submit{}).Err, task.CodeBadRequest)
	wantCode(t, w.do(state.Submit{Task: aTask("")}).Err, task.CodeBadRequest)
}

func TestTheQueueIsBounded(t *testing.T) {
	t.Run("by count", func(t *testing.T) {
		w := limitedWorld(t, state.Limits{MaxPending: 2})
		w.register("n1")
		w.submit("t1", keyed("k"))
		w.submit("t2")
		wantCode(t, w.do(state.Submit{Task: aTask("t3")}).Err, task.CodeQueueFull)
		if w.sn().Task("t3") != nil {
			t.Error("a refused task is in the record")
		}
		// A repeated request is answered, full or not.
		if out := w.do(state.Submit{Task: aTask("t4", keyed("k"), body("t1"))}); !out.Existed {
			t.Errorf("got %+v, want t1", out)
		}
		w.place("t1", "n1")
		w.submit("t3")
	})
	t.Run("by bytes", func(t *testing.T) {
		big := aTask("t1", func(t *task.Task) { t.Spec.Env = []string{strings.Repeat("x", 64<<10)} })
		w := limitedWorld(t, state.Limits{MaxPendingBytes: state.Size(big) + 1000})
		w.must(state.Submit{Task: big})
		wantCode(t, w.do(state.Submit{Task: aTask("t2")}).Err, task.CodeQueueFull)
		w.must(state.Stop{Task: "t1", Outcome: task.Cancelled})
		w.submit("t2")
	})
	t.Run("a task that comes back is always taken", func(t *testing.T) {
		w := limitedWorld(t, state.Limits{MaxPending: 1})
		w.register("n1")
		tok := w.live("t1", "n1")
		w.submit("t2")
		w.must(state.LoseAttempt{Token: tok})
		if got := w.sn().Counts().Pending; got != 2 {
			t.Errorf("pending: got %d, want 2", got)
		}
	})
}

func TestProgressNamesTheLiveAttempt(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	tok := w.live("t1", "n1")
	for _, bad := range []task.Token{
		{Task: "t1", Attempt: tok.Attempt + 1, Epoch: tok.Epoch},
		{Task: "t1", Attempt: tok.Attempt, Epoch: tok.Epoch - 1},
		{Task: "t9", Attempt: tok.Attempt, Epoch: tok.Epoch},
		{},
	} {
		wantCode(t, w.do(state.Progress{Token: bad, StartedAt: w.now}).Err, task.CodeStale)
	}
	started := w.now.Add(-time.Second)
	w.must(state.Progress{Token: tok, StartedAt: started})
	w.must(state.Progress{Token: tok, StartedAt: w.now}) // repeated: nothing new
	got := w.task("t1")
	if got.State != task.Running || !got.Live().StartedAt.Equal(started) {
		t.Errorf("got %v since %v, want running since %v", got.State, got.Live().StartedAt, started)
	}
	w.finish(tok, task.Exited)
	wantCode(t, w.do(state.Progress{Token: tok}).Err, task.CodeStale)
}

func TestFinishGivesTheOneResult(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	tok := w.live("t1", "n1")
	w.must(state.Progress{Token: tok, StartedAt: w.now})
	result := task.Result{
		Outcome:  task.Exited,
		ExitCode: 3,
		HasExit:  true,
		Stdout:   task.Stream{Head: []byte("hi"), Bytes: 2, Kept: 2, SHA256: [32]byte{1}},
		Node:     "n1",
		Attempt:  77, // the token says which
	}
	submitted := w.task("t1").SubmittedAt
	w.must(state.Finish{Token: tok, Result: result, Bill: task.Bill{Run: 5, Assigned: 6}})
	got := w.task("t1")
	result.Attempt = 1
	if got.State != task.Finished || !reflect.DeepEqual(*got.Result, result) {
		t.Errorf("got %v with %+v, want finished with %+v", got.State, got.Result, result)
	}
	if got.Spec.Secrets != nil || !got.Spec.HasAuth {
		t.Errorf("got secrets %q, has auth %v, want them wiped but mentioned", got.Spec.Secrets, got.Spec.HasAuth)
	}
	if f := got.Spec.Files[0]; got.Spec.Stdin != nil || got.Spec.StdinSize != 5 || f.Content != nil || f.Path != "/a" || f.Size != 7 {
		t.Errorf("got stdin %q and file %+v, want them wiped but mentioned", got.Spec.Stdin, f)
	}
	wantBill := task.Bill{Accepted: time.Millisecond, Run: 5, Assigned: 6, LeaderTotal: w.now.Sub(submitted)}
	if got.Bill != wantBill {
		t.Errorf("bill: got %+v, want %+v", got.Bill, wantBill)
	}
	last := got.Attempts[0]
	if last.Outcome != task.Exited || !last.EndedAt.Equal(w.now) || !got.FinishedAt.Equal(w.now) {
		t.Errorf("got attempt %+v, finished at %v, want both ended at %v", last, got.FinishedAt, w.now)
	}
	if n := w.node("n1"); n.Reserved != (task.Capacity{}) || n.Attempts != 0 {
		t.Errorf("got %+v reserved by %d attempts, want nothing", n.Reserved, n.Attempts)
	}
	// Nothing changes it again.
	out := w.finish(tok, task.TimedOut)
	wantCode(t, out.Err, task.CodeStale)
	if out.Task != got {
		t.Error("a stale result does not answer with the record")
	}
	w.must(state.Stop{Task: "t1", Outcome: task.Cancelled})
	w.must(state.Expire{Tasks: []task.ID{"t1"}})
	wantCode(t, w.do(state.LoseAttempt{Token: tok}).Err, task.CodeStale)
	w.must(state.LoseNode{Node: "n1", Epoch: tok.Epoch, Left: true})
	if w.task("t1") != got {
		t.Errorf("a finished task was changed: got %+v", w.task("t1"))
	}
}

func TestFinishRefusesWhatIsNoOutcome(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	tok := w.live("t1", "n1")
	wantCode(t, w.finish(tok, "").Err, task.CodeBadRequest)
	wantCode(t, w.finish(tok, "succeeded").Err, task.CodeBadRequest)
	if got := w.task("t1").State; got != task.Assigned {
		t.Errorf("got %v, want it still assigned", got)
	}
}

func TestOnlyTheAttemptsNodeReportsIt(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	w.register("n2")
	tok := w.live("t1", "n1")
	for _, c := range []state.Command{state.Progress{Token: tok, Node: "n2"}, state.Finish{Token: tok, Node: "n2", Result: task.Result{Outcome: task.Exited}}} {
		wantCode(t, w.do(c).Err, task.CodeStale)
	}
	w.must(state.Progress{Token: tok, Node: "n1", StartedAt: w.now})
	w.must(state.Finish{Token: tok, Node: "n1", Result: task.Result{Outcome: task.Exited}})
}

// What a task ends as when it was asked to stop and its attempt then ends.
func TestAStoppedTaskEndsAsAsked(t *testing.T) {
	for _, o := range task.Outcomes() {
		for _, stop := range []task.Outcome{task.Cancelled, task.DeadlineExceeded} {
			t.Run(string(stop)+"/"+string(o), func(t *testing.T) {
				w := newWorld(t)
				w.register("n1")
				tok := w.live("t1", "n1")
				w.must(state.Stop{Task: "t1", Outcome: stop})
				w.must(state.Finish{Token: tok, Result: task.Result{Outcome: o, Stdout: task.Stream{Bytes: 7}}})
				want := stop
				switch o {
				case task.Exited, task.OOMKilled, task.TimedOut:
					want = o // the program was faster
				}
				got := w.task("t1")
				if got.State != task.Finished || got.Result.Outcome != want || got.Result.Stdout.Bytes != 7 {
					t.Errorf("got %v, %+v, want finished as %s with its output", got.State, got.Result, want)
				}
				if got.Attempts[0].Outcome != o {
					t.Errorf("attempt: got %s, want %s", got.Attempts[0].Outcome, o)
				}
				if want == stop && got.Result.Reason == "" {
					t.Error("got no reason, want a sentence")
				}
			})
		}
	}
}

func TestStop(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	w.submit("p")
	tok := w.live("r", "n1")

	wantCode(t, w.do(state.Stop{Task: "none", Outcome: task.Cancelled}).Err, task.CodeNotFound)
	wantCode(t, w.do(state.Stop{Task: "p", Outcome: task.Cancelled, Owner: "bob"}).Err, task.CodeNotFound)
	wantCode(t, w.do(state.Stop{Task: "p"}).Err, task.CodeBadRequest)
	wantCode(t, w.do(state.Stop{Task: "p", Outcome: task.Exited}).Err, task.CodeBadRequest)
	if w.task("p").State != task.Pending {
		t.Fatal("a refused stop changed the task")
	}

	got := w.must(state.Stop{Task: "p", Outcome: task.Cancelled, Reason: "why", Owner: "ann"}).Task
	if got.State != task.Finished || got.Result.Outcome != task.Cancelled || got.Result.Reason != "why" || got.Spec.Secrets != nil {
		t.Errorf("pending: got %v with %+v, want finished as cancelled", got.State, got.Result)
	}

	got = w.must(state.Stop{Task: "r", Outcome: task.DeadlineExceeded}).Task
	if got.State != task.Assigned || got.StopAs != task.DeadlineExceeded {
		t.Errorf("live: got %v, to stop as %q, want assigned, to stop as deadline_exceeded", got.State, got.StopAs)
	}
	if again := w.must(state.Stop{Task: "r", Outcome: task.Cancelled}).Task; again.StopAs != task.DeadlineExceeded {
		t.Errorf("second wish: got %q, want the first to stand", again.StopAs)
	}
	w.must(state.Progress{Token: tok, StartedAt: w.now})
	if got := w.task("r"); got.State != task.Running || got.StopAs != task.DeadlineExceeded {
		t.Errorf("got %v, to stop as %q, want running, still to stop", got.State, got.StopAs)
	}
}

func TestExpireEndsOnlyWhatWaits(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	w.submit("p")
	w.live("r", "n1")
	out := w.must(state.Expire{Tasks: []task.ID{"none", "r", "p", "p"}})
	if want := []task.ID{"p"}; !slices.Equal(out.Ended, want) {
		t.Errorf("ended: got %v, want %v", out.Ended, want)
	}
	if got := w.task("p"); got.Result.Outcome != task.QueueExpired || !strings.Contains(got.Result.Reason, "24h0m0s") {
		t.Errorf("got %+v, want queue_expired with its limit", got.Result)
	}
	if got := w.task("r").State; got != task.Assigned {
		t.Errorf("live task: got %v, want it untouched", got)
	}
}

func TestForgetDropsOnlyWhatHasEnded(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	w.submit("p", keyed("kp"))
	w.live("r", "n1", keyed("kr"))
	w.finish(w.live("f", "n1", keyed("kf")), task.Exited)
	out := w.must(state.Forget{Tasks: []task.ID{"none", "p", "r", "f", "f"}})
	if want := []task.ID{"f"}; !slices.Equal(out.Ended, want) {
		t.Errorf("forgot: got %v, want %v", out.Ended, want)
	}
	if w.sn().Task("f") != nil || w.sn().ByKey("ann", "kf") != nil {
		t.Error("the forgotten task is still found")
	}
	if w.sn().ByKey("ann", "kp") == nil || w.sn().ByKey("ann", "kr") == nil {
		t.Error("an unfinished task's key is gone")
	}
	if got := taskIDs(slices.Collect(w.sn().Newest(0))); got != "[r p]" {
		t.Errorf("newest: got %s, want [r p]", got)
	}
}

func TestCommandsCarryTheirTimesThroughTheLog(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	if got := w.node("n1").RegisteredAt; !got.Equal(w.now) {
		t.Errorf("got %v, want the stamp %v", got, w.now)
	}
}

func TestClockStepsNeverMakeABillNegative(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	tok := w.live("t1", "n1")
	w.now = w.now.Add(-time.Hour) // another leader's clock
	w.finish(tok, task.Exited)
	if got := w.task("t1").Bill.LeaderTotal; got != 0 {
		t.Errorf("leader total: got %v, want 0", got)
	}
}
