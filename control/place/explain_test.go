package place_test

import (
	"testing"
	"time"

	"ecs/control/place"
	"ecs/control/state"
	"ecs/internal/task"
)

func TestExplain(t *testing.T) {
	unfit := func(w *world, id task.NodeID, why string) {
		w.all(state.SetNode{Node: id, Unfit: &why, Epoch: w.sn().Node(id).Epoch})
	}
	for _, tt := range []struct {
		name  string
		setup func(w *world)
		hints place.Hints
		want  string
	}{
		{"no nodes", func(w *world) {}, place.Hints{}, "no node has joined the cluster"},
		{"only nodes that left", func(w *world) {
			w.node("n1", "a")
			w.all(state.LoseNode{Node: "n1", Epoch: w.sn().Node("n1").Epoch, Left: true})
		}, place.Hints{}, "no node has joined the cluster"},
		{"about to be placed", func(w *world) {
			w.node("n1", "a")
			w.node("n2", "a", capacity(1, 1))
		}, place.Hints{}, "1 of 2 nodes can take it: it is about to be placed"},
		{"no room", func(w *world) {
			w.node("n1", "a")
			w.node("n2", "a")
			w.node("n3", "c")
			w.put("x", "n1", size(3500, 1))
			w.put("y", "n2", size(3600, 7<<30))
			w.all(state.SetNode{Node: "n3", Drain: new(true)})
		}, place.Hints{}, "0 of 3 nodes can take it: 2 have no room (it needs 1000m CPU and 1 GiB; the most free is 500m CPU and 8191 MiB), 1 is draining"},
		{"one of each", func(w *world) {
			for _, id := range []task.NodeID{"closed", "drain", "full", "lost", "suspect", "unfit"} {
				w.node(id, "a")
			}
			w.node("small", "a", capacity(500, 512<<20))
			w.node("zoned", "b")
			w.node("closed", "a", noEgress)
			w.put("x", "full", size(4000, 8<<30))
			w.all(state.SetNode{Node: "drain", Drain: new(true)})
			w.all(state.LoseNode{Node: "lost", Epoch: w.sn().Node("lost").Epoch})
			unfit(w, "unfit", "the engine does not answer")
		}, place.Hints{Avoid: map[task.NodeID]bool{"suspect": true}},
			"0 of 8 nodes can take it: 1 has no room (it needs 1000m CPU and 1 GiB; the most free is 0m CPU and 0 MiB), " +
				"1 is too small (it needs 1000m CPU and 1 GiB; the largest has 500m CPU and 512 MiB), 1 is draining, 1 is lost, " +
				"1 is out of contact, 1 can run nothing (the engine does not answer), 1 has no egress network, 1 is in another zone (it asks for a, c)"},
		{"two of each", func(w *world) {
			for _, id := range []task.NodeID{"lost1", "lost2", "s1", "s2", "u1", "u2"} {
				w.node(id, "a")
			}
			for _, id := range []task.NodeID{"lost1", "lost2"} {
				w.all(state.LoseNode{Node: id, Epoch: w.sn().Node(id).Epoch})
			}
			unfit(w, "u1", "disk full")
			unfit(w, "u2", "engine gone")
			w.node("z1", "b")
			w.node("z2", "d")
			w.node("c1", "a", noEgress)
			w.node("c2", "a", noEgress)
		}, place.Hints{Avoid: map[task.NodeID]bool{"s1": true, "s2": true}},
			"0 of 10 nodes can take it: 2 are lost, 2 are out of contact, 2 can run nothing (disk full), " +
				"2 have no egress network, 2 are in other zones (it asks for a, c)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			tt.setup(w)
			w.submit("t", egress, zones("a", "c"))
			got, position := place.Explain(w.sn(), tt.hints, "t")
			if got != tt.want || position != 1 {
				t.Errorf("got  %q, %d\nwant %q, 1", got, position, tt.want)
			}
		})
	}
}

func TestExplainSaysWhenAFailedProgramIsRunAgain(t *testing.T) {
	w := newWorld(t)
	w.node("n1", "a")
	w.put("t", "n1", func(s *task.Spec) { s.ProgramRetries, s.RetryBackoff = 1, time.Minute })
	tok := w.sn().Task("t").Live().Token("t")
	w.all(state.Finish{Token: tok, Result: task.Result{Outcome: task.Exited, ExitCode: 3, HasExit: true}})
	at := w.sn().Task("t").RetryAt().UTC().Format("2006-01-02T15:04:05.999Z")
	want := "attempt 1 exited with code 3, the next may begin at " + at + " (1 of at most 1 retry of the program)"
	if got, position := place.Explain(w.sn(), place.Hints{}, "t"); got != want || position != 0 {
		t.Errorf("got %q at %d, want %q at 0", got, position, want)
	}
}

