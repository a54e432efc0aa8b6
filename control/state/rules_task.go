package state

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	"ecs/internal/task"
)

func (cmd Submit) apply(c *change) Outcome {
	if cmd.Task == nil || cmd.Task.ID == "" {
		return refuse(task.CodeBadRequest, "a task needs an id")
	}
	if known := c.task(cmd.Task.ID); known != nil {
		return Outcome{Task: known, Existed: true}
	}
	if cmd.Task.Key != "" && keysCheckedHere {
		if known := c.byKey(cmd.Task.Owner, cmd.Task.Key); known != nil {
			return sameKey(known, cmd.Task)
		}
	}
	t := *cmd.Task
	t.Seq = c.stamp()
	t.State = task.Pending
	t.SubmittedAt = c.now
	t.StopAs, t.BackingOff, t.Attempts, t.Result = "", false, nil, nil
	t.FinishedAt = time.Time{}
	if c.counts.BackingOff >= c.limits.MaxPending || c.counts.BackingOffBytes >= c.limits.MaxPendingBytes {
		return refuse(task.CodeQueueFull, fmt.Sprintf("%d tasks back off before they run again already", c.counts.BackingOff))
	}
	if err := c.rest(&t, cmd.Quota); err != nil {
		return Outcome{Err: err}
	}
	if n := c.node(cmd.Node); n != nil && holds(Decision{Attempt: 1, Epoch: cmd.Epoch}, &t, n) {
		c.assign(&t, n)
		c.add(&t)
		return Outcome{Task: &t}
	}
	if c.counts.Pending >= c.limits.MaxPending {
		return refuse(task.CodeQueueFull, fmt.Sprintf("%d tasks wait for a node already", c.counts.Pending))
	}
	if c.counts.PendingBytes+Size(&t) > c.limits.MaxPendingBytes {
		return refuse(task.CodeQueueFull, fmt.Sprintf("the tasks that wait for a node hold %d MiB already",
			c.counts.PendingBytes>>20))
	}
	if err := c.share(&t, cmd.Quota); err != nil {
		return Outcome{Err: err}
	}
	c.add(&t)
	return Outcome{Task: &t}
}

func sameKey(known, asked *task.Task) Outcome {
	if !bytes.Equal(known.BodyMAC, asked.BodyMAC) {
		return refuse(task.CodeKeyConflict, "this idempotency key was used for another task")
	}
	return Outcome{Task: known, Existed: true}
}

// apply checks every decision again: it was made on an older snapshot. What no
// longer holds is skipped and its task stays pending.
func (cmd Place) apply(c *change) Outcome {
	var out Outcome
	for _, d := range cmd.Decisions {
		t, n := c.task(d.Task), c.node(d.Node)
		if t == nil || n == nil || !holds(d, t, n) {
			continue
		}
		next := c.assigned(t, n)
		next.Bill.Queued = d.Queued
		c.put(t, next)
		out.Placed = append(out.Placed, t.ID)
	}
	return out
}

// assigned copies a task with its next attempt, on the node.
func (c *change) assigned(t *task.Task, n *task.Node) *task.Task {
	next := *t
	c.assign(&next, n)
	return &next
}

// assign gives a task that is in no record yet its next attempt, on the node.
func (c *change) assign(t *task.Task, n *task.Node) {
	t.State = task.Assigned
	t.Attempts = append(slices.Clip(t.Attempts), task.Attempt{
		Number:   len(t.Attempts) + 1,
		Node:     n.ID,
		Zone:     n.Zone,
		Epoch:    n.Epoch,
		PlacedAt: c.now,
	})
}

func holds(d Decision, t *task.Task, n *task.Node) bool {
	return t.State == task.Pending && !t.BackingOff && t.StopAs == "" && d.Attempt == len(t.Attempts)+1 &&
		n.Takes() && n.Epoch == d.Epoch && n.Free().Fits(t.Spec.Resources)
}

func (cmd Progress) apply(c *change) Outcome {
	t := c.held(cmd.Token)
	if t == nil || !speaksFor(cmd.Node, t) {
		return c.stale(cmd.Token)
	}
	if t.State == task.Running {
		return Outcome{Task: t}
	}
	next := *t
	next.State = task.Running
	next.Attempts = slices.Clone(t.Attempts)
	next.Live().StartedAt = cmd.StartedAt
	c.put(t, &next)
	return Outcome{Task: &next}
}

// speaksFor reports whether the node may report the task's live attempt: it is
// on it. Entries of before nodes were noted name none.
func speaksFor(node task.NodeID, t *task.Task) bool {
	return node == "" || node == t.Live().Node || !tokensChecked
}

