package place_test

import (
	"fmt"
	"maps"
	"testing"

	"ecs/control/place"
	"ecs/control/state"
	"ecs/internal/task"
)

// parked has so many containers wait on a node for such a task.
func parked(node task.NodeID, n int, edit ...func(*task.Spec)) map[task.NodeID]map[uint64]int {
	return map[task.NodeID]map[uint64]int{node: {aTask("t", edit...).Spec.Shape().Hash(): n}}
}

func TestPlace(t *testing.T) {
	images := func(nodes ...task.NodeID) place.Hints {
		h := place.Hints{Images: make(map[task.NodeID]map[string]bool)}
		for _, n := range nodes {
			h.Images[n] = map[string]bool{"img": true}
		}
		return h
	}
	type where = map[task.ID]task.NodeID
	for _, tt := range []struct {
		name  string
		setup func(w *world)
		hints place.Hints
		want  where
	}{
		{"no nodes", func(w *world) { w.submit("t") }, place.Hints{}, where{}},
		{"one node", func(w *world) { w.node("n1", "a"); w.submit("t") }, place.Hints{}, where{"t": "n1"}},
		{"equal nodes: the lowest ID", func(w *world) {
			w.node("n2", "b")
			w.node("n1", "b")
			w.submit("t")
		}, place.Hints{}, where{"t": "n1"}},

		{"the zone with the fewest attempts, though its node is fuller", func(w *world) {
			w.node("a1", "a")
			w.node("a2", "a")
			w.node("b1", "b")
			w.put("x", "a1", size(1, 1))
			w.put("y", "a1", size(1, 1))
			w.put("z", "b1", size(3000, 1))
			w.submit("t")
		}, place.Hints{}, where{"t": "b1"}},
		{"a zone's attempts count on nodes that take nothing new", func(w *world) {
			w.node("a1", "a")
			w.node("a2", "a")
			w.node("b1", "b")
			w.put("x", "a2")
			w.put("y", "a2")
			w.put("z", "b1")
			w.all(state.SetNode{Node: "a2", Drain: new(true)})
			w.submit("t")
		}, place.Hints{}, where{"t": "b1"}},
		{"a parked container, though the node is fuller, lacks the image and has a higher ID", func(w *world) {
			w.node("n1", "a")
			w.node("n2", "a")
			w.put("x", "n2")
			w.submit("t", image("img"))
		}, func() place.Hints { h := images("n1"); h.Parked = parked("n2", 1, image("img")); return h }(), where{"t": "n2"}},
		{"each parked container counts once", func(w *world) {
			w.node("n1", "a")
			w.node("n2", "a")
			w.submit("t", image("img"))
			w.submit("u", image("img"))
		}, place.Hints{Parked: parked("n2", 1, image("img"))}, where{"t": "n2", "u": "n1"}},
		{"one of another shape does not", func(w *world) {
			w.node("n1", "a")
			w.node("n2", "a")
			w.submit("t", image("img"))
		}, place.Hints{Parked: parked("n2", 1, image("img"), size(77, 1))}, where{"t": "n1"}},
		{"the zone comes before what is parked", func(w *world) {
			w.node("n1", "a")
			w.node("n2", "b")
			w.put("x", "n2")
			w.submit("t", image("img"))
		}, place.Hints{Parked: parked("n2", 1, image("img"))}, where{"t": "n1"}},
		{"no room, whatever is parked", func(w *world) {
			w.node("n1", "a")
			w.node("n2", "a")
			w.put("x", "n2", size(4000, 1))
			w.submit("t", image("img"))
		}, place.Hints{Parked: parked("n2", 1, image("img"))}, where{"t": "n1"}},
		{"a zone without room is passed over", func(w *world) {
			w.node("a1", "a", capacity(500, 8<<30))
			w.node("b1", "b")
			w.put("x", "b1")
			w.submit("t")
		}, place.Hints{}, where{"t": "b1"}},
		{"each placement counts for the next", func(w *world) {
			w.node("a1", "a")
			w.node("b1", "b")
			w.node("c1", "c")
			for _, id := range []task.ID{"t1", "t2", "t3", "t4"} {
				w.submit(id)
			}
		}, place.Hints{}, where{"t1": "a1", "t2": "b1", "t3": "c1", "t4": "a1"}},
		{"only allowed zones", func(w *world) {
			w.node("a1", "a")
			w.node("b1", "b")
			w.node("c1", "c")
			w.put("x", "c1")
			w.submit("t", zones("b", "c"))
			w.submit("u", zones("d"))
		}, place.Hints{}, where{"t": "b1"}},

		{"the emptiest node of the zone", func(w *world) {
			w.node("n1", "a")
			w.node("n2", "a")
			w.node("n3", "a")
			w.put("x", "n1", size(2000, 1))
			w.put("y", "n2", size(1, 1))
			w.put("z", "n3", size(1, 7<<30)) // the scarcer resource counts
			w.submit("t")
		}, place.Hints{}, where{"t": "n2"}},
		{"the fullest with room, when packed", func(w *world) {
			w.node("n1", "a")
			w.node("n2", "a")
			w.node("n3", "a")
			w.put("x", "n1", size(500, 1))
			w.put("y", "n2", size(2000, 1))
			w.put("z", "n3", size(3500, 1))
			w.submit("t", packed)
			w.submit("u", packed)
			w.submit("v", packed)
		}, place.Hints{}, where{"t": "n2", "u": "n2", "v": "n1"}},
		{"the emptiest by share, not by amount", func(w *world) {
			w.node("big", "a", capacity(16000, 64<<30))
			w.node("small", "a", capacity(2000, 8<<30))
			w.put("x", "big", size(4000, 1))
			w.put("y", "small", size(600, 1))
			w.submit("t")
		}, place.Hints{}, where{"t": "big"}},
		{"a node that holds the image, though it is fuller", func(w *world) {
			w.node("n1", "a")
			w.node("n2", "a")
			w.put("x", "n2")
			w.submit("t", image("img"))
			w.submit("u", image("other"))
		}, images("n2"), where{"t": "n2", "u": "n1"}},
		{"the image does not outweigh the zone", func(w *world) {
			w.node("a1", "a")
			w.node("b1", "b")
			w.put("x", "b1")
			w.submit("t", image("img"))
		}, images("b1"), where{"t": "a1"}},
		{"the image decides between equal zones", func(w *world) {
			w.node("a1", "a")
			w.node("b1", "b")
			w.submit("t", image("img"))
		}, images("b1"), where{"t": "b1"}},
		{"a node that holds the image but has no room", func(w *world) {
			w.node("n1", "a")
			w.node("n2", "a")
			w.put("x", "n2", size(3500, 1))
			w.submit("t", image("img"))
		}, images("n2"), where{"t": "n1"}},

		{"a task that does not fit holds up nobody", func(w *world) {
			w.node("n1", "a")
			w.submit("big", size(5000, 1))
			w.submit("small")
		}, place.Hints{}, where{"small": "n1"}},
		{"first come, first placed", func(w *world) {
			w.node("n1", "a", capacity(1000, 8<<30))
			w.submit("t2")
			w.submit("t1")
		}, place.Hints{}, where{"t2": "n1"}},
		{"memory bounds too", func(w *world) {
			w.node("n1", "a", capacity(4000, 1<<30))
			w.submit("t1")
			w.submit("t2")
		}, place.Hints{}, where{"t1": "n1"}},
		{"egress only where there is some", func(w *world) {
			w.node("n1", "a", noEgress)
			w.node("n2", "a")
			w.put("x", "n2")
			w.submit("t", egress)
			w.submit("u")
		}, place.Hints{}, where{"t": "n2", "u": "n1"}},

		{"a draining node takes nothing", func(w *world) {
			w.node("n1", "a")
			w.all(state.SetNode{Node: "n1", Drain: new(true)})
			w.submit("t")
		}, place.Hints{}, where{}},
		{"an unfit node takes nothing", func(w *world) {
			w.node("n1", "a")
			w.all(state.SetNode{Node: "n1", Unfit: new("disk full"), Epoch: w.sn().Node("n1").Epoch})
			w.submit("t")
		}, place.Hints{}, where{}},
		{"a lost node takes nothing", func(w *world) {
			w.node("n1", "a")
			w.all(state.LoseNode{Node: "n1", Epoch: w.sn().Node("n1").Epoch})
			w.submit("t")
		}, place.Hints{}, where{}},
		{"a suspected node takes nothing", func(w *world) {
			w.node("n1", "a")
			w.node("n2", "a")
			w.submit("t")
		}, place.Hints{Avoid: map[task.NodeID]bool{"n1": true}}, where{"t": "n2"}},

		{"after a loss another zone comes first, though it is busier", func(w *world) {
			w.node("a1", "a")
			w.node("a2", "a")
			w.node("b1", "b")
			w.put("x", "b1")
			w.put("t", "a1")
			w.fail("t", task.NodeLost)
		}, place.Hints{}, where{"t": "b1"}},
		{"then another node of its zone", func(w *world) {
			w.node("a1", "a")
			w.node("a2", "a")
			w.node("b1", "b", capacity(1, 1))
			w.put("x", "a2", size(1000, 1))
			w.put("t", "a1")
			w.fail("t", task.NodeLost)
		}, place.Hints{}, where{"t": "a2"}},
		{"and the same node last", func(w *world) {
			w.node("a1", "a")
			w.node("a2", "a", capacity(1, 1))
			w.put("t", "a1")
			w.fail("t", task.NodeLost)
		}, place.Hints{}, where{"t": "a1"}},
		{"an interrupted attempt speaks against its node only", func(w *world) {
			w.node("a1", "a")
			w.node("a2", "a")
			w.node("b1", "b")
			w.put("x", "b1")
			w.put("t", "a1")
			w.fail("t", task.Interrupted)
		}, place.Hints{}, where{"t": "a2"}},
		{"every lost attempt counts", func(w *world) {
			w.node("a1", "a")
			w.node("b1", "b")
			w.node("c1", "c")
			w.put("t", "a1")
			w.fail("t", task.NodeLost)
			w.putAgain("t", "b1")
			w.fail("t", task.NodeLost)
			w.all(state.Resume{Waited: []state.Waited{{Task: "t", Attempt: 2}}}) // it backs off after a second loss
			w.put("x", "c1")
			w.put("y", "c1")
		}, place.Hints{}, where{"t": "c1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			tt.setup(w)
			if got := chosen(w.sn(), tt.hints); !maps.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			w.place(place.Place(w.sn(), tt.hints, 0)) // what it decides is acceptable
		})
	}
}

func TestPlaceStopsAtItsMost(t *testing.T) {
	w := newWorld(t)
	w.node("n1", "a")
	for i := range 4 {
		w.submit(task.ID(fmt.Sprint("t", i)))
	}
	for _, tt := range []struct{ most, want int }{{0, 4}, {1, 1}, {3, 3}, {4, 4}, {9, 4}} {
		got := place.Place(w.sn(), place.Hints{}, tt.most)
		if len(got) != tt.want {
			t.Errorf("most %d: got %d decisions, want %d", tt.most, len(got), tt.want)
		}
		for i, d := range got {
			want := state.Decision{Task: task.ID(fmt.Sprint("t", i)), Attempt: 1, Node: "n1", Epoch: w.sn().Node("n1").Epoch}
			if d != want {
				t.Errorf("most %d: got %+v, want %+v", tt.most, d, want)
			}
		}
	}
}

func TestPlaceNumbersTheAttempt(t *testing.T) {
	w := newWorld(t)
	w.node("n1", "a")
	w.put("t", "n1")
	w.fail("t", task.Interrupted)
	if got := place.Place(w.sn(), place.Hints{}, 0); len(got) != 1 || got[0].Attempt != 2 {
		t.Errorf("got %+v, want attempt 2", got)
	}
}
