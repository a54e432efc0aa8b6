package ecstest_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"ecs/internal/ecstest"
)

// rotated reports whether the nodes have the new key alone, the same one.
func rotated(c *ecstest.Cluster, controls []*ecstest.Control, agents []*ecstest.Agent) bool {
	want := ""
	same := func(_ uint64, keys int, encrypts string) bool {
		if want == "" {
			want = encrypts
		}
		return keys == 1 && encrypts == want
	}
	for _, n := range controls {
		if !same(n.Ring()) {
			return false
		}
	}
	for _, a := range agents {
		if !same(a.Ring()) {
			return false
		}
	}
	return true
}

// together reports whether every control node's gossip shows everybody.
func together(c *ecstest.Cluster) bool {
	for _, n := range c.Controls {
		if !n.Up() || n.Gossips() != len(c.Controls)+len(c.Agents) {
			return false
		}
	}
	return true
}

func leads(n *ecstest.Control) bool {
	_, leading := n.Leading()
	return leading
}

func others(c *ecstest.Cluster, but *ecstest.Control) (rest []*ecstest.Control) {
	for _, n := range c.Controls {
		if n != but {
			rest = append(rest, n)
		}
	}
	return rest
}

// One agent is cut off before and back after, one is down meanwhile, and the leader
// dies in the middle. The work goes on, everybody ends with the new key, also over a
// restart, and the old one opens nothing.
func TestTheGossipKeyRotatesUnderLoad(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{Agents: 5}, func(c *ecstest.Cluster) {
		stop := load(t, c)
		cut, down := c.Agents[3], c.Agents[4]
		c.Net.Isolate(string(cut.ID()))
		down.Crash()
		if err := c.Controls[1].RotateGossipKey(); err != nil {
			t.Fatal(err)
		}
		if err := c.Controls[2].RotateGossipKey(); err == nil || !strings.Contains(err.Error(), "under way") {
			t.Errorf("got %v for a second rotation, want it refused", err)
		}
		c.Until(10*time.Second, "those who are there know both keys", func() bool {
			for _, n := range c.Controls {
				if _, keys, _ := n.Ring(); keys != 2 {
					return false
				}
			}
			return true
		})
		leader := c.Leader()
		leader.Crash()
		c.Until(10*time.Second, "another leader", func() bool { return c.Leader() != nil && c.Leader() != leader })
		if step := c.Leader().Rotating(); step == "" {
			t.Error("the rotation was over before the leader died: this tests nothing")
		}
		leader.Restart()
		c.Until(3*time.Minute, "the rotation is over", func() bool {
			l := c.Leader()
			return l != nil && l.Rotating() == "" && rotated(c, c.Controls, c.Agents[:3])
		})
		if _, keys, _ := cut.Ring(); keys != 0 {
			t.Error("the one that is cut off has a ring: this tests nothing")
		}
		c.Net.HealAll()
		down.Restart()
		c.Until(time.Minute, "all have the new key and gossip with it", func() bool {
			return rotated(c, c.Controls, c.Agents) && together(c)
		})
		c.Ready(time.Minute, 3)
		outsider := c.Outsider("x1")
		time.Sleep(time.Minute)
		if n := outsider(); n != 1 || !together(c) {
			t.Errorf("with the old key one sees %d members, want itself alone, and nobody else sees it", n)
		}
		for _, n := range c.Controls {
			n.Crash()
			time.Sleep(10 * time.Second)
			n.Restart()
			c.Until(time.Minute, "it is back with the new key", func() bool { return together(c) && c.Leader() != nil })
		}
		if n := stop(); n < 100 {
			t.Errorf("got %d submissions, want at least 100", n)
		}
		c.Settle(2 * time.Minute)
		c.CheckInvariants()
	})
}

// A control node that is cut off while the key rotates has neither gossip nor the
// newest record when it is back.
func TestAControlNodeThatWasCutOffFindsItsWayBackAfterARotation(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{}, func(c *ecstest.Cluster) {
		cut := c.Leader()
		rest := others(c, cut)
		c.Net.Isolate(cut.Name())
		c.Until(20*time.Second, "another leader", func() bool { return leads(rest[0]) || leads(rest[1]) })
		c.Until(20*time.Second, "a rotation begins", func() bool { return rest[0].RotateGossipKey() == nil })
		c.Until(3*time.Minute, "it is over", func() bool { return rest[0].Rotating() == "" && rotated(c, rest, c.Agents) })
		c.Net.HealAll()
		c.Until(time.Minute, "the one that was cut off has the key", func() bool {
			return rotated(c, c.Controls, c.Agents) && together(c)
		})
		// Twice in a row works, and a restart of all at once comes back with it.
		if err := cut.RotateGossipKey(); err != nil {
			t.Fatal(err)
		}
		c.Until(time.Minute, "the second is over", func() bool {
			v, _, _ := cut.Ring()
			return cut.Rotating() == "" && v >= 6 && rotated(c, c.Controls, c.Agents)
		})
		for _, n := range c.Controls {
			n.Crash()
		}
		for _, n := range c.Controls {
			n.Restart()
		}
		c.Until(time.Minute, "all are together again", func() bool { return c.Leader() != nil && together(c) })
		c.Ready(time.Minute, 3)
		var record bytes.Buffer
		if err := cut.Snapshot().Write(&record); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(record.Bytes(), cut.Secret()) {
			t.Error("the key lies open in the snapshot")
		}
		c.Settle(time.Minute)
		c.CheckInvariants()
	})
}
