package state

import (
	"fmt"

	"ecs/internal/task"
)

func (cmd Register) apply(c *change) Outcome {
	n := cmd.Node
	if !validNodeID(n.ID) {
		return refuse(task.CodeBadRequest, "a node needs an id without a zero byte")
	}
	n.Epoch = c.stamp()
	n.RegisteredAt = c.now
	n.Reserved, n.Attempts = task.Capacity{}, 0
	if old := c.node(n.ID); old != nil {
		n.Drain = old.Drain
		n.Reserved, n.Attempts = old.Reserved, old.Attempts
	}
	n.Status = standing(n.Drain)
	c.putNode(&n)

	out := Outcome{}
	claimed := make(map[task.Token]bool, len(cmd.Running))
	for _, tok := range cmd.Running {
		if t := c.held(tok); t == nil || t.Live().Node != n.ID {
			out.Forget = append(out.Forget, tok)
			continue
		}
		claimed[tok] = true
	}
	for _, t := range c.liveOn(n.ID) {
		if tok := t.Live().Token(t.ID); !claimed[tok] {
			c.lose(t, "the node came back without it")
			out.Lost = append(out.Lost, tok)
		}
	}
	out.Node = c.node(n.ID)
	return out
}

// standing is the status of a node that holds its lease.
func standing(drain bool) task.NodeStatus {
	if drain {
		return task.Draining
	}
	return task.Ready
}

func (cmd LoseNode) apply(c *change) Outcome {
	old := c.node(cmd.Node)
	if old == nil || old.Epoch != cmd.Epoch {
		out := refuse(task.CodeStale, fmt.Sprintf("epoch %d of node %s is over", cmd.Epoch, cmd.Node))
		out.Node = old
		return out
	}
	n := *old
	reason := fmt.Sprintf("node %s was not heard from for longer than the lease", n.ID)
	switch {
	case cmd.Left:
		n.Status = task.Left
		reason = fmt.Sprintf("node %s left the cluster", n.ID)
	case n.Status != task.Left:
		n.Status = task.Lost
	}
	c.putNode(&n)

	var out Outcome
	for _, t := range c.liveOn(n.ID) {
		if !cmd.Left && t.Spec.Lease > cmd.Lease {
			continue // its program may still run; LoseAttempt ends it later
		}
		out.Lost = append(out.Lost, t.Live().Token(t.ID))
		c.lose(t, reason)
	}
	out.Node = c.node(n.ID)
	return out
}

func (cmd SetNode) apply(c *change) Outcome {
	old := c.node(cmd.Node)
	if old == nil {
		return refuse(task.CodeNotFound, "no such node")
	}
	n := *old
	if cmd.Unfit != nil {
		if cmd.Epoch != n.Epoch {
			out := refuse(task.CodeStale, fmt.Sprintf("epoch %d of node %s is over", cmd.Epoch, cmd.Node))
			out.Node = old
			return out
		}
		n.Unfit = *cmd.Unfit
	}
	if cmd.Drain != nil {
		n.Drain = *cmd.Drain
		if n.Status == task.Ready || n.Status == task.Draining {
			n.Status = standing(n.Drain)
		}
	}
	c.putNode(&n)
	return Outcome{Node: &n}
}
