package ecstest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"ecs/agent"
	"ecs/control/api"
	"ecs/internal/gossip"
)

// AddControl starts one more control node, which joins the cluster that runs.
func (c *Cluster) AddControl() *Control {
	c.numbered++
	n := &Control{c: c, host: c.Net.Host(fmt.Sprintf("c%d", c.numbered+c.opts.Controls)),
		zone: c.opts.Zones[len(c.Controls)%len(c.opts.Zones)], late: true}
	n.Start()
	c.Client.setControls(func(all []*Control) []*Control { return append(all, n) })
	return n
}

// AddAgent starts one more agent, with an engine of its own.
func (c *Cluster) AddAgent() *Agent {
	c.hired++
	a := newAgent(c, c.opts.Agents+c.hired-1)
	c.Agents = append(c.Agents, a)
	a.Start()
	return a
}

// RemoveControl has a control node leave in good order, and waits until it has.
func (c *Cluster) RemoveControl(n *Control) error {
	c.Client.setControls(func(all []*Control) []*Control {
		return slices.DeleteFunc(all, func(other *Control) bool { return other == n })
	})
	err := n.server.Leave(context.Background(), false, func(string) {})
	if err != nil {
		c.Client.setControls(func(all []*Control) []*Control { return append(all, n) })
		return err
	}
	<-n.done
	return nil
}

// ForceOut has the leader take a control node out that can't be asked.
func (c *Cluster) ForceOut(n *Control) error {
	_, err := c.Leader().server.SendAway(context.Background(), n.host.Name(), true)
	return err
}

// Named reports whether the configuration names a control node, as the leader sees it.
func (c *Cluster) Named(n *Control) bool {
	leader := c.Leader()
	if leader == nil {
		return false
	}
	return slices.ContainsFunc(leader.server.Info(context.Background()).Voters, func(v api.Voter) bool { return v.ID == n.host.Name() })
}

// RemoveAgent has an agent leave in good order, and waits until it has. Its engine
// and what ran there stay for the checks.
func (c *Cluster) RemoveAgent(a *Agent) {
	a.stop(agent.ErrForGood)
	c.Agents = slices.DeleteFunc(c.Agents, func(other *Agent) bool { return other == a })
	c.former = append(c.former, a)
}

// Lose has a control node's disk come back empty after a crash.
func (n *Control) Lose() { n.stores = nil }

// Voters counts who votes, as the leader sees it.
func (c *Cluster) Voters() (voters int) {
	leader := c.Leader()
	if leader == nil {
		return 0
	}
	for _, v := range leader.server.Info(context.Background()).Voters {
		if v.Voter {
			voters++
		}
	}
	return voters
}

// Ready waits until there is a leader, every agent takes tasks and so many vote.
func (c *Cluster) Ready(limit time.Duration, voters int) {
	c.T.Helper()
	c.Until(limit, fmt.Sprintf("%d voters and every agent registered", voters), func() bool {
		return c.Voters() == voters && c.ready()
	})
}

// through are the addresses of the control nodes there are now.
func (c *Cluster) through() []string {
	var addrs []string
	for _, n := range c.Controls {
		addrs = append(addrs, gossip.MemAddr(n.host.Name(), gossipPort))
	}
	return addrs
}

// Votes reports whether a control node votes, as the leader sees it.
func (c *Cluster) Votes(n *Control) bool {
	leader := c.Leader()
	if leader == nil {
		return false
	}
	for _, v := range leader.server.Info(context.Background()).Voters {
		if v.ID == n.host.Name() && v.Voter {
			return true
		}
	}
	return false
}

// Leading tells the term that the node knows, and whether it leads in it.
func (n *Control) Leading() (term uint64, leading bool) { return n.server.Leading() }

// Recover loses every control node but one, for good, and starts that one alone on what
// it makes of its log: the cluster's next incarnation.
func (c *Cluster) Recover(survivor *Control) {
	c.T.Helper()
	for _, n := range c.Controls {
		n.Crash()
	}
	if _, err := survivor.stores.Recover(survivor.host.Name()); err != nil {
		c.T.Fatalf("recover %s: %v", survivor.host.Name(), err)
	}
	c.Client.setControls(func([]*Control) []*Control { return []*Control{survivor} })
	survivor.Restart()
}
