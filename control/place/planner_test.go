package place_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"ecs/control/place"
	"ecs/control/state"
	"ecs/internal/task"
)

// A planner that follows a changing record decides as one that looks at it for
// the first time.
func TestPlannerFollowsTheRecord(t *testing.T) {
	decided, warm := 0, 0
	for seed := range uint64(60) {
		w, h := draw(t, seed)
		rng := rand.New(rand.NewPCG(seed, 9))
		p := place.NewPlanner(w.sn(), h)
		for step := range 30 {
			disturb(w, rng, step)
			if rng.IntN(6) == 0 {
				h = place.Hints{Images: h.Images, Parked: h.Parked, Avoid: map[task.NodeID]bool{task.NodeID(fmt.Sprint("n", rng.IntN(20))): true}}
				if seed%2 == 0 {
					p.See(w.sn()) // hints count what was placed, here
				}
				p.Hint(h)
			}
			p.See(w.sn())
			if rng.IntN(6) == 0 && seed%2 == 0 {
				h.Parked = drawParked(w, rng, 20)
				p.Park(h.Parked)
			}
			most := 1 + rng.IntN(4)
			got, want := p.Place(most), place.Place(w.sn(), h, most)
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d step %d:\ngot  %+v\nwant %+v", seed, step, got, want)
			}
			decided += len(got)
			warm += useUp(w.sn(), &h, got)
			if rng.IntN(3) > 0 {
				w.place(got)
				continue // See finds them
			}
			for _, d := range got {
				p.Settle(d.Task) // they came to nothing
			}
		}
	}
	if decided < 500 || warm < 50 {
		t.Errorf("%d decisions, %d for parked containers: too few to prove anything", decided, warm)
	}
}

// useUp takes from the hints what decisions use up until they are read anew.
func useUp(sn *state.Snapshot, h *place.Hints, decisions []state.Decision) (used int) {
	h.Parked = maps.Clone(h.Parked) // the planner shares it
	for _, d := range decisions {
		shape := sn.Task(d.Task).Spec.Shape().Hash()
		if h.Parked[d.Node][shape] > 0 {
			h.Parked[d.Node] = maps.Clone(h.Parked[d.Node])
			h.Parked[d.Node][shape]--
			used++
		}
	}
	return used
}

// What is on its way has its parked container when hints that don't know of it
// are read, and what came to nothing has it until then.
func TestAParkedContainerIsUsedUp(t *testing.T) {
	w := newWorld(t)
	w.node("n1", "a")
	w.node("n2", "a")
	h := place.Hints{Parked: parked("n2", 1)}
	p := place.NewPlanner(w.sn(), h)
	submit := func(id task.ID, want task.NodeID) {
		t.Helper()
		if d, ok := p.Submit(aTask(id)); !ok || d.Node != want {
			t.Errorf("task %s: got %+v (%v), want it on %s", id, d, ok, want)
		}
	}
	submit("t1", "n2")
	p.Park(h.Parked)
	submit("t2", "n1")
	p.Hint(h)
	submit("t3", "n1")
	p.Settle("t1")
	p.Settle("t3")
	p.Park(parked("n2", 2))
	submit("t4", "n2")
	w.node("n3", "b", func(n *task.Node) { n.Capacity = task.Capacity{} })
	p.See(w.sn()) // looks at every node, and not at hints
	submit("t5", "n2")
	p.Settle("t4")
	p.Settle("t5")
	submit("t6", "n2") // it is empty
	p.Settle("t6")
	p.Park(nil)
	submit("t7", "n2")
}

// disturb changes the record as agents, operators and callers do.
func disturb(w *world, rng *rand.Rand, step int) {
	node := task.NodeID(fmt.Sprint("n", rng.IntN(20)))
	n := w.sn().Node(node)
	switch rng.IntN(6) {
	case 0:
		w.submit(task.ID(fmt.Sprint("later", step)), image(fmt.Sprint("i", rng.IntN(3))))
	case 1:
		for t := range w.sn().On(node) {
			w.fail(t.ID, []task.Outcome{task.Exited, task.Interrupted, task.NodeLost}[rng.IntN(3)])
			break
		}
	case 2:
		w.node(node, fmt.Sprint("z", rng.IntN(5)))
	case 3:
		if n != nil {
			w.all(state.SetNode{Node: node, Drain: new(!n.Drain)})
		}
	case 4:
		if n != nil {
			w.all(state.LoseNode{Node: node, Epoch: n.Epoch})
		}
	}
}

// What is decided for submissions counts before any of them is in the record.
func TestSubmissionsOnTheirWayShareNoRoom(t *testing.T) {
	w := newWorld(t)
	for i := range 3 {
		w.node(task.NodeID(fmt.Sprint("n", i)), fmt.Sprint("z", i))
	}
	p := place.NewPlanner(w.sn(), place.Hints{})
	placed := make(map[task.NodeID]int)
	var commands []state.Command
	for i := range 15 {
		tk := aTask(task.ID(fmt.Sprint("t", i)))
		d, ok := p.Submit(tk)
		if ok != (i < 12) {
			t.Fatalf("task %d: placed %v, want room for 12", i, ok)
		}
		if !ok {
			continue
		}
		placed[d.Node]++
		if least := slices.Min([]int{placed["n0"], placed["n1"], placed["n2"]}); placed[d.Node] > least+1 {
			t.Errorf("task %d: zones are uneven: %v", i, placed)
		}
		commands = append(commands, state.Submit{Task: tk, Node: d.Node, Epoch: d.Epoch})
	}
	for i, out := range w.all(commands...) {
		if out.Task.State != task.Assigned {
			t.Errorf("submission %d was not placed: %+v", i, out.Task)
		}
	}
	p.See(w.sn())
	if d, ok := p.Submit(aTask("more")); ok {
		t.Errorf("got %+v on full nodes", d)
	}
	w.fail("t0", task.Exited)
	p.See(w.sn())
	if _, ok := p.Submit(aTask("more")); !ok {
		t.Error("room that a task gave back is not found")
	}
	if d, ok := p.Submit(aTask("even more")); ok {
		t.Errorf("got %+v where another decision is on its way", d)
	}
	p.Settle("more")
	if _, ok := p.Submit(aTask("even more")); !ok {
		t.Error("room of a decision that came to nothing is not found")
	}
}

// A submission that was refused room is in the record as pending: its decision
// is over then, and the task may be decided for again.
func TestARefusedSubmissionIsDecidedAgain(t *testing.T) {
	w := newWorld(t)
	w.node("n1", "a")
	p := place.NewPlanner(w.sn(), place.Hints{})
	tk := aTask("t")
	d, _ := p.Submit(tk)
	w.all(state.SetNode{Node: "n1", Drain: new(true)}, state.Submit{Task: tk, Node: d.Node, Epoch: d.Epoch})
	w.all(state.SetNode{Node: "n1", Drain: new(false)})
	p.See(w.sn())
	if got := p.Place(0); len(got) != 1 || got[0].Task != "t" || got[0].Attempt != 1 {
		t.Errorf("got %+v, want task t again", got)
	}
}
