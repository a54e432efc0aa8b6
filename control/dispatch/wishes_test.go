package dispatch

import (
	"testing"

	"ecs/control/state"
	"ecs/internal/task"
)

// TestWishesAreDealtOut: each is dealt out whole, no node has two more than another,
// and a node that takes no tasks has none.
func TestWishesAreDealtOut(t *testing.T) {
	for nodes := 1; nodes <= 5; nodes++ {
		sh := shares{rank: map[task.NodeID]int{}, of: []state.Wish{
			{Spec: task.Spec{Image: "a"}, Count: 1}, {Spec: task.Spec{Image: "b"}, Count: 2}, {Spec: task.Spec{Image: "c"}, Count: 7}}, first: []int{0, 1, 3}}
		ids := []task.NodeID{"n1", "n2", "n3", "n4", "n5"}[:nodes]
		for i, id := range ids {
			sh.rank[id] = i
		}
		dealt, most, least := map[string]int{}, 0, 1<<30
		for _, id := range ids {
			sum := 0
			for _, w := range sh.deal(id) {
				dealt[w.GetSpec().GetImage()] += int(w.GetCount())
				sum += int(w.GetCount())
			}
			most, least = max(most, sum), min(least, sum)
		}
		if dealt["a"] != 1 || dealt["b"] != 2 || dealt["c"] != 7 || most > least+1 {
			t.Errorf("%d nodes: dealt %v, from %d to %d each; want 1, 2 and 7, evenly", nodes, dealt, least, most)
		}
		if got := sh.deal("other"); got != nil {
			t.Errorf("a node that takes nothing: got %v", got)
		}
	}
}
