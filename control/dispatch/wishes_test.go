package dispatch

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"ecs/control/state"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
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

// TestRoomIsCountedAsItIsDealt: what one node lacks room for, another does not take.
func TestRoomIsCountedAsItIsDealt(t *testing.T) {
	old := "" // a node whose agent does not say
	for name, c := range map[string]struct {
		slots  []string // of the nodes that take tasks, by id
		wishes []int
		want   Room
	}{
		"nobody":          {nil, []int{4}, Room{Wished: 4}},
		"nothing":         {[]string{"4", "4"}, nil, Room{Nodes: 2}},
		"enough":          {[]string{"4", "4"}, []int{3, 5}, Room{Nodes: 2, Wished: 8, Fits: 8}},
		"too little":      {[]string{"4", "4"}, []int{9}, Room{Nodes: 2, Wished: 9, Fits: 8}},
		"all off":         {[]string{"0", "0"}, []int{1}, Room{Nodes: 2, Off: 2, Wished: 1}},
		"one has it all":  {[]string{"0", "9", "0"}, []int{3, 4}, Room{Nodes: 3, Off: 2, Wished: 7, Fits: 2}},
		"one too many":    {[]string{"1", "2"}, []int{1, 2}, Room{Nodes: 2, Wished: 3, Fits: 2}},
		"not known":       {[]string{old, old}, []int{7}, Room{Nodes: 2, Wished: 7, Fits: 7}},
		"known of others": {[]string{old, "0"}, []int{7}, Room{Nodes: 2, Off: 1, Wished: 7, Fits: 4}},
	} {
		var commands []state.Command
		for i, slots := range c.slots {
			n := task.Node{ID: task.NodeID(rune('a' + i))}
			if slots != old {
				n.Attributes = map[string]string{task.AttributeWarmSlots: slots}
			}
			commands = append(commands, state.Register{Node: n})
		}
		drained := true
		commands = append(commands, state.Register{Node: task.Node{ID: "z", Attributes: map[string]string{task.AttributeWarmSlots: "99"}}},
			state.SetNode{Node: "z", Drain: &drained})
		for i, count := range c.wishes {
			commands = append(commands, state.Wish{Spec: task.Spec{Image: string(rune('a' + i))}, Count: count})
		}
		sn := recorded(t, commands)
		if got := RoomFor(sn); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

// TestRoomKnowsEachNodesShare: as deal has it.
func TestRoomKnowsEachNodesShare(t *testing.T) {
	for nodes := 1; nodes <= 5; nodes++ {
		var commands []state.Command
		for i := range nodes {
			commands = append(commands, state.Register{Node: task.Node{ID: task.NodeID(rune('a' + i)), Attributes: map[string]string{task.AttributeWarmSlots: "2"}}})
		}
		for i, count := range []int{3, 1, 5} {
			commands = append(commands, state.Wish{Spec: task.Spec{Image: string(rune('a' + i))}, Count: count})
		}
		sn := recorded(t, commands)
		var of []state.Wish
		for w := range sn.Wishes() {
			of = append(of, w)
		}
		sh, want := newShares(sn, of), 0
		for i := range nodes {
			dealt := 0
			for _, w := range sh.deal(task.NodeID(rune('a' + i))) {
				dealt += int(w.GetCount())
			}
			want += min(dealt, 2)
		}
		if got := RoomFor(sn).Fits; got != want {
			t.Errorf("%d nodes: got room for %d, want %d", nodes, got, want)
		}
	}
}

// recorded applies commands to an empty record.
func recorded(t *testing.T, commands []state.Command) *state.Snapshot {
	t.Helper()
	store := state.NewStore(state.Limits{})
	for i, c := range commands {
		entry, err := proto.Marshal(&ecsv1.Entry{Commands: []*ecsv1.Command{state.ToWire(c, time.Now())}})
		if err != nil {
			t.Fatal(err)
		}
		if out, err := store.Apply(uint64(i+1), entry); err != nil || out[0].Err != nil {
			t.Fatalf("%T: %v, %v", c, err, out)
		}
	}
	return store.Snapshot()
}
