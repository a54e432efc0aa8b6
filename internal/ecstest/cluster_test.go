package ecstest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"ecs/internal/ecstest"
	"ecs/proto/api"
)

func TestOneCallThroughAnyNodeRunsAndAnswers(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{}, func(c *ecstest.Cluster) {
		for _, n := range c.Controls {
			got, err := c.Client.Run(n, ecstest.Script("print", "hi", ";", "exit", "3"))
			if err != nil {
				t.Fatal(err)
			}
			if got.Outcome != api.OutcomeExited || got.ExitCode == nil || *got.ExitCode != 3 {
				t.Errorf("got outcome %s exit %v, want exited 3", got.Outcome, got.ExitCode)
			}
		}
		c.Settle(time.Minute)
		c.CheckInvariants()
	})
}

// A task is in the log when it is accepted, with where it runs, and when it has
// ended; one that runs for longer once more.
func TestAShortTaskCostsTwoEntriesOfTheLog(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{}, func(c *ecstest.Cluster) {
		for _, tt := range []struct {
			program string
			entries uint64
		}{{"10ms", 2}, {"600ms", 3}} {
			before := c.Leader().Snapshot().Index()
			for _, n := range c.Controls {
				if _, err := c.Client.Run(n, ecstest.Script("sleep", tt.program)); err != nil {
					t.Fatal(err)
				}
			}
			c.Settle(time.Minute) // a follower may answer before the leader has applied it
			if got, want := c.Leader().Snapshot().Index()-before, 3*tt.entries; got != want {
				t.Errorf("3 tasks of %s: got %d entries, want %d", tt.program, got, want)
			}
		}
		c.CheckInvariants()
	})
}

// Submissions at one time are placed on their way into the log: what is decided
// for one takes room from the next, and the zones stay even.
func TestABurstIsPlacedAtOnceAndEvenly(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{Agents: 6}, func(c *ecstest.Cluster) {
		var all sync.WaitGroup
		for i := range 30 { // there is room for 24
			all.Go(func() {
				if _, err := c.Client.Submit(context.Background(), fmt.Sprint("key", i), ecstest.Script("sleep", "5s")); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		sn := c.Leader().Snapshot()
		if got := sn.Counts(); got.Live != 24 || got.Pending != 6 {
			t.Errorf("got %+v, want 24 placed and 6 that wait", got)
		}
		for n := range sn.Nodes() {
			if n.Attempts != 4 {
				t.Errorf("node %s has %d attempts, want 4", n.ID, n.Attempts)
			}
		}
		c.Settle(time.Minute)
		c.CheckInvariants()
	})
}

func TestTasksOfACrashedNodeRunElsewhere(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{}, func(c *ecstest.Cluster) {
		ctx := context.Background()
		submit := func(key, delivery string) string {
			req := ecstest.Script("sleep", "60s")
			req.Delivery = delivery
			req.Labels = map[string]string{"key": key}
			id, err := c.Client.Submit(ctx, key, req)
			if err != nil {
				t.Fatal(err)
			}
			c.Until(10*time.Second, key+" runs", func() bool { return get(c, id).State == api.StateRunning })
			return id
		}
		again, once := submit("again", api.DeliveryAtLeastOnce), submit("once", api.DeliveryAtMostOnce)
		first, lost := get(c, again), get(c, once)
		crashed := time.Now()
		for _, a := range c.Agents {
			if string(a.ID()) == first.Node || string(a.ID()) == lost.Node {
				a.Crash()
			}
		}
		c.Until(time.Minute, "the at-least-once task runs elsewhere", func() bool {
			got := get(c, again)
			return len(got.Attempts) == 2 && got.State == api.StateRunning
		})
		if took := time.Since(crashed); took < 8*time.Second || took > 17*time.Second {
			t.Errorf("placed again after %s, want after lease and margin of 12 s and not much later", took)
		}
		c.Until(10*time.Minute, "the at-most-once task ends", func() bool { return get(c, once).State == api.StateFinished })
		got := get(c, once)
		if got.Outcome != api.OutcomeNodeLost || len(got.Attempts) != 1 {
			t.Errorf("got %s after %d attempts, want node_lost after 1", got.Outcome, len(got.Attempts))
		}
		if took := time.Since(crashed); took < 5*time.Minute {
			t.Errorf("declared lost after %s, want after its own lease of 5 min", took)
		}
		c.Settle(5 * time.Minute)
		c.CheckInvariants()
	})
}

// A program that fails is run again after its pause, on another node, and says so
// meanwhile; cancelled in a pause it ends at once.
func TestFailedProgramsAreRunAgain(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{}, func(c *ecstest.Cluster) {
		req := ecstest.Script("print", "out", ";", "exit", "3")
		req.Retry = api.Retry{Program: 2, Backoff: api.Duration(4 * time.Second)}
		began := time.Now()
		got, err := c.Client.Run(c.Controls[1], req)
		if err != nil {
			t.Fatal(err)
		}
		if got.Outcome != api.OutcomeExited || *got.ExitCode != 3 || len(got.Attempts) != 3 || got.Stdout.Data != "out" {
			t.Errorf("got %s after %d attempts with %q, want exited 3 after 3 with the last one's output", got.Outcome, len(got.Attempts), got.Stdout.Data)
		}
		nodes := map[string]bool{}
		for _, a := range got.Attempts {
			if nodes[a.Node] = true; a.ExitCode == nil || *a.ExitCode != 3 {
				t.Errorf("got attempt %+v, want its exit code 3", a)
			}
		}
		if len(nodes) != 3 {
			t.Errorf("it ran on %v, want another node each time", nodes)
		}
		if took := time.Since(began); took < 12*time.Second || took > 19*time.Second {
			t.Errorf("took %s, want pauses of 4 and 8 s and up to half more", took)
		}
		req.Retry.Backoff = api.Duration(time.Hour)
		id, err := c.Client.Submit(context.Background(), "paused", req)
		if err != nil {
			t.Fatal(err)
		}
		c.Until(10*time.Second, "it backs off and says so", func() bool {
			now := get(c, id)
			return now.State == api.StatePending && !now.NotBefore.IsZero() && strings.HasPrefix(now.WaitingBecause, "attempt 1 exited with code 3")
		})
		if _, err := c.Client.Do(context.Background(), c.Controls[2], http.MethodPost, "/v2/tasks/"+id+"/cancel", "", nil, new(api.Task)); err != nil {
			t.Fatal(err)
		}
		if now := get(c, id); now.Outcome != api.OutcomeCancelled {
			t.Errorf("got %s, want cancelled", now.Outcome)
		}
		c.Settle(time.Minute)
		c.CheckInvariants()
	})
}

