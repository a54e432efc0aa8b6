package ecstest

import (
	"fmt"
	"slices"
	"time"
)

// Fault is one thing that goes wrong and is mended.
type Fault struct {
	Name string
	// Break breaks something and returns what mends it.
	Break func(c *Cluster) (mend func())
}

// Faults are the kinds that a schedule draws from.
func Faults() []Fault {
	return []Fault{
		{"crash the leader", func(c *Cluster) func() {
			if l := c.Leader(); l != nil {
				l.Crash()
				return l.Restart
			}
			return nil
		}},
		{"crash a control node", func(c *Cluster) func() {
			n := c.Controls[c.Client.pick(len(c.Controls))]
			if !n.Up() {
				return nil
			}
			n.Crash()
			return n.Restart
		}},
		{"crash an agent's machine", func(c *Cluster) func() {
			a := c.Agents[c.Client.pick(len(c.Agents))]
			if !a.Up() {
				return nil
			}
			a.Crash()
			return a.Restart
		}},
		{"kill agents, and start them again soon", func(c *Cluster) func() {
			agents := c.killSome()
			time.Sleep(time.Duration(c.Client.pick(3_000)) * time.Millisecond)
			for _, a := range agents {
				a.Revive()
			}
			return func() {}
		}},
		{"kill agents", func(c *Cluster) func() {
			agents := c.killSome()
			return func() {
				for _, a := range agents {
					a.Revive()
				}
			}
		}},
		{"cut an agent off", func(c *Cluster) func() {
			a := c.Agents[c.Client.pick(len(c.Agents))]
			for _, n := range c.Controls {
				c.Net.Cut(a.host.Name(), n.host.Name())
			}
			return func() {
				for _, n := range c.Controls {
					c.Net.Heal(a.host.Name(), n.host.Name())
				}
			}
		}},
		{"an agent hears nothing", func(c *Cluster) func() {
			a := c.Agents[c.Client.pick(len(c.Agents))]
			for _, n := range c.Controls {
				c.Net.CutOneWay(n.host.Name(), a.host.Name())
			}
			return func() {
				for _, n := range c.Controls {
					c.Net.Heal(a.host.Name(), n.host.Name())
				}
			}
		}},
		{"cut the leader off from the others", func(c *Cluster) func() {
			l := c.Leader()
			if l == nil {
				return nil
			}
			for _, n := range c.Controls {
				if n != l {
					c.Net.Cut(l.host.Name(), n.host.Name())
				}
			}
			return func() {
				for _, n := range c.Controls {
					if n != l {
						c.Net.Heal(l.host.Name(), n.host.Name())
					}
				}
			}
		}},
		{"slow links", func(c *Cluster) func() {
			each := func(d, jitter time.Duration) {
				for _, n := range c.Controls {
					for _, a := range c.Agents {
						c.Net.Delay(n.host.Name(), a.host.Name(), d, jitter)
					}
				}
			}
			each(100*time.Millisecond, 50*time.Millisecond)
			return func() { each(0, 0) }
		}},
	}
}

// killSome kills up to a quarter of the agents' processes.
func (c *Cluster) killSome() (killed []*Agent) {
	for range 1 + c.Client.pick(max(1, len(c.Agents)/4)) {
		if a := c.Agents[c.Client.pick(len(c.Agents))]; a.Up() && !slices.Contains(killed, a) {
			killed = append(killed, a)
		}
	}
	c.Kill(killed...)
	return killed
}

// Disturb breaks and mends by the cluster's seed until the rounds are over,
// then mends everything. Each round one or two faults last 1 to 25 seconds: some
// outlive a lease, some do not.
func (c *Cluster) Disturb(rounds int) (log []string) {
	kinds := Faults()
	for range rounds {
		var mends []func()
		for range 1 + c.Client.pick(2) {
			f := kinds[c.Client.pick(len(kinds))]
			// A majority of control nodes stays up: without it nothing
			// moves, which is another test.
			if mend := f.Break(c); mend != nil {
				log = append(log, fmt.Sprintf("%s %s", time.Now().Format("04:05.000"), f.Name))
				mends = append(mends, mend)
			}
		}
		time.Sleep(time.Second + time.Duration(c.Client.pick(24_000))*time.Millisecond)
		for _, mend := range mends {
			mend()
		}
		time.Sleep(time.Duration(c.Client.pick(5_000)) * time.Millisecond)
	}
	c.Net.HealAll()
	return log
}