func TestExplainSaysWhenALostAttemptIsRunAgain(t *testing.T) {
	w := newWorld(t)
	w.node("n1", "a")
	w.put("t", "n1", func(s *task.Spec) { s.InfrastructureRetries = 3 })
	lose := func() {
		w.all(state.Finish{Token: w.sn().Task("t").Live().Token("t"), Result: task.Result{Outcome: task.Interrupted}})
	}
	lose()
	w.all(state.Place{Decisions: []state.Decision{{Task: "t", Attempt: 2, Node: "n1", Epoch: w.sn().Node("n1").Epoch}}})
	lose()
	at := w.sn().Task("t").RetryAt().UTC().Format("2006-01-02T15:04:05.999Z")
	want := "attempt 2 ended as interrupted, the next may begin at " + at + " (2 of at most 3 retries after losses)"
	if got, position := place.Explain(w.sn(), place.Hints{}, "t"); got != want || position != 0 {
		t.Errorf("got %q at %d, want %q at 0", got, position, want)
	}
}

func TestExplainGivesThePlaceInTheQueue(t *testing.T) {
	w := newWorld(t)
	w.node("n1", "a")
	for _, id := range []task.ID{"t1", "t2", "t3"} {
		w.submit(id, size(5000, 1))
	}
	w.put("live", "n1")
	check := func(id task.ID, want int) {
		t.Helper()
		because, got := place.Explain(w.sn(), place.Hints{}, id)
		if got != want || (because != "") != (want > 0) {
			t.Errorf("%s: got %q, %d, want position %d", id, because, got, want)
		}
	}
	check("t1", 1)
	check("t3", 3)
	check("live", 0)
	check("none", 0)
	w.all(state.Stop{Task: "t1", Outcome: task.Cancelled})
	check("t1", 0)
	check("t3", 2)
}

// A task is explained as waiting for a reason exactly when it can't be placed.
func TestExplainAgreesWithPlace(t *testing.T) {
	const ready = ": it is about to be placed"
	seen := map[bool]int{}
	for seed := range uint64(40) {
		w, h := draw(t, seed)
		first := true
		for waiting := range w.sn().Pending() {
			because, _ := place.Explain(w.sn(), h, waiting.ID)
			able := len(because) > len(ready) && because[len(because)-len(ready):] == ready
			_, placed := chosen(w.sn(), h)[waiting.ID]
			if placed && !able || first && able && !placed {
				t.Errorf("seed %d: %s is placed %v, but %q", seed, waiting.ID, placed, because)
			}
			seen[able]++
			first = false
		}
	}
	if seen[true] < 100 || seen[false] < 100 {
		t.Errorf("got %v, too few of one kind to prove anything", seen)
	}
}

func TestPossible(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setup func(w *world)
		edit  func(*task.Spec)
		want  string // empty: possible
	}{
		{"no node yet", func(*world) {}, size(1<<40, 1<<60), ""},
		{"fits an empty node", func(w *world) { w.node("n1", "a") }, size(4000, 8<<30), ""},
		{"a node that is full now", func(w *world) { w.node("n1", "a"); w.put("x", "n1", size(4000, 1)) }, size(4000, 8<<30), ""},
		{"a node that is lost, draining and unfit now", func(w *world) {
			w.node("n1", "a")
			epoch := w.sn().Node("n1").Epoch
			w.all(state.SetNode{Node: "n1", Drain: new(true), Unfit: new("x"), Epoch: epoch}, state.LoseNode{Node: "n1", Epoch: epoch})
		}, size(4000, 8<<30), ""},
		{"too much CPU", func(w *world) { w.node("n1", "a"); w.node("n2", "a") }, size(4001, 1<<30),
			"0 of 2 nodes can take it: 2 are too small (it needs 4001m CPU and 1 GiB; the largest has 4000m CPU and 8 GiB)"},
		{"too much memory", func(w *world) { w.node("n1", "a") }, size(1, 16<<30+1<<29),
			"0 of 1 node can take it: 1 is too small (it needs 1m CPU and 16.5 GiB; the largest has 4000m CPU and 8 GiB)"},
		{"no such zone", func(w *world) { w.node("n1", "a") }, zones("b"),
			"0 of 1 node can take it: 1 is in another zone (it asks for b)"},
		{"no egress", func(w *world) { w.node("n1", "a", noEgress) }, egress,
			"0 of 1 node can take it: 1 has no egress network"},
		{"what it needs, but not on one node", func(w *world) {
			w.node("n1", "a", noEgress)
			w.node("n2", "a", capacity(100, 1<<30))
		}, egress, "0 of 2 nodes can take it: 1 is too small (it needs 1000m CPU and 1 GiB; the largest has 100m CPU and 1 GiB), " +
			"1 has no egress network"},
		{"the only large node left", func(w *world) {
			w.node("n1", "a", capacity(100, 1<<30))
			w.node("n2", "a")
			w.all(state.LoseNode{Node: "n2", Epoch: w.sn().Node("n2").Epoch, Left: true})
		}, size(4000, 8<<30),
			"0 of 1 node can take it: 1 is too small (it needs 4000m CPU and 8 GiB; the largest has 100m CPU and 1 GiB)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			tt.setup(w)
			ok, got := place.Possible(w.sn(), aTask("t", tt.edit).Spec)
			if ok != (tt.want == "") || got != tt.want {
				t.Errorf("got  %v, %q\nwant %q", ok, got, tt.want)
			}
		})
	}
}
