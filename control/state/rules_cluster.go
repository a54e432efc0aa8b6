package state

import "ecs/internal/task"

func (cmd Found) apply(c *change) Outcome {
	if c.cluster == "" {
		c.cluster = cmd.Cluster
	}
	return Outcome{}
}

func (cmd ForgetNodes) apply(c *change) Outcome {
	for _, gone := range cmd.Nodes {
		n := c.node(gone.Node)
		if n == nil || n.Epoch != gone.Epoch || n.Attempts > 0 || n.Status != task.Lost && n.Status != task.Left {
			continue
		}
		c.dropNode(n.ID)
	}
	return Outcome{}
}

// Recovered gives the record with which a cluster goes on that one survivor of a
// lost majority makes up alone: another incarnation, as of index, which must be
// beyond every one that the old cluster can have come to. recovery tells it from
// others of the same past; no two may have the same.
//
// Every registration and live attempt gets a new epoch, so that no token of the
// old incarnation is taken: its agents register anew and end what they run.
// What they ran is judged as ever, once they did or their leases are over. What
// waits, then or later, may run all the same: see Snapshot.Uncertain.
//
// No join token is left: one that was spent since would be good for another node.
func (s *Store) Recovered(index uint64, recovery string) *Snapshot {
	before := s.latest.Load()
	c := newChange(before, s.indexes, s.limits, index)
	c.incarnation++
	c.recovery, c.recoveredAt = recovery, index
	c.access.tokens.DeletePrefix(nil)
	for n := range before.Nodes() {
		c.ordinal = (c.ordinal + 1) % MaxCommands
		renewed := *n
		renewed.Epoch = c.stamp()
		c.putNode(&renewed)
		for _, t := range c.liveOn(n.ID) {
			next := *t
			next.Attempts = append([]task.Attempt(nil), t.Attempts...)
			next.Attempts[len(next.Attempts)-1].Epoch = renewed.Epoch
			c.put(t, &next)
		}
	}
	c.renewRing()
	after, notify := c.commit()
	s.latest.Store(after)
	notify()
	return after
}