// Agents whose process is killed and comes back within their lease: every
// program goes on, and the callers see nothing of it.
func TestRestartedAgentsGoOnWithWhatRuns(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{Agents: 6, Seed: 3}, func(c *ecstest.Cluster) {
		rng := rand.New(rand.NewPCG(3, 3))
		ids := map[string]bool{}
		for i := range 24 {
			req := writer(40*time.Second, rng)
			if i%2 == 0 {
				req.Delivery = api.DeliveryAtMostOnce
			}
			id, err := c.Client.Submit(context.Background(), fmt.Sprint("go-on-", i), req)
			if err != nil {
				t.Fatal(err)
			}
			ids[id] = true
		}
		for range 3 {
			time.Sleep(9 * time.Second)
			c.Kill(c.Agents...)
			time.Sleep(2 * time.Second)
			for _, a := range c.Agents {
				a.Revive()
			}
		}
		c.Settle(5 * time.Minute)
		for id := range ids {
			if got := get(c, id); got.Outcome != api.OutcomeExited || len(got.Attempts) != 1 {
				t.Errorf("%s: got %s after %d attempts, want exited after the first", id, got.Outcome, len(got.Attempts))
			}
		}
		c.CheckInvariants()
	})
}

func TestALostLeaderFencesNobody(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{}, func(c *ecstest.Cluster) {
		id, err := c.Client.Submit(context.Background(), "long", ecstest.Script("sleep", "4m"))
		if err != nil {
			t.Fatal(err)
		}
		c.Until(10*time.Second, "it runs", func() bool { return get(c, id).State == api.StateRunning })
		for range 5 {
			leader := c.Leader()
			leader.Crash()
			c.Until(10*time.Second, "another leads", func() bool { l := c.Leader(); return l != nil && l != leader })
			time.Sleep(15 * time.Second)
			leader.Restart()
			time.Sleep(5 * time.Second)
		}
		c.Settle(10 * time.Minute)
		if got := get(c, id); got.Outcome != api.OutcomeExited || len(got.Attempts) != 1 {
			t.Errorf("got %s after %d attempts, want exited after the first", got.Outcome, len(got.Attempts))
		}
		c.CheckInvariants()
	})
}

func TestAPartitionedAgentRejoins(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{}, func(c *ecstest.Cluster) {
		a := c.Agents[0]
		for _, n := range c.Controls {
			c.Net.Cut(string(a.ID()), n.Name())
		}
		time.Sleep(2 * time.Minute)
		c.Net.HealAll()
		c.Until(time.Minute, "the agent is registered again", func() bool {
			for n := range c.Leader().Snapshot().Nodes() {
				if n.ID == a.ID() {
					return n.Takes()
				}
			}
			return false
		})
		c.CheckInvariants()
	})
}

// get reads a task from the node that leads, or any that answers.
func get(c *ecstest.Cluster, id string) api.Task {
	c.T.Helper()
	var t api.Task
	c.Until(20*time.Second, "some node answers for "+id, func() bool {
		for _, n := range c.Controls {
			if !n.Up() {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			status, err := c.Client.Do(ctx, n, http.MethodGet, "/v2/tasks/"+id, "", nil, &t)
			cancel()
			if err == nil && status == http.StatusOK {
				return true
			}
		}
		return false
	})
	return t
}

// TestAProgramThatEndsSlowlyNeverOverlaps cuts agents off whose engines take up
// to 3.9 s to end a program: the two seconds ahead of the lease's end and the
// margin behind it must cover that. They are cut off one after another, so that
// some have just had an answer: these have the least time. Without the margin
// several of the 50 repeated attempts would overlap.
func TestAProgramThatEndsSlowlyNeverOverlaps(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{Agents: 16, SlowKill: 3900 * time.Millisecond, Seed: 7}, func(c *ecstest.Cluster) {
		for i := range 80 {
			req := ecstest.Script("sleep", "45s")
			req.Resources = api.Resources{CPU: api.CPU(50), Memory: 32 << 20}
			if _, err := c.Client.Submit(context.Background(), fmt.Sprint("slow-", i), req); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		for _, a := range c.Agents[:10] {
			for _, n := range c.Controls {
				c.Net.Cut(string(a.ID()), n.Name())
			}
			time.Sleep(270 * time.Millisecond)
		}
		time.Sleep(30 * time.Second)
		c.Net.HealAll()
		c.Settle(5 * time.Minute)
		c.CheckInvariants()
		again := 0
		for id := range c.Client.Accepted() {
			again += len(get(c, id).Attempts) - 1
		}
		if again < 30 {
			t.Errorf("only %d attempts were repeated: the cut did not bite", again)
		}
	})
}
