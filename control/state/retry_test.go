package state_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"ecs/control/state"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

func rerun(n int, codes ...int) func(*task.Task) {
	return func(t *task.Task) {
		t.Spec.ProgramRetries, t.Spec.RetryBackoff, t.Spec.RetryExitCodes = n, 10*time.Second, codes
	}
}

func (w *world) exit(tok task.Token, code int) *task.Task {
	w.t.Helper()
	return w.must(state.Finish{Token: tok, Result: task.Result{Outcome: task.Exited, ExitCode: code, HasExit: true}}).Task
}

// resume passes the time of a backoff and ends it.
func (w *world) resume(id task.ID) {
	w.t.Helper()
	w.now = w.task(id).RetryAt()
	if out := w.must(state.Resume{Tasks: []task.ID{id}}); len(out.Ended) != 1 {
		w.t.Fatalf("resume %s: got %v, want it back in the queue", id, out.Ended)
	}
}

func TestAFailedProgramIsRunAgainAfterItsBackoff(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	got := w.exit(w.live("t1", "n1", rerun(2)), 3)
	first := got.Attempts[0]
	if got.State != task.Pending || !got.BackingOff || first.ExitCode != 3 || !first.HasExit || first.Outcome != task.Exited {
		t.Fatalf("got %+v, want it to back off", got)
	}
	if pause := first.RetryAt.Sub(w.now); pause < 10*time.Second || pause > 15*time.Second {
		t.Errorf("got a pause of %s, want 10 s and up to half more", pause)
	}
	if string(got.Spec.Secrets) != "sealed" {
		t.Error("its secrets are gone")
	}
	n, sn := w.node("n1"), w.sn()
	if n.Attempts != 0 || sn.Counts().Pending != 0 || sn.Counts().BackingOff != 1 {
		t.Errorf("got %+v and %d attempts, want one that backs off and holds nothing", sn.Counts(), n.Attempts)
	}
	for at, due := range sn.Deadlines() {
		if due.ID != "t1" || !at.Equal(first.RetryAt) {
			t.Errorf("due at %s, want %s", at, first.RetryAt)
		}
	}
	place := state.Place{Decisions: []state.Decision{{Task: "t1", Attempt: 2, Node: "n1", Epoch: n.Epoch}}}
	if out := w.must(place); len(out.Placed) != 0 {
		t.Error("it was placed while it backs off")
	}
	if out := w.must(state.Resume{Tasks: []task.ID{"t1", "unknown"}}); len(out.Ended) != 0 {
		t.Error("its backoff ended before its time")
	}
	if out := w.must(state.Expire{Tasks: []task.ID{"t1"}}); len(out.Ended) != 0 {
		t.Error("its queue clock ran while it backs off")
	}
	w.resume("t1")
	if since := state.QueuedSince(w.task("t1")); !since.Equal(w.now) {
		t.Errorf("its queue clock began at %s, want %s, when it came into the queue", since, w.now)
	}
	got = w.exit(w.place("t1", "n1"), 4)
	if pause := got.RetryAt().Sub(w.now); pause < 20*time.Second {
		t.Errorf("got a second pause of %s, want 20 s and more", pause)
	}
	w.resume("t1")
	got = w.exit(w.place("t1", "n1"), 5)
	if got.State != task.Finished || got.Result.ExitCode != 5 || got.Result.Attempt != 3 || len(got.Attempts) != 3 {
		t.Errorf("got %+v, want the end of the third attempt for the task's", got)
	}
}

func TestWhatIsNotRunAgain(t *testing.T) {
	for name, edit := range map[string]func(*task.Task){
		"no budget":           rerun(0),
		"another exit code":   rerun(3, 4, 5),
		"at most once":        func(t *task.Task) { rerun(3)(t); atMostOnce(t) },
		"the total limit":     func(t *task.Task) { rerun(3)(t); t.Spec.Timeouts.Total = 10 * time.Second },
		"infrastructure only": func(t *task.Task) { rerun(0)(t); retrying(3)(t) },
	} {
		w := newWorld(t)
		w.register("n1")
		if got := w.exit(w.live("t1", "n1", edit), 3); got.State != task.Finished || got.Result.ExitCode != 3 {
			t.Errorf("%s: got %+v, want its end", name, got)
		}
	}
	w := newWorld(t)
	w.register("n1")
	tok := w.live("t1", "n1", rerun(3))
	w.must(state.Stop{Task: "t1", Outcome: task.Cancelled})
	if got := w.exit(tok, 3); got.State != task.Finished {
		t.Errorf("cancelled: got %+v, want its end", got)
	}
}

