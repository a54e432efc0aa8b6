package control

import (
	"fmt"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
)

// uncertain holds back the tasks that may run on the word of control nodes that were
// lost, until that has run out: for each its lease and the margin from when this
// node began to lead. It is for one caller at a time.
type uncertain struct {
	store *state.Store
	began time.Time
	next  time.Time // the first of those that were held back comes free
	lost  []task.ID // have come free, and may not run
	held  int       // all that the last look passed over
}

// until is when a task may be placed; zero when nothing holds it back.
func (u *uncertain) until(sn *state.Snapshot, t *task.Task) time.Time {
	if !sn.Uncertain(t) {
		return time.Time{}
	}
	return u.began.Add(max(t.Spec.Lease, task.DefaultLease) + task.LeaseMargin)
}

// waits reports whether a task must not be placed: not yet, or, an at-most-once one,
// never. Those of the latter kind that have waited for their lease are lost.
func (u *uncertain) waits(t *task.Task) bool {
	until := u.until(u.store.Snapshot(), t)
	switch {
	case until.IsZero():
		return false
	case time.Now().Before(until):
		if u.next.IsZero() || until.Before(u.next) {
			u.next = until
		}
		u.held++
		return true
	case t.Spec.Delivery == task.AtMostOnce:
		if len(u.lost) < placeAtOnce {
			u.lost = append(u.lost, t.ID)
		}
		u.held++
		return true
	}
	return false
}

// look begins another look at all that waits.
func (u *uncertain) look() { u.next, u.lost, u.held = time.Time{}, nil, 0 }

// holds reports whether a task is held back now.
func (u *uncertain) holds(sn *state.Snapshot, t *task.Task) bool {
	until := u.until(sn, t)
	return !until.IsZero() && (t.Spec.Delivery == task.AtMostOnce || time.Now().Before(until))
}

// explain says why a task is held back, "" when it is not.
func (u *uncertain) explain(sn *state.Snapshot, t *task.Task) string {
	if !u.holds(sn, t) {
		return ""
	}
	what := "it waits for the end of its lease"
	if t.Spec.Delivery == task.AtMostOnce {
		what = "it ends node_lost with its lease"
	}
	return fmt.Sprintf("the cluster was recovered, and control nodes that were lost may have had it started: %s, at %s",
		what, u.until(sn, t).UTC().Format("2006-01-02T15:04:05Z07:00"))
}
