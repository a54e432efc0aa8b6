package place_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"ecs/control/place"
	"ecs/control/state"
	"ecs/internal/task"
)

// draw makes a random cluster: few or many nodes of different sizes in some
// zones, some of them not taking tasks, and tasks that run, wait and were lost.
func draw(t testing.TB, seed uint64) (*world, place.Hints) {
	rng := rand.New(rand.NewPCG(seed, 7))
	w := newWorld(t)
	nodes := 1 + rng.IntN(20)
	inZones := 1 + rng.IntN(5)
	h := place.Hints{Images: make(map[task.NodeID]map[string]bool), Avoid: make(map[task.NodeID]bool)}
	for i := range nodes {
		id := task.NodeID(fmt.Sprint("n", i))
		w.node(id, fmt.Sprint("z", rng.IntN(inZones)), capacity(int64(1+rng.IntN(4))*1000, int64(1+rng.IntN(4))<<30),
			func(n *task.Node) {
				if rng.IntN(3) == 0 {
					n.Attributes = nil
				}
			})
		h.Images[id] = map[string]bool{"i0": rng.IntN(2) == 0, "i1": rng.IntN(8) == 0}
		h.Avoid[id] = rng.IntN(10) == 0
	}
	edit := func(s *task.Spec) {
		s.Resources.MilliCPU = int64(1+rng.IntN(6)) * 250
		s.Resources.Memory = int64(1+rng.IntN(6)) << 28
		s.Image = fmt.Sprint("i", rng.IntN(3))
		if rng.IntN(3) == 0 {
			s.Placement.Spread = task.BinPack
		}
		if rng.IntN(3) == 0 {
			s.Network = task.NetworkEgress
		}
		for z := range inZones {
			if rng.IntN(4) == 0 {
				s.Placement.Zones = append(s.Placement.Zones, fmt.Sprint("z", z))
			}
		}
	}
	for round := range 3 {
		for i := range rng.IntN(20) {
			w.submit(task.ID(fmt.Sprintf("t%d-%d", round, i)), edit)
		}
		for _, d := range place.Place(w.sn(), place.Hints{}, 0) {
			if rng.IntN(3) == 0 {
				continue
			}
			w.place([]state.Decision{d})
			if rng.IntN(3) == 0 {
				w.fail(d.Task, []task.Outcome{task.NodeLost, task.Interrupted}[rng.IntN(2)])
			}
		}
	}
	for i := range nodes {
		id := task.NodeID(fmt.Sprint("n", i))
		switch rng.IntN(12) {
		case 0:
			w.all(state.SetNode{Node: id, Drain: new(true)})
		case 1:
			w.all(state.LoseNode{Node: id, Epoch: w.sn().Node(id).Epoch})
		}
	}
	for i := range rng.IntN(40) {
		w.submit(task.ID(fmt.Sprint("w", i)), edit)
	}
	if seed%2 == 0 {
		h.Parked = drawParked(w, rng, nodes)
	}
	return w, h
}

// drawParked parks a few containers for tasks that wait.
func drawParked(w *world, rng *rand.Rand, nodes int) map[task.NodeID]map[uint64]int {
	parked := make(map[task.NodeID]map[uint64]int)
	for i := range nodes {
		counts := make(map[uint64]int)
		for t := range w.sn().Pending() {
			if rng.IntN(8) == 0 {
				counts[t.Spec.Shape().Hash()] = 1 + rng.IntN(2)
			}
		}
		parked[task.NodeID(fmt.Sprint("n", i))] = counts
	}
	return parked
}

// naive places by looking at every node for every task: the rules as the
// package's comment states them, and nothing else.
func naive(sn *state.Snapshot, h place.Hints) []state.Decision {
	nodes := make([]*task.Node, 0)
	for n := range sn.Nodes() {
		nodes = append(nodes, new(*n))
	}
	taken := make(map[task.NodeID]map[uint64]int)
	for _, n := range nodes {
		taken[n.ID] = make(map[uint64]int)
	}
	var out []state.Decision
	for t := range sn.Pending() {
		shape := t.Spec.Shape().Hash()
		var best *task.Node
		var bestRank []float64
		for _, n := range nodes {
			if !takes(n, h, t) {
				continue
			}
			ready := h.Parked[n.ID][shape] > taken[n.ID][shape]
			if rank := rankOf(nodes, n, h, t, ready); best == nil || slices.Compare(rank, bestRank) < 0 {
				best, bestRank = n, rank
			}
		}
		if best == nil {
			continue
		}
		best.Reserved.MilliCPU += t.Spec.Resources.MilliCPU
		best.Reserved.Memory += t.Spec.Resources.Memory
		best.Attempts++
		taken[best.ID][shape]++
		out = append(out, state.Decision{Task: t.ID, Attempt: len(t.Attempts) + 1, Node: best.ID, Epoch: best.Epoch})
	}
	return out
}

func takes(n *task.Node, h place.Hints, t *task.Task) bool {
	zones := t.Spec.Placement.Zones
	return n.Takes() && !h.Avoid[n.ID] && n.Free().Fits(t.Spec.Resources) &&
		(len(zones) == 0 || slices.Contains(zones, n.Zone)) &&
		(t.Spec.Network != task.NetworkEgress || n.Attributes[task.AttributeEgress] == "true")
}

