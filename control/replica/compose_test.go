package replica

import (
	"strings"
	"sync"
	"testing"

	"ecs/control/state"
	"ecs/internal/task"
)

// composer places every submission on one node and remembers what came of it.
type composer struct {
	mu       sync.Mutex
	node     task.NodeID
	epoch    uint64
	outcomes []state.Outcome
}

func (c *composer) compose(batch []state.Command) func([]state.Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, cmd := range batch {
		if s, ok := cmd.(state.Submit); ok && c.node != "" {
			batch[i] = state.Submit{Task: s.Task, Node: c.node, Epoch: c.epoch}
		}
	}
	return func(outcomes []state.Outcome) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.outcomes = append(c.outcomes, outcomes...)
	}
}

func TestAnEntryIsCompletedAsItIsMade(t *testing.T) {
	compose := &composer{}
	bubbleWith(t, 3, func(cfg *Config) { cfg.Compose = compose.compose }, func(t *testing.T, c *cluster) {
		l := c.leader()
		out, err := l.node.Propose(t.Context(), state.Register{Node: task.Node{ID: "n1", Capacity: task.Capacity{MilliCPU: 10_000, Memory: 64 << 30}}})
		if err != nil {
			t.Fatal(err)
		}
		compose.mu.Lock()
		compose.node, compose.epoch = "n1", out.Node.Epoch
		compose.mu.Unlock()
		if got := l.mustSubmit("a"); got.Task.State != task.Assigned || got.Task.Live().Node != "n1" {
			t.Errorf("got %+v, want it on n1", got.Task)
		}
		compose.mu.Lock()
		if n := len(compose.outcomes); n != 2 || compose.outcomes[1].Task.ID != "a" {
			t.Errorf("the composer was told of %d outcomes, want 2", n)
		}
		compose.node = task.NodeID(strings.Repeat("n", 2*placementRoom)) // fits no entry
		compose.mu.Unlock()
		if got := l.mustSubmit("b"); got.Task.State != task.Pending {
			t.Errorf("got %+v, want it without a node", got.Task)
		}
		sn := c.settled()
		if a := sn.Task("a"); a == nil || a.State != task.Assigned {
			t.Errorf("a follower has %+v", a)
		}
	})
}