func TestTheTwoBudgetsAreApart(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	both := func(t *task.Task) { rerun(1)(t); retrying(1)(t) }
	w.finish(w.live("t1", "n1", both), task.Interrupted)
	w.exit(w.place("t1", "n1"), 1)
	w.resume("t1")
	got := w.finish(w.place("t1", "n1"), task.Interrupted).Task
	if got.State != task.Finished || got.Result.Outcome != task.Interrupted || len(got.Attempts) != 3 {
		t.Errorf("got %+v, want its end with the second loss", got)
	}
}

func TestCancelledWhileItBacksOff(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	w.exit(w.live("t1", "n1", rerun(3)), 3)
	got := w.must(state.Stop{Task: "t1", Outcome: task.Cancelled}).Task
	if got.State != task.Finished || got.BackingOff || got.Result.Outcome != task.Cancelled || got.Result.Attempt != 1 {
		t.Errorf("got %+v, want it cancelled", got)
	}
	if c := w.sn().Counts(); c.BackingOff != 0 || c.Finished != 1 {
		t.Errorf("got %+v, want one finished", c)
	}
	w.now = w.now.Add(time.Hour)
	if out := w.must(state.Resume{Tasks: []task.ID{"t1"}}); len(out.Ended) != 0 {
		t.Error("it came back")
	}
}

func TestWhatBacksOffIsBounded(t *testing.T) {
	w := limitedWorld(t, state.Limits{MaxPending: 2})
	n := w.register("n1")
	for _, id := range []task.ID{"t1", "t2"} {
		w.exit(w.live(id, "n1", rerun(3)), 3)
	}
	out := w.do(state.Submit{Task: aTask("t3"), Node: "n1", Epoch: n.Epoch})
	wantCode(t, out.Err, task.CodeQueueFull)
}

// The clock of the leader that ended the attempt may have been an hour ahead.
func TestWhatHasWaitedGoesOnWhateverAnotherLeadersClockSaid(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	w.exit(w.live("t1", "n1", rerun(3)), 3)
	w.now = w.now.Add(-time.Hour)
	if out := w.must(state.Resume{Tasks: []task.ID{"t1"}}); len(out.Ended) != 0 {
		t.Error("its time came by a clock that is an hour behind")
	}
	for _, n := range []int{0, 2} {
		if out := w.must(state.Resume{Waited: []state.Waited{{Task: "t1", Attempt: n}, {Task: "unknown", Attempt: n}}}); len(out.Ended) != 0 {
			t.Errorf("it came back after attempt %d, which was not its last", n)
		}
	}
	waited := state.Resume{Waited: []state.Waited{{Task: "t1", Attempt: 1}}}
	if out := w.must(waited); len(out.Ended) != 1 {
		t.Errorf("got %v, want it back in the queue", out.Ended)
	}
	got := w.task("t1")
	if got.BackingOff || got.State != task.Pending || got.Attempts[0].RetryAt.After(w.now) {
		t.Errorf("got %+v, want it in the queue since now", got)
	}
	if out := w.must(waited); len(out.Ended) != 0 {
		t.Error("it came back twice")
	}
	w.place("t1", "n1")
}

// An engine that keeps failing does not use up a task's tries within seconds.
func TestWhatIsLostAgainBacksOff(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	if got := w.finish(w.live("t1", "n1", retrying(3)), task.Interrupted).Task; got.BackingOff || !got.Attempts[0].RetryAt.IsZero() {
		t.Errorf("got %+v after the first loss, want it in the queue at once", got)
	}
	got := w.finish(w.place("t1", "n1"), task.Interrupted).Task
	if pause := got.RetryAt().Sub(w.now); !got.BackingOff || pause < time.Second || pause > 1500*time.Millisecond {
		t.Errorf("got a pause of %s after the second, want 1 s and up to half more", pause)
	}
	w.resume("t1")
	got = w.finish(w.place("t1", "n1"), task.Interrupted).Task
	if pause := got.RetryAt().Sub(w.now); !got.BackingOff || pause < 2*time.Second {
		t.Errorf("got a pause of %s after the third, want 2 s and more", pause)
	}
	soon := func(t *task.Task) { retrying(3)(t); t.Spec.Timeouts.Total = 5 * time.Second }
	w.finish(w.live("t2", "n1", soon), task.Interrupted)
	if got := w.finish(w.place("t2", "n1"), task.Interrupted).Task; got.BackingOff || got.State != task.Pending {
		t.Errorf("got %+v, want no pause beyond its total limit", got)
	}
}

