package agent

import (
	"testing"
	"time"

	"ecs/agent/runtime/fake"
	"ecs/agent/warm"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// TestWishesOfTheLeaderAreKept: what the leader wishes is parked before any task
// asks, again after the node was drained, and not once it is taken back.
func TestWishesOfTheLeaderAreKept(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		wish := func(n uint32) {
			c.settings(func() {
				c.wishes = []*ecsv1.Wish{{Spec: taskwire.FromSpec(command("exit 0").WithDefaults(task.V2, false)), Count: n, Owner: "ann"}}
			})
		}
		parked := func(after time.Duration, want int) {
			t.Helper()
			time.Sleep(after)
			if got := engine.Parked("n1"); got != want {
				t.Errorf("parked: got %d, want %d", got, want)
			}
		}
		wish(3)
		parked(10*time.Second, 3)
		if r := c.result(c.assign("t1", command("exit 3")), 5*time.Second); r.bill.Warm != warm.Hit || r.result.ExitCode != 3 {
			t.Errorf("got %+v, %s; want a hit", r.result, r.bill.Warm)
		}
		parked(10*time.Second, 3)
		c.settings(func() { c.drain = true })
		parked(10*time.Second, 0)
		c.settings(func() { c.drain = false })
		parked(20*time.Second, 3)
		wish(1)
		parked(10*time.Second, 1)
		c.settings(func() { c.wishes = nil })
		parked(10*time.Second, 0)
	}, warmed)
}
