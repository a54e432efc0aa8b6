package integration

import (
	"syscall"
	"testing"
	"time"

	"ecs/proto/api"
)

// TestKilledAgentsTasks kills an agent with SIGKILL under two tasks.
func TestKilledAgentsTasks(t *testing.T) {
	c := ownCluster(t, "--controls", "1", "--agents", "2", "--zones", "a,b")
	zone := func(delivery string, lease time.Duration) api.TaskRequest {
		return api.TaskRequest{Image: busybox, Command: sh("echo up; sleep 30"), Delivery: delivery, Lease: api.Duration(lease),
			Placement: api.Placement{Zones: []string{"a", "b"}}}
	}
	again := c.start(t, 0, zone(api.DeliveryAtLeastOnce, 0))
	within(t, 20*time.Second, "the first runs", func() bool { return c.task(0, again.ID).State == api.StateRunning })
	first := c.task(0, again.ID)
	req := zone(api.DeliveryAtMostOnce, 15*time.Second)
	req.Placement.Zones = []string{first.Zone}
	once := c.start(t, 0, req)
	within(t, 20*time.Second, "the second runs beside it", func() bool { return c.task(0, once.ID).State == api.StateRunning })

	killed := time.Now()
	for _, n := range c.Nodes {
		if n.Role == "agent" && n.Zone == first.Zone {
			if err := syscall.Kill(n.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	within(t, 30*time.Second, "the at-least-once task runs elsewhere", func() bool {
		now := c.task(0, again.ID)
		return len(now.Attempts) == 2 && now.State == api.StateRunning && now.Zone != first.Zone
	})
	if took := time.Since(killed); took < 10*time.Second {
		t.Errorf("placed again after %s, before lease and margin were over", took)
	}
	lost := c.await(t, once.ID, 30*time.Second)
	if lost.Outcome != api.OutcomeNodeLost || len(lost.Attempts) != 1 {
		t.Errorf("got %s after %d attempts (%s), want node_lost after 1", lost.Outcome, len(lost.Attempts), lost.Reason)
	}
	if took := time.Since(killed); took < 15*time.Second {
		t.Errorf("declared lost after %s, before its own lease of 15 s", took)
	}
	done := c.await(t, again.ID, 90*time.Second)
	if done.Outcome != api.OutcomeExited || *done.ExitCode != 0 {
		t.Errorf("got %s (%s), want exited 0", done.Outcome, done.Reason)
	}
}