// An entry from before there were pauses makes the record that it made then.
func TestOldEntriesPauseNoLoss(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	w.finish(w.live("t1", "n1", retrying(3)), task.Interrupted)
	tok := w.place("t1", "n1")
	w.byRules(0, state.LoseAttempt{Token: tok})
	if got := w.task("t1"); got.BackingOff || got.State != task.Pending || len(got.Attempts) != 2 {
		t.Errorf("got %+v, want it in the queue at once", got)
	}
}

// byRules applies a command as a version that knew those rules proposed it.
func (w *world) byRules(rules uint32, c state.Command) state.Outcome {
	w.t.Helper()
	old := state.ToWire(c, w.now)
	old.Rules = rules
	b, err := proto.Marshal(&ecsv1.Entry{Commands: []*ecsv1.Command{old}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.index++
	w.log = append(w.log, b)
	out, err := w.store.Apply(w.index, b)
	if err != nil {
		w.t.Fatal(err)
	}
	return out[0]
}

// Attempts that were lost are nobody's fault: they take nothing of a key's share.
func TestLostAttemptsTakeNothingOfAKeysShare(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	lost := func(id task.ID) {
		w.finish(w.live(id, "n1", retrying(3)), task.Interrupted)
		if got := w.finish(w.place(id, "n1"), task.Interrupted).Task; !got.BackingOff {
			t.Fatalf("got %+v, want it to back off", got)
		}
	}
	lost("l1")
	lost("l2")
	quota := func(id task.ID) state.Submit { return state.Submit{Task: aTask(id), Quota: 2} }
	wantCode(t, w.byRules(1, quota("old")).Err, task.CodeQuota)
	wantCode(t, w.do(quota("new")).Err, "")
	w.exit(w.place("new", "n1"), 0)
	w.exit(w.live("f1", "n1", rerun(2)), 3)
	wantCode(t, w.do(quota("newer")).Err, "")
	w.exit(w.place("newer", "n1"), 0)
	w.exit(w.live("f2", "n1", rerun(2)), 3)
	wantCode(t, w.do(quota("newest")).Err, task.CodeQuota)
	if got, want := w.sn().WaitingOf("ann"), (state.Waiting{BackingOff: 4, Failed: 2}); got.BackingOff != want.BackingOff || got.Failed != want.Failed {
		t.Errorf("got %+v, want %+v", got, want)
	}
	w.resume("l1")
	w.resume("f1")
	if got := w.sn().WaitingOf("ann"); got.BackingOff != 2 || got.Failed != 1 || got.Tasks != 2 {
		t.Errorf("got %+v after two went on, want one of each kind to back off", got)
	}
	if got := w.copy(state.Limits{}).Snapshot().Hash(); got != w.sn().Hash() {
		t.Error("a replay gives another record")
	}
}

// A leader may end a backoff long after its time; until then no queue clock runs.
func TestTheQueueClockBeginsInTheQueue(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	for rules, late := range []bool{false, false, true} {
		id := task.ID("t" + string(rune('0'+rules)))
		at := w.exit(w.live(id, "n1", rerun(2)), 3).RetryAt()
		w.now = at.Add(time.Hour)
		w.byRules(uint32(rules), state.Resume{Tasks: []task.ID{id}})
		want := at
		if late {
			want = w.now
		}
		if got := state.QueuedSince(w.task(id)); !got.Equal(want) {
			t.Errorf("by rules %d: got its queue clock begin at %s, want %s", rules, got, want)
		}
	}
}

func TestRulesOfALaterVersionAreRefused(t *testing.T) {
	w := newWorld(t)
	later := state.ToWire(state.Found{Cluster: "one"}, w.now)
	later.Rules++
	b, err := proto.Marshal(&ecsv1.Entry{Commands: []*ecsv1.Command{later}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Apply(1, b); err == nil || !strings.Contains(err.Error(), "run the version") || w.sn().Cluster() != "" {
		t.Errorf("got %v and cluster %q, want it refused with the remedy", err, w.sn().Cluster())
	}
}
