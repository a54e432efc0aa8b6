package state_test

import (
	"slices"
	"testing"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
)

func TestPlaceChecksEveryDecisionAgain(t *testing.T) {
	good := func(w *world) state.Decision {
		return state.Decision{Task: "t1", Attempt: 1, Node: "n1", Epoch: w.node("n1").Epoch, Queued: time.Second}
	}
	for _, tt := range []struct {
		name string
		edit func(*world, *state.Decision)
		want bool
	}{
		{"as decided", func(*world, *state.Decision) {}, true},
		{"unknown task", func(_ *world, d *state.Decision) { d.Task = "t9" }, false},
		{"unknown node", func(_ *world, d *state.Decision) { d.Node = "n9" }, false},
		{"older epoch", func(_ *world, d *state.Decision) { d.Epoch-- }, false},
		{"later attempt", func(_ *world, d *state.Decision) { d.Attempt = 2 }, false},
		{"no attempt", func(_ *world, d *state.Decision) { d.Attempt = 0 }, false},
		{"node drains", func(w *world, _ *state.Decision) { w.must(state.SetNode{Node: "n1", Drain: new(true)}) }, false},
		{"node unfit", func(w *world, d *state.Decision) {
			w.must(state.SetNode{Node: "n1", Unfit: new("disk full"), Epoch: d.Epoch})
		}, false},
		{"node lost", func(w *world, d *state.Decision) { w.must(state.LoseNode{Node: "n1", Epoch: d.Epoch}) }, false},
		{"node came back", func(w *world, _ *state.Decision) { w.register("n1") }, false},
		{"task cancelled", func(w *world, _ *state.Decision) { w.must(state.Stop{Task: "t1", Outcome: task.Cancelled}) }, false},
		{"task placed", func(w *world, _ *state.Decision) { w.place("t1", "n2") }, false},
		{"no CPU left", func(w *world, _ *state.Decision) { w.live("big", "n1", cpu(3*taskCPU+1)) }, false},
		{"just enough CPU left", func(w *world, _ *state.Decision) { w.live("big", "n1", cpu(3*taskCPU)) }, true},
		{"no memory left", func(w *world, _ *state.Decision) { w.live("big", "n1", memory(3*taskMemory+1)) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.register("n1")
			w.register("n2")
			w.submit("t1")
			d := good(w)
			tt.edit(w, &d)
			before := w.sn().Task("t1")
			out := w.must(state.Place{Decisions: []state.Decision{d}})
			if got := len(out.Placed) == 1; got != tt.want {
				t.Fatalf("placed: got %v, want %v", got, tt.want)
			}
			after := w.sn().Task("t1")
			if !tt.want {
				if after != before {
					t.Errorf("a skipped decision changed the task: %+v", after)
				}
				return
			}
			want := task.Attempt{Number: 1, Node: "n1", Zone: "zone-1", Epoch: d.Epoch, PlacedAt: w.now}
			if after.State != task.Assigned || len(after.Attempts) != 1 || after.Attempts[0] != want || after.Bill.Queued != time.Second {
				t.Errorf("got %+v, want assigned with %+v", after, want)
			}
		})
	}
}

func TestSubmitIsPlacedAtOnceWhereThatHolds(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*world, *state.Submit)
		want bool
	}{
		{"as decided", func(*world, *state.Submit) {}, true},
		{"no decision", func(_ *world, c *state.Submit) { c.Node, c.Epoch = "", 0 }, false},
		{"unknown node", func(_ *world, c *state.Submit) { c.Node = "n9" }, false},
		{"older epoch", func(_ *world, c *state.Submit) { c.Epoch-- }, false},
		{"node drains", func(w *world, _ *state.Submit) { w.must(state.SetNode{Node: "n1", Drain: new(true)}) }, false},
		{"node lost", func(w *world, c *state.Submit) { w.must(state.LoseNode{Node: "n1", Epoch: c.Epoch}) }, false},
		{"no CPU left", func(w *world, _ *state.Submit) { w.live("big", "n1", cpu(3*taskCPU+1)) }, false},
		{"just enough CPU left", func(w *world, _ *state.Submit) { w.live("big", "n1", cpu(3*taskCPU)) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.register("n1")
			c := state.Submit{Task: aTask("t1"), Node: "n1", Epoch: w.node("n1").Epoch}
			tt.edit(w, &c)
			held := w.node("n1").Attempts
			out := w.must(c)
			got := w.sn().Task("t1")
			if out.Task != got {
				t.Errorf("the outcome has %+v, the record %+v", out.Task, got)
			}
			if !tt.want {
				if got.State != task.Pending || len(got.Attempts) != 0 || w.sn().Counts().Pending != 1 || w.node("n1").Attempts != held {
					t.Errorf("got %+v, want it to wait", got)
				}
				return
			}
			want := task.Attempt{Number: 1, Node: "n1", Zone: "zone-1", Epoch: c.Epoch, PlacedAt: w.now}
			if got.State != task.Assigned || len(got.Attempts) != 1 || got.Attempts[0] != want || w.node("n1").Attempts != held+1 {
				t.Errorf("got %+v, want assigned with %+v", got, want)
			}
			if again := w.must(c); !again.Existed || again.Task != got || w.node("n1").Attempts != held+1 {
				t.Errorf("a second time: got %+v", again)
			}
		})
	}
}

// What is placed at once does not wait, so a full queue is none of its business.
func TestSubmitWithANodePassesAFullQueue(t *testing.T) {
	w := limitedWorld(t, state.Limits{MaxPending: 1})
	n := w.register("n1")
	w.submit("waits")
	if out := w.must(state.Submit{Task: aTask("t1"), Node: "n1", Epoch: n.Epoch}); out.Task.State != task.Assigned {
		t.Errorf("got %+v, want it placed", out.Task)
	}
}

func cpu(milli int64) func(*task.Task) {
	return func(t *task.Task) { t.Spec.Resources.MilliCPU = milli }
}

func memory(n int64) func(*task.Task) {
	return func(t *task.Task) { t.Spec.Resources.Memory = n }
}

func TestOnePlaceCommandCannotOverfillANode(t *testing.T) {
	w := newWorld(t)
	n := w.register("n1")
	var decisions []state.Decision
	for _, id := range []task.ID{"t1", "t2", "t3", "t4", "t5", "t1"} {
		if w.sn().Task(id) == nil {
			w.submit(id)
		}
		decisions = append(decisions, state.Decision{Task: id, Attempt: 1, Node: "n1", Epoch: n.Epoch})
	}
	out := w.must(state.Place{Decisions: decisions})
	if want := []task.ID{"t1", "t2", "t3", "t4"}; !slices.Equal(out.Placed, want) {
		t.Errorf("placed: got %v, want %v", out.Placed, want)
	}
	got := w.node("n1")
	if got.Reserved.MilliCPU != got.Capacity.MilliCPU || got.Reserved.Memory != got.Capacity.Memory || got.Attempts != 4 {
		t.Errorf("got reserved %+v by %d attempts, want all by 4", got.Reserved, got.Attempts)
	}
}
