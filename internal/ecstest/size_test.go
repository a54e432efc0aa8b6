package ecstest_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"ecs/internal/ecstest"
	"ecs/internal/task"
)

// load submits a task every 200 ms until it is stopped.
func load(t *testing.T, c *ecstest.Cluster) (stop func() int) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	submitted := 0
	running.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			req := ecstest.Script("sleep", fmt.Sprintf("%dms", 200+i%7*400))
			if i%3 == 0 {
				req.Delivery = string(task.AtMostOnce)
			}
			if _, err := c.Client.Submit(context.Background(), fmt.Sprint("load-", i), req); err != nil {
				t.Errorf("submit %d: %v", i, err)
			}
			submitted++
			time.Sleep(200 * time.Millisecond)
		}
	})
	return func() int {
		cancel()
		running.Wait()
		return submitted
	}
}

func TestClusterGrowsFromOneAndOneToFiveAndTwentyAndBackUnderLoad(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{Controls: 1, Agents: 1}, func(c *ecstest.Cluster) {
		stop := load(t, c)
		for range 4 {
			c.AddControl()
			time.Sleep(2 * time.Second)
		}
		for range 19 {
			c.AddAgent()
		}
		c.Ready(2*time.Minute, 5)
		time.Sleep(10 * time.Second)
		for len(c.Agents) > 1 {
			c.RemoveAgent(c.Agents[0])
		}
		for want := 4; want > 0; want-- {
			if err := c.RemoveControl(c.Controls[0]); err != nil {
				t.Fatalf("with %d left: %v", want, err)
			}
			time.Sleep(10 * time.Second)
		}
		c.Ready(time.Minute, 1)
		if n := stop(); n < 100 {
			t.Errorf("got %d submissions, want at least 100", n)
		}
		c.Settle(2 * time.Minute)
		c.CheckInvariants()
		if err := c.RemoveControl(c.Controls[0]); err == nil {
			t.Error("the last voter left, want it refused")
		}
	})
}

func TestVoterWithoutItsDataJoinsAgainEmpty(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{}, func(c *ecstest.Cluster) {
		if _, err := c.Client.Run(c.Controls[0], ecstest.Script("print", "before")); err != nil {
			t.Fatal(err)
		}
		for _, lost := range c.Controls {
			lost.Crash()
			lost.Lose()
			lost.Restart()
			c.Until(5*time.Second, "a leader without it", func() bool { return c.Leader() != nil })
			c.Until(time.Minute, "it has everything again, and a vote", func() bool {
				return lost.Snapshot().Cluster() != "" && c.Votes(lost)
			})
			c.Ready(time.Minute, 3)
			if _, err := c.Client.Run(lost, ecstest.Script("print", "after")); err != nil {
				t.Fatal(err)
			}
		}
		c.Settle(time.Minute)
		c.CheckInvariants()
	})
}

func TestFailedVoterGivesWayToItsReplacementAndDoesNotDisturb(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{}, func(c *ecstest.Cluster) {
		var failed *ecstest.Control
		for _, n := range c.Controls {
			if n != c.Leader() {
				failed = n
			}
		}
		failed.Crash()
		time.Sleep(time.Minute)
		if n := c.Voters(); n != 3 {
			t.Errorf("got %d voters with nobody to take the place, want all 3 kept", n)
		}
		c.AddControl()
		c.Until(time.Minute, "the new one votes and the failed one does not", func() bool {
			return c.Voters() == 3 && !c.Votes(failed)
		})
		leader := c.Leader()
		term, _ := leader.Leading()
		failed.Restart()
		time.Sleep(time.Minute)
		if now, leading := leader.Leading(); !leading || now != term {
			t.Errorf("got term %d leading %v after the failed one came back, want it undisturbed in %d", now, leading, term)
		}
		c.Settle(time.Minute)
		c.CheckInvariants()
	})
}

// What the cluster can do without when a leave begins it may need by its end.
func TestLeaveIsCalledOffWhenTheClusterComesToNeedTheNode(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{Drain: 10 * time.Second}, func(c *ecstest.Cluster) {
		leader := c.Leader()
		var others []*ecstest.Control
		for _, n := range c.Controls {
			if n != leader {
				others = append(others, n)
			}
		}
		for _, leaving := range []*ecstest.Control{others[0], leader} {
			left := make(chan error, 1)
			go func() { left <- c.RemoveControl(leaving) }()
			time.Sleep(5 * time.Second)
			others[1].Crash()
			err := <-left
			if err == nil || !strings.Contains(err.Error(), "called off") || !strings.Contains(err.Error(), "majority") {
				t.Fatalf("got %v, want the leave called off for the majority", err)
			}
			c.Until(10*time.Second, "it serves on as a voter", func() bool { return leaving.Up() && leaving.Ready() && c.Votes(leaving) })
			if _, err := c.Client.Run(leaving, ecstest.Script("print", "still here")); err != nil {
				t.Fatal(err)
			}
			others[1].Restart()
			c.Until(time.Minute, "all are back", others[1].Ready)
			time.Sleep(5 * time.Second) // it is heard of
		}
		if err := c.RemoveControl(others[0]); err != nil {
			t.Errorf("once all are back: %v", err)
		}
		c.Settle(time.Minute)
		c.CheckInvariants()
	})
}

func TestNodeThatWasTakenOutByForceStaysOutUntilItComesEmpty(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{}, func(c *ecstest.Cluster) {
		leader := c.Leader()
		gone := c.Controls[0]
		if gone == leader {
			gone = c.Controls[1]
		}
		gone.Crash()
		if err := c.ForceOut(gone); err != nil {
			t.Fatal(err)
		}
		if c.Named(gone) {
			t.Fatal("the configuration still names it")
		}
		gone.Restart()
		time.Sleep(time.Minute)
		if c.Named(gone) || gone.Ready() {
			t.Errorf("got named %v, ready %v a minute after it came back with its data, want neither", c.Named(gone), gone.Ready())
		}
		gone.Crash()
		gone.Lose()
		gone.Restart()
		c.Ready(time.Minute, 3)
		c.Settle(time.Minute)
		c.CheckInvariants()
	})
}