// rankOf is the less the better. Nodes come by ID, so that the first of equals
// wins.
func rankOf(nodes []*task.Node, n *task.Node, h place.Hints, t *task.Task, ready bool) []float64 {
	shunned := 0.0
	for _, a := range t.Attempts {
		switch {
		case a.Node == n.ID:
			shunned = 2
		case a.Zone == n.Zone && a.Outcome == task.NodeLost:
			shunned = max(shunned, 1)
		}
	}
	live := 0
	for _, other := range nodes {
		if other.Zone == n.Zone {
			live += other.Attempts
		}
	}
	missing := 2.0
	if h.Images[n.ID][t.Spec.Image] {
		missing = 1
	}
	if ready {
		missing = 0
	}
	share := max(float64(n.Reserved.MilliCPU)/float64(n.Capacity.MilliCPU), float64(n.Reserved.Memory)/float64(n.Capacity.Memory))
	if t.Spec.Placement.Spread == task.BinPack {
		share = -share
	}
	return []float64{shunned, float64(live), missing, share}
}

func TestPlaceFollowsItsRules(t *testing.T) {
	placed, waiting := 0, 0
	for seed := range uint64(150) {
		w, h := draw(t, seed)
		got, want := place.Place(w.sn(), h, 0), naive(w.sn(), h)
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d:\ngot  %+v\nwant %+v", seed, got, want)
		}
		placed += len(got)
		waiting += w.sn().Counts().Pending - len(got)
		w.place(got)
	}
	if placed < 500 || waiting < 500 {
		t.Errorf("%d were placed and %d left waiting, too few to prove anything", placed, waiting)
	}
}

// Each task that was not lost before goes into an allowed zone with the fewest
// running among those with room, counted anew for each placement.
func TestZonesStayBalanced(t *testing.T) {
	checked := 0
	for seed := range uint64(80) {
		w, h := draw(t, seed)
		for {
			decisions := place.Place(w.sn(), h, 1)
			if len(decisions) == 0 {
				break
			}
			d := decisions[0]
			waiting, zone := w.sn().Task(d.Task), w.sn().Node(d.Node).Zone
			running, room := make(map[string]int), make(map[string]bool)
			for n := range w.sn().Nodes() {
				running[n.Zone] += n.Attempts
				room[n.Zone] = room[n.Zone] || takes(n, h, waiting)
			}
			if !room[zone] {
				t.Fatalf("seed %d: %s went to zone %s, where there is no room", seed, d.Task, zone)
			}
			for other := range running {
				if len(waiting.Attempts) == 0 && room[other] && running[other] < running[zone] {
					t.Fatalf("seed %d: %s went to zone %s with %d running, zone %s has room and %d",
						seed, d.Task, zone, running[zone], other, running[other])
				}
			}
			checked++
			w.place(decisions)
		}
	}
	if checked < 300 {
		t.Errorf("%d placements were checked, too few to prove anything", checked)
	}
}

// With equal zones and room everywhere no zone is ever more than one ahead.
func TestEqualZonesDifferByOne(t *testing.T) {
	w := newWorld(t)
	for i := range 9 {
		w.node(task.NodeID(fmt.Sprint("n", i)), fmt.Sprint("z", i%3))
	}
	for i := range 36 {
		w.submit(task.ID(fmt.Sprint("t", i)))
		w.place(place.Place(w.sn(), place.Hints{}, 0))
		running := make(map[string]int)
		for n := range w.sn().Nodes() {
			running[n.Zone] += n.Attempts
			if n.Attempts > i/9+1 {
				t.Errorf("after %d tasks node %s runs %d", i+1, n.ID, n.Attempts)
			}
		}
		if low, high := min(running["z0"], running["z1"], running["z2"]), max(running["z0"], running["z1"], running["z2"]); high-low > 1 {
			t.Errorf("after %d tasks: %v", i+1, running)
		}
	}
}

func TestTheSameSnapshotGivesTheSameDecisions(t *testing.T) {
	for seed := range uint64(20) {
		w, h := draw(t, seed)
		first := place.Place(w.sn(), h, 0)
		for range 5 {
			if again := place.Place(w.sn(), h, 0); !slices.Equal(again, first) {
				t.Fatalf("seed %d: got %+v, then %+v", seed, first, again)
			}
		}
	}
}

func BenchmarkPlace(b *testing.B) {
	for _, nodes := range []int{100, 1_000, 10_000} {
		for _, spread := range []task.Spread{task.SpreadNodes, task.BinPack} {
			b.Run(fmt.Sprintf("%d nodes, 1000 tasks, %s", nodes, spread), func(b *testing.B) {
				w, h := large(b, nodes, 1000, spread)
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					place.Place(w.sn(), h, 0)
				}
			})
		}
	}
	b.Run("10000 nodes, 10000 tasks without room", func(b *testing.B) {
		w, h := large(b, 10_000, 10_000, task.SpreadNodes)
		for n := range w.sn().Nodes() {
			h.Avoid[n.ID] = n.Zone != "z0"
		}
		b.ResetTimer()
		for range b.N {
			place.Place(w.sn(), h, 0)
		}
	})
}

func large(b *testing.B, nodes, tasks int, spread task.Spread) (*world, place.Hints) {
	rng := rand.New(rand.NewPCG(1, 1))
	w := newWorld(b)
	h := place.Hints{Images: make(map[task.NodeID]map[string]bool), Avoid: make(map[task.NodeID]bool)}
	for i := range nodes {
		id := task.NodeID(fmt.Sprintf("node%05d", i))
		w.node(id, fmt.Sprint("z", i%6), capacity(int64(1+rng.IntN(4))*1000, int64(1+rng.IntN(8))<<30))
		h.Images[id] = make(map[string]bool)
		for j := range 10 {
			h.Images[id][fmt.Sprint("i", j)] = rng.IntN(3) == 0
		}
	}
	for i := range tasks {
		w.submit(task.ID(fmt.Sprint("t", i)), size(int64(1+rng.IntN(8))*125, int64(1+rng.IntN(8))<<27),
			image(fmt.Sprint("i", rng.IntN(20))), func(s *task.Spec) { s.Placement.Spread = spread })
	}
	return w, h
}
