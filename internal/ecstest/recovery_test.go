package ecstest_test

import (
	"testing"
	"time"

	"ecs/internal/ecstest"
	"ecs/internal/task"
	"ecs/proto/api"
)

// The agents live through the loss of the control nodes and run on for a long lease.
// The cluster that one survivor makes up knows what they run, and has them end it; it
// must not run it again before that is sure. New tasks do not wait for it.
func TestNothingRunsTwiceAtOnceAfterARecovery(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{SlowKill: 2 * time.Second}, func(c *ecstest.Cluster) {
		const lease = 5 * time.Minute
		submit := func(key string, req api.TaskRequest) string {
			req.Labels = map[string]string{"key": key}
			id, err := c.Client.Submit(c.T.Context(), key, req)
			if err != nil {
				c.T.Fatal(err)
			}
			c.Until(10*time.Second, key+" runs", func() bool { return get(c, id).State == api.StateRunning })
			return id
		}
		req := ecstest.Script("sleep", "60s")
		req.Delivery, req.Lease = api.DeliveryAtLeastOnce, api.Duration(lease)
		id := submit("long", req)
		c.Recover(c.Leader())
		began := time.Now()
		c.Until(time.Minute, "its agent has been told to end it", func() bool {
			return c.Leader() != nil && get(c, id).State == api.StatePending
		})
		short := submit("short", ecstest.Script("sleep", "1s"))
		if held := get(c, id); held.State != api.StatePending || held.WaitingBecause == "" {
			c.T.Errorf("got %s (%q), want it held back", held.State, held.WaitingBecause)
		}
		c.Until(2*lease, "it runs again", func() bool { return get(c, id).State == api.StateRunning })
		if took := time.Since(began); took < lease+task.LeaseMargin || took > lease+time.Minute {
			c.T.Errorf("ran again after %s, want after its lease and margin", took)
		}
		c.Settle(5 * time.Minute)
		c.CheckInvariants()
		for _, id := range []string{id, short} {
			if got := get(c, id); got.Outcome != api.OutcomeExited {
				c.T.Errorf("got %s, want exited", got.Outcome)
			}
		}
	})
}
