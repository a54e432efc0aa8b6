package state_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
)

func TestReadersKeepTheSnapshotTheyTook(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	tok := w.live("t1", "n1", keyed("k"))
	before := w.sn()
	hash := before.Hash()
	w.finish(tok, task.Exited)
	w.must(state.Forget{Tasks: []task.ID{"t1"}})
	w.submit("t2")
	w.register("n2")
	if before.Hash() != hash || before.Task("t1").State != task.Assigned || before.ByKey("ann", "k") == nil ||
		before.Task("t2") != nil || before.Node("n2") != nil {
		t.Error("a snapshot changed after it was taken")
	}
	if got := taskIDs(slices.Collect(before.Newest(0))); got != "[t1]" {
		t.Errorf("newest: got %s, want [t1]", got)
	}
	if got, want := before.Index(), w.sn().Index()-4; got != want {
		t.Errorf("index: got %d, want %d", got, want)
	}
}

func TestListsAreInOrder(t *testing.T) {
	w := newWorld(t)
	w.register("b")
	w.register("ab")
	w.register("a")
	// IDs whose order is not that of acceptance.
	for _, id := range []task.ID{"t5", "t1", "t4", "t2", "t3"} {
		owner := "ann"
		if id == "t4" || id == "t1" {
			owner = "bob"
		}
		w.submit(id, owned(owner), lasting(time.Hour))
	}
	sn := w.sn()
	check := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
	check("pending", taskIDs(slices.Collect(sn.Pending())), "[t5 t1 t4 t2 t3]")
	check("newest", taskIDs(slices.Collect(sn.Newest(0))), "[t3 t2 t4 t1 t5]")
	check("before t4", taskIDs(slices.Collect(sn.Newest(sn.Task("t4").Seq))), "[t1 t5]")
	check("before all", taskIDs(slices.Collect(sn.Newest(1))), "[]")
	check("ann's", taskIDs(slices.Collect(sn.NewestOf("ann", 0))), "[t3 t2 t5]")
	check("ann's before t2", taskIDs(slices.Collect(sn.NewestOf("ann", sn.Task("t2").Seq))), "[t5]")
	check("bob's", taskIDs(slices.Collect(sn.NewestOf("bob", 0))), "[t4 t1]")
	check("nobody's", taskIDs(slices.Collect(sn.NewestOf("al", 0))), "[]")

	w.place("t5", "ab")
	w.place("t1", "ab")
	w.place("t4", "a")
	check("on ab", taskIDs(slices.Collect(w.sn().On("ab"))), "[t1 t5]")
	check("on a, which begins another's name", taskIDs(slices.Collect(w.sn().On("a"))), "[t4]")
	check("on an unknown node", taskIDs(slices.Collect(w.sn().On("abc"))), "[]")

	w.finish(w.task("t4").Live().Token("t4"), task.Exited)
	w.finish(w.task("t1").Live().Token("t1"), task.Exited)
	w.must(state.Stop{Task: "t3", Outcome: task.Cancelled})
	check("ended", taskIDs(slices.Collect(w.sn().Ended())), "[t4 t1 t3]")

	var names []task.NodeID
	for n := range w.sn().Nodes() {
		names = append(names, n.ID)
	}
	check("nodes", fmt.Sprint(names), "[a ab b]")
	for range w.sn().Newest(0) {
		break // a reader may stop early
	}
}

