package state_test

import (
	"bytes"
	"slices"
	"testing"

	"ecs/control/state"
	"ecs/internal/task"
)

// spooled ends a task with output that its node holds.
func (w *world) spooled(id task.ID, node task.NodeID) {
	w.t.Helper()
	tok := w.live(id, node)
	w.must(state.Finish{Token: tok, Node: node, Result: task.Result{Outcome: task.Exited, HasExit: true, Node: node,
		OutputAddr: string(node) + ":7451", Stdout: task.Stream{Head: []byte("o"), Bytes: 9000, Kept: 9000}}})
}

func TestOutputMovesOnlyFromWhereItIs(t *testing.T) {
	w := newWorld(t)
	for _, id := range []task.NodeID{"n1", "n2", "n3"} {
		w.register(id)
	}
	w.spooled("t1", "n1")
	w.spooled("t2", "n1")
	w.live("runs", "n2")
	gone := w.register("n4")
	w.must(state.LoseNode{Node: "n4", Epoch: gone.Epoch, Left: true, Lease: task.MaxLease})
	good := state.MovedOutput{Task: "t1", Attempt: 1, From: "n1", FromAddr: "n1:7451", To: "n2"}
	edit := func(f func(*state.MovedOutput)) state.MovedOutput { m := good; f(&m); return m }
	before := w.sn()
	wrong := []state.MovedOutput{
		edit(func(m *state.MovedOutput) { m.Task = "nobody" }),
		edit(func(m *state.MovedOutput) { m.Task = "runs" }),
		edit(func(m *state.MovedOutput) { m.Attempt = 2 }),
		edit(func(m *state.MovedOutput) { m.From = "n3" }),
		edit(func(m *state.MovedOutput) { m.FromAddr = "n1:1" }),
		edit(func(m *state.MovedOutput) { m.To = "nobody" }),
		edit(func(m *state.MovedOutput) { m.To = "n4" }), // has left
	}
	if out := w.must(state.MoveOutputs{Moves: wrong}); len(out.Ended) != 0 {
		t.Errorf("got %v moved, want none", out.Ended)
	}
	if before.Task("t1") != w.task("t1") {
		t.Error("a move that does not hold changed the record")
	}
	_, changed := w.sn().WatchTask("t1")
	out := w.must(state.MoveOutputs{Moves: append(wrong, good)})
	if !slices.Equal(out.Ended, []task.ID{"t1"}) {
		t.Errorf("got %v moved, want t1", out.Ended)
	}
	select {
	case <-changed:
	default:
		t.Error("who watches the task was not told")
	}
	got, was := w.task("t1").Result, before.Task("t1").Result
	if got.Node != "n1" || got.Holder() != "n2" || got.OutputAddr != "n2:7451" || was.Holder() != "n1" {
		t.Errorf("got run by %s, held by %s at %s, want n1, n2, n2:7451; before %s", got.Node, got.Holder(), got.OutputAddr, was.Holder())
	}
	if counts := w.sn().Counts(); counts != before.Counts() {
		t.Errorf("got %+v, want %+v: a move ends nothing", counts, before.Counts())
	}
	if out := w.must(state.MoveOutputs{Moves: []state.MovedOutput{good}}); len(out.Ended) != 0 {
		t.Error("the same move again moved it")
	}
	onwards := state.MovedOutput{Task: "t1", Attempt: 1, From: "n2", FromAddr: "n2:7451", To: "n3"}
	w.must(state.SetNode{Node: "n3", Drain: new(true)})
	if w.must(state.MoveOutputs{Moves: []state.MovedOutput{onwards}}); w.task("t1").Result.Holder() != "n2" {
		t.Error("it moved to a node that drains, which may take it along")
	}
	w.must(state.SetNode{Node: "n3", Drain: new(false)})
	if w.must(state.MoveOutputs{Moves: []state.MovedOutput{onwards}}); w.task("t1").Result.Holder() != "n3" {
		t.Error("it did not move on")
	}
	restored := state.NewStore(state.Limits{})
	if err := restored.Restore(bytes.NewReader(written(t, w.sn()))); err != nil {
		t.Fatal(err)
	}
	if r := restored.Snapshot().Task("t1").Result; r.Holder() != "n3" || r.OutputAddr != "n3:7451" {
		t.Errorf("restored: got %s at %s, want n3 at n3:7451", r.Holder(), r.OutputAddr)
	}
	if restored.Snapshot().Hash() != w.sn().Hash() || w.copy(state.Limits{}).Snapshot().Hash() != w.sn().Hash() {
		t.Error("a replica has another record")
	}
	var last []task.ID
	for t := range w.sn().EndedLast() {
		last = append(last, t.ID)
	}
	if !slices.Equal(last, []task.ID{"t2", "t1"}) {
		t.Errorf("got %v, want the last finished first", last)
	}
}
