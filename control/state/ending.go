package state

import (
	"cmp"
	"fmt"
	"slices"

	"ecs/internal/task"
)

// endAttempt copies a task with its live attempt ended. The caller decides what
// becomes of the task.
func (c *change) endAttempt(t *task.Task, o task.Outcome, reason string) *task.Task {
	next := *t
	next.Attempts = slices.Clone(t.Attempts)
	live := next.Live()
	live.Outcome = o
	live.Reason = reason
	live.EndedAt = c.now
	return &next
}

// lose ends the live attempt of a task whose node is gone: the task goes back
// to the queue or ends.
func (c *change) lose(t *task.Task, reason string) *task.Task {
	next := c.endAttempt(t, task.NodeLost, reason)
	result := task.Result{Outcome: task.NodeLost, Reason: reason, Attempt: len(next.Attempts)}
	if !c.repeat(next, &result) {
		c.finish(next, settled(next, result))
	}
	c.put(t, next)
	return next
}

// repeat sends a task whose attempt has ended back to Pending, if one of its
// budgets allows another. An at-most-once attempt may have started even where
// nobody saw it start. What was lost for the first time goes straight into the
// queue, for its node is avoided; what is lost again, and a program that failed,
// backs off.
func (c *change) repeat(t *task.Task, r *task.Result) bool {
	if t.StopAs != "" || t.Spec.Delivery == task.AtMostOnce && keepsAtMostOnce {
		return false
	}
	lost, failed := t.Failures()
	switch {
	case r.Outcome.Infrastructure():
		if lost > t.Spec.InfrastructureRetries {
			return false
		}
		if c.rules >= pausesLosses {
			c.pauseLoss(t, lost)
		}
	case !t.Spec.ProgramFailed(r) || failed > t.Spec.ProgramRetries:
		return false
	default:
		at := c.now.Add(t.Spec.Pause(t.ID, failed))
		if total := t.Spec.Timeouts.Total; total > 0 && !at.Before(t.SubmittedAt.Add(total)) {
			return false // how this attempt ended says more than a limit that ran out
		}
		last := &t.Attempts[len(t.Attempts)-1]
		last.ExitCode, last.HasExit, last.RetryAt = r.ExitCode, r.HasExit, at
		t.BackingOff = true
	}
	t.State = task.Pending // its place in the queue is its old one
	return true
}

// pauseLoss has a task back off whose attempts are lost again and again, unless its
// total limit leaves no time for that.
func (c *change) pauseLoss(t *task.Task, lost int) {
	at := c.now.Add(t.Spec.InfrastructurePause(t.ID, lost))
	total := t.Spec.Timeouts.Total
	if at.After(c.now) && (total == 0 || at.Before(t.SubmittedAt.Add(total))) {
		t.Attempts[len(t.Attempts)-1].RetryAt = at
		t.BackingOff = true
	}
}

// settled is the task's result, given how its last attempt ended. A task that
// was asked to stop ends as asked, unless its program had ended by itself
// before the wish reached it: then that is what happened.
func settled(t *task.Task, r task.Result) task.Result {
	switch r.Outcome {
	case task.Exited, task.OOMKilled, task.TimedOut:
		return r
	}
	switch {
	case t.StopAs == "":
		lost, _ := t.Failures()
		if r.Outcome.Infrastructure() && t.Spec.Delivery != task.AtMostOnce && lost > 1 {
			r.Reason = fmt.Sprintf("%s (attempt %d, the last that its retries allow)", r.Reason, len(t.Attempts))
		}
	case t.StopAs == r.Outcome:
		r.Reason = cmp.Or(r.Reason, stopReason(t, t.StopAs))
	default:
		r.Outcome, r.Reason = t.StopAs, stopReason(t, t.StopAs)
	}
	return r
}

// finish gives a task its one result. What only an attempt may know leaves the
// record with it.
func (c *change) finish(t *task.Task, r task.Result) {
	t.State = task.Finished
	t.BackingOff = false
	t.Result = &r
	t.FinishedAt = c.now
	t.Spec = t.Spec.Wiped()
	t.Bill.LeaderTotal = max(0, c.now.Sub(t.SubmittedAt)) // leaders' clocks may differ
	c.over = append(c.over, t)
}

func stopReason(t *task.Task, o task.Outcome) string {
	if o == task.DeadlineExceeded {
		return fmt.Sprintf("over its total limit of %v", t.Spec.Timeouts.Total)
	}
	return "cancelled on request"
}

// stale refuses a token that does not name a live attempt.
func (c *change) stale(tok task.Token) Outcome {
	out := refuse(task.CodeStale, fmt.Sprintf("attempt %d of task %s in epoch %d is not live", tok.Attempt, tok.Task, tok.Epoch))
	out.Task = c.task(tok.Task)
	return out
}

// merged adds the parts of a bill that come with a result to those that the
// record has.
func merged(b, with task.Bill) task.Bill {
	return task.Bill{
		Accepted:  cmp.Or(with.Accepted, b.Accepted),
		Committed: cmp.Or(with.Committed, b.Committed),
		Queued:    cmp.Or(with.Queued, b.Queued),
		Placed:    cmp.Or(with.Placed, b.Placed),
		Assigned:  cmp.Or(with.Assigned, b.Assigned),
		Image:     cmp.Or(with.Image, b.Image),
		Create:    cmp.Or(with.Create, b.Create),
		Start:     cmp.Or(with.Start, b.Start),
		Run:       cmp.Or(with.Run, b.Run),
		Output:    cmp.Or(with.Output, b.Output),
		Reported:  cmp.Or(with.Reported, b.Reported),
		Warm:      cmp.Or(with.Warm, b.Warm),
	}
}