func TestDeadlinesComeInOrder(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	limits := func(queue, total time.Duration) func(*task.Task) {
		return func(t *task.Task) { t.Spec.Timeouts.Queue, t.Spec.Timeouts.Total = queue, total }
	}
	list := func() string {
		var s []string
		for at, t := range w.sn().Deadlines() {
			s = append(s, fmt.Sprintf("%s+%v", t.ID, at.Sub(t.SubmittedAt)))
		}
		return fmt.Sprint(s)
	}
	check := func(when, want string) {
		t.Helper()
		if got := list(); got != want {
			t.Errorf("%s: got %s, want %s", when, got, want)
		}
	}
	w.submit("queue", limits(time.Minute, time.Hour))
	w.submit("total", limits(time.Hour, 30*time.Second))
	w.submit("never", limits(0, 0))
	check("waiting", "[total+30s queue+1m0s]")

	tok := w.place("queue", "n1")
	w.place("total", "n1")
	check("live", "[total+30s queue+1h0m0s]")

	w.must(state.Stop{Task: "total", Outcome: task.DeadlineExceeded})
	check("asked to stop", "[queue+1h0m0s]")

	w.must(state.LoseAttempt{Token: tok})
	if got, want := state.QueuedSince(w.task("queue")), w.now; !got.Equal(want) {
		t.Errorf("queued since: got %v, want %v", got, want)
	}
	check("back in the queue", "[queue+1m6s]") // its queue clock began anew

	w.must(state.Stop{Task: "queue", Outcome: task.Cancelled})
	if got := list(); got != "[queue+24h0m7s]" { // 7 s old, retained for a day
		t.Errorf("finished: got %s", got)
	}
	w.must(state.Forget{Tasks: []task.ID{"queue"}})
	check("forgotten", "[]")
}

func TestCountsFollowTheRecord(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	check := func(pending, live, finished int) {
		t.Helper()
		got := w.sn().Counts()
		if got.Pending != pending || got.Live != live || got.Finished != finished ||
			(got.PendingBytes > 0) != (pending > 0) || (got.FinishedBytes > 0) != (finished > 0) {
			t.Errorf("got %+v, want %d pending, %d live, %d finished", got, pending, live, finished)
		}
	}
	check(0, 0, 0)
	w.submit("t1")
	w.submit("t2")
	check(2, 0, 0)
	tok := w.place("t1", "n1")
	check(1, 1, 0)
	w.must(state.LoseAttempt{Token: tok})
	check(2, 0, 0)
	w.finish(w.place("t1", "n1"), task.Exited)
	check(1, 0, 1)
	w.must(state.Stop{Task: "t2", Outcome: task.Cancelled})
	check(0, 0, 2)
	w.must(state.Forget{Tasks: []task.ID{"t1", "t2"}})
	check(0, 0, 0)
	if got := w.sn().Counts(); got != (state.Counts{}) {
		t.Errorf("got %+v, want nothing left", got)
	}
}

func TestWatchesCloseOnWhatTheyWatch(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	w.register("n2")
	w.submit("t1")
	w.submit("t2")
	w.live("r1", "n1")
	w.live("r2", "n2")

	_, t1 := w.sn().WatchTask("t1")
	_, t2 := w.sn().WatchTask("t2")
	_, unknown := w.sn().WatchTask("t3")
	pending, nodes, any := w.sn().WatchPending(), w.sn().WatchNodes(), w.sn().Watch()
	on1, on2 := w.sn().WatchOn("n1"), w.sn().WatchOn("n2")
	check := func(what string, ch <-chan struct{}, want bool) {
		t.Helper()
		if got := closed(ch); got != want {
			t.Errorf("%s: got closed %v, want %v", what, got, want)
		}
	}

	w.must(state.Stop{Task: "r1", Outcome: task.Cancelled})
	check("node of a task that is to stop", on1, true)
	check("another node", on2, false)
	check("nodes, nothing reserved or freed", nodes, false)
	check("pending", pending, false)
	check("any task", any, true)
	check("another task", t1, false)

	w.place("t1", "n2")
	check("placed task", t1, true)
	check("task beside it", t2, false)
	check("pending", pending, true)
	check("nodes, something reserved", nodes, true)
	check("node it was placed on", on2, true)

	w.submit("t3")
	check("task that was unknown", unknown, true)

	pending, empty := w.sn().WatchPending(), w.sn().WatchOn("n9")
	w.register("n9")
	check("pending, after a node came", pending, false)
	check("node that was unknown", empty, true)
	empty = w.sn().WatchOn("n9")
	w.submit("t4")
	w.place("t4", "n1")
	check("node that has nothing, when its neighbour got a task", empty, false)
	w.place("t3", "n9")
	check("node that had nothing", empty, true)
	last := w.sn().WatchOn("n9")
	w.finish(w.task("t3").Live().Token("t3"), task.Exited)
	check("node that has nothing any more", last, true)
}