func (cmd Finish) apply(c *change) Outcome {
	t := c.held(cmd.Token)
	if t == nil || !speaksFor(cmd.Node, t) {
		return c.stale(cmd.Token)
	}
	if !slices.Contains(task.Outcomes(), cmd.Result.Outcome) {
		return refuse(task.CodeBadRequest, fmt.Sprintf("%q is not an outcome", cmd.Result.Outcome))
	}
	next := c.endAttempt(t, cmd.Result.Outcome, cmd.Result.Reason)
	if ended := &next.Attempts[len(next.Attempts)-1]; ended.StartedAt.IsZero() {
		ended.StartedAt = cmd.StartedAt
	}
	result := cmd.Result
	result.Attempt = cmd.Token.Attempt
	if !c.repeat(next, &result) {
		next.Bill = merged(next.Bill, cmd.Bill)
		c.finish(next, settled(next, result))
	}
	c.put(t, next)
	return Outcome{Task: next}
}

func (cmd LoseAttempt) apply(c *change) Outcome {
	t := c.held(cmd.Token)
	if t == nil {
		return c.stale(cmd.Token)
	}
	reason := cmp.Or(cmd.Reason, "its lease ended while its node was out of contact")
	return Outcome{Task: c.lose(t, reason), Lost: []task.Token{cmd.Token}}
}

func (cmd Stop) apply(c *change) Outcome {
	if cmd.Outcome != task.Cancelled && cmd.Outcome != task.DeadlineExceeded {
		return refuse(task.CodeBadRequest, fmt.Sprintf("a task can't be stopped as %q", cmd.Outcome))
	}
	t := c.task(cmd.Task)
	if t == nil || cmd.Owner != "" && cmd.Owner != t.Owner {
		return refuse(task.CodeNotFound, "no such task")
	}
	if t.State == task.Finished || t.StopAs != "" {
		return Outcome{Task: t} // the first wish stands
	}
	next := *t
	next.StopAs = cmd.Outcome
	if t.State == task.Pending {
		c.finish(&next, task.Result{
			Outcome: cmd.Outcome,
			Reason:  cmp.Or(cmd.Reason, stopReason(t, cmd.Outcome)),
			Attempt: len(t.Attempts),
		})
	}
	c.put(t, &next)
	return Outcome{Task: &next}
}

func (cmd Expire) apply(c *change) Outcome {
	var out Outcome
	for _, id := range cmd.Tasks {
		t := c.task(id)
		if t == nil || t.State != task.Pending || t.BackingOff {
			continue
		}
		uncertain := uncertainSince(c.recoveredAt, t)
		if cmd.Held && !uncertain {
			continue // placed since, and lost again
		}
		next := *t
		result := task.Result{Outcome: task.QueueExpired, Attempt: len(t.Attempts)}
		switch {
		case !cmd.Held:
			result.Reason = fmt.Sprintf("no node had room for it within its queue limit of %v", t.Spec.Timeouts.Queue)
		case t.Spec.Delivery == task.AtMostOnce:
			result.Outcome, result.Reason = task.NodeLost, "the cluster was recovered; it may have run"
		default:
			result.Reason = fmt.Sprintf("the cluster was recovered, so that it may have run, and its queue limit of %v passed before the lease of that", t.Spec.Timeouts.Queue)
		}
		c.finish(&next, result)
		c.put(t, &next)
		out.Ended = append(out.Ended, id)
	}
	return out
}

func (cmd Resume) apply(c *change) Outcome {
	var out Outcome
	for _, id := range cmd.Tasks {
		if t := c.task(id); t != nil && t.BackingOff && !c.now.Before(t.RetryAt()) {
			c.resume(t)
			out.Ended = append(out.Ended, id)
		}
	}
	for _, w := range cmd.Waited {
		if t := c.task(w.Task); t != nil && t.BackingOff && len(t.Attempts) == w.Attempt {
			c.resume(t)
			out.Ended = append(out.Ended, w.Task)
		}
	}
	return out
}

// resume puts a task back into the queue, where its queue clock begins.
func (c *change) resume(t *task.Task) {
	next := *t
	next.BackingOff = false
	if c.rules >= sharesFailures || c.now.Before(t.RetryAt()) {
		next.Attempts = slices.Clone(t.Attempts)
		next.Attempts[len(next.Attempts)-1].RetryAt = c.now
	}
	c.put(t, &next)
}

func (cmd Forget) apply(c *change) Outcome {
	var out Outcome
	for _, id := range cmd.Tasks {
		if t := c.task(id); t != nil && t.State == task.Finished {
			c.drop(t)
			out.Ended = append(out.Ended, id)
		}
	}
	return out
}
