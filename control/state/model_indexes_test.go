package state_test

import (
	"maps"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
)

// indexes recounts everything that is kept in step with the tasks.
func (m *model) indexes() {
	sn := m.w.sn()
	var want state.Counts
	total, due := 0, 0
	keys := make(map[string]task.ID)
	seq := ^uint64(0)
	for t := range sn.Newest(0) {
		total++
		if t.Seq >= seq || sn.Task(t.ID) != t {
			m.Errorf("task %s is out of order or another", t.ID)
		}
		seq = t.Seq
		if _, ok := state.Deadline(t); ok {
			due++
		}
		switch {
		case t.BackingOff:
			want.BackingOff++
			want.BackingOffBytes += state.Size(t)
		case t.State == task.Pending:
			want.Pending++
			want.PendingBytes += state.Size(t)
		case t.State == task.Finished:
			want.Finished++
			want.FinishedBytes += state.Size(t)
		default:
			want.Live++
		}
		if t.Key == "" {
			continue
		}
		if other, ok := keys[t.Owner+"/"+t.Key]; ok {
			m.Errorf("tasks %s and %s have one key", t.ID, other)
		}
		keys[t.Owner+"/"+t.Key] = t.ID
		if sn.ByKey(t.Owner, t.Key) != t {
			m.Errorf("key %q of %s does not lead to %s", t.Key, t.Owner, t.ID)
		}
	}
	if got := sn.Counts(); got != want {
		m.Errorf("counts: got %+v, want %+v", got, want)
	}
	sizes := map[string]int{"accepted": total, "owners": total, "keys": len(keys), "ended": want.Finished, "due": due}
	sizes["on"] = want.Live // and a place for every node
	for range sn.Nodes() {
		sizes["on"]++
	}
	if got := sn.IndexSizes(); !maps.Equal(got, sizes) {
		m.Errorf("indexes: got %v, want %v", got, sizes)
	}
	if total != len(m.accepted) {
		m.Errorf("got %d tasks, want the %d accepted", total, len(m.accepted))
	}
	m.lists(sn, want, due)
}

func (m *model) lists(sn *state.Snapshot, want state.Counts, due int) {
	n, seq := 0, uint64(0)
	for t := range sn.Pending() {
		if n++; t.Seq <= seq || t.State != task.Pending || t.BackingOff || sn.Task(t.ID) != t {
			m.Errorf("pending: %s is out of place", t.ID)
		}
		seq = t.Seq
	}
	ended := 0
	var at time.Time
	for t := range sn.Ended() {
		if ended++; t.FinishedAt.Before(at) || t.State != task.Finished {
			m.Errorf("ended: %s is out of place", t.ID)
		}
		at = t.FinishedAt
	}
	live := 0
	for node := range sn.Nodes() {
		for t := range sn.On(node.ID) {
			if live++; t.Live() == nil || t.Live().Node != node.ID || sn.Task(t.ID) != t {
				m.Errorf("on %s: %s is out of place", node.ID, t.ID)
			}
		}
	}
	deadlines := 0
	at = time.Time{}
	for when, t := range sn.Deadlines() {
		d, ok := state.Deadline(t)
		if deadlines++; !ok || !when.Equal(d) || when.Before(at) {
			m.Errorf("deadlines: %s at %v is out of place", t.ID, when)
		}
		at = when
	}
	if n != want.Pending || ended != want.Finished || live != want.Live || deadlines != due {
		m.Errorf("got %d pending, %d ended, %d live, %d due, want %+v, %d due", n, ended, live, deadlines, want, due)
	}
}