// One entry can touch more of the trees than a transaction keeps account of;
// then they are compared as a whole.
func TestWatchesCloseAfterAnEntryThatTouchesVeryMuch(t *testing.T) {
	w := newWorld(t)
	n := aNode("n1")
	n.Capacity = task.Capacity{MilliCPU: 1 << 40, Memory: 1 << 60}
	w.must(state.Register{Node: n})
	const many = 6000
	var submits []state.Command
	var decisions []state.Decision
	for i := range many {
		id := task.ID(fmt.Sprintf("t%05d", i))
		submits = append(submits, state.Submit{Task: aTask(id)})
		decisions = append(decisions, state.Decision{Task: id, Attempt: 1, Node: "n1", Epoch: w.node("n1").Epoch})
	}
	w.all(submits[:many/2]...)
	w.all(submits[many/2:]...)
	w.submit("u")
	var placed []<-chan struct{}
	for i := range many {
		_, ch := w.sn().WatchTask(task.ID(fmt.Sprintf("t%05d", i)))
		placed = append(placed, ch)
	}
	_, beside := w.sn().WatchTask("u")
	if out := w.must(state.Place{Decisions: decisions}); len(out.Placed) != many {
		t.Fatalf("placed: got %d, want %d", len(out.Placed), many)
	}
	for i, ch := range placed {
		if !closed(ch) {
			t.Fatalf("watch of task %d: got open, want closed", i)
		}
	}
	if closed(beside) {
		t.Error("watch of a task that did not change: got closed, want open")
	}
	lost := w.must(state.LoseNode{Node: "n1", Epoch: w.node("n1").Epoch, Left: true}).Lost
	if len(lost) != many {
		t.Errorf("lost: got %d, want %d", len(lost), many)
	}
}

// A reader that is woken first of very many finds the change already there.
func TestTheChangeIsThereBeforeAnyoneIsWoken(t *testing.T) {
	w := newWorld(t)
	const tasks = 1000
	for round := range 5 {
		var submits, stops []state.Command
		for i := range tasks {
			id := task.ID(fmt.Sprintf("t%d-%d", round, i))
			submits = append(submits, state.Submit{Task: aTask(id)})
			stops = append(stops, state.Stop{Task: id, Outcome: task.Cancelled})
		}
		w.all(submits...)
		old, changed := w.sn().WatchTask(submits[tasks/2].(state.Submit).Task.ID)
		pending := w.sn().WatchPending()
		found := make(chan *task.Task)
		go func() {
			giveUp := time.Now().Add(30 * time.Second)
			for !closed(changed) && !closed(pending) && time.Now().Before(giveUp) {
				runtime.Gosched() // sees the first closing, not the last
			}
			found <- w.store.Snapshot().Task(old.ID)
		}()
		w.all(stops...)
		if now := <-found; now == old {
			t.Fatalf("round %d: a reader was woken before the change could be seen", round)
		}
	}
}

// A woken reader finds in the store what woke it.
func TestAWokenReaderFindsTheChange(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	const tasks = 200
	for i := range tasks {
		w.submit(task.ID(fmt.Sprint("t", i)))
	}
	var readers sync.WaitGroup
	for i := range tasks {
		id := task.ID(fmt.Sprint("t", i))
		readers.Go(func() {
			for {
				tk, changed := w.store.Snapshot().WatchTask(id)
				if tk.State == task.Finished {
					return
				}
				select {
				case <-changed:
				case <-time.After(30 * time.Second):
					t.Errorf("task %s: no change was seen, want it finished", id)
					return
				}
				if now := w.store.Snapshot().Task(id); now == tk {
					t.Errorf("task %s: woken, but nothing has changed", id)
					return
				}
			}
		})
	}
	readers.Go(func() {
		for w.store.Snapshot().Counts().Finished < tasks {
			sn := w.store.Snapshot()
			seen := 0
			for range sn.Newest(0) {
				seen++
			}
			if seen != tasks {
				t.Errorf("a reader saw %d tasks, want %d", seen, tasks)
				return
			}
		}
	})
	for i := range tasks {
		id := task.ID(fmt.Sprint("t", i))
		tok := w.place(id, "n1")
		w.must(state.Progress{Token: tok, StartedAt: w.now})
		w.finish(tok, task.Exited)
	}
	readers.Wait()
}
