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
}

// until is when a task may be placed; zero when nothing holds it back.
func (u *uncertain) until(sn *state.Snapshot, t *task.Task) time.Time {
	if !sn.Uncertain(t) {
		return time.Time{}
	}
	return u.began.Add(max(t.Spec.Lease, task.DefaultLease) + task.LeaseMargin)
}

// waits reports whether a task must not be placed yet.
func (u *uncertain) waits(t *task.Task) bool {
	until := u.until(u.store.Snapshot(), t)
	if !time.Now().Before(until) {
		return false
	}
	if u.next.IsZero() || until.Before(u.next) {
		u.next = until
	}
	return true
}

// explain says why a task is held back, "" when it is not.
func (u *uncertain) explain(sn *state.Snapshot, t *task.Task) string {
	until := u.until(sn, t)
	if !time.Now().Before(until) {
		return ""
	}
	return fmt.Sprintf("the cluster was recovered, and control nodes that were lost may have had it started: it waits for the end of its lease, at %s",
		until.UTC().Format("2006-01-02T15:04:05Z07:00"))
}
