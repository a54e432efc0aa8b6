package check

import (
	"slices"
	"time"
)

const (
	lease  = 10 * time.Second
	margin = 2 * time.Second
	// grace is what S12 gives a program that is to end.
	grace = 5 * time.Second
)

// lives checks by what programs say of themselves: S5, that never two of one
// task are alive; S6; and S3, that what the record calls the end of a program
// that ran was one.
func (r *report) lives(h *History) {
	byTask := make(map[string][]Life)
	for _, l := range h.Lives {
		byTask[l.Task] = append(byTask[l.Task], l)
	}
	records := firstFinals(h)
	for _, id := range sorted(byTask) {
		lives := byTask[id]
		slices.SortFunc(lives, func(a, b Life) int { return int(a.First - b.First) })
		for i := 1; i < len(lives); i++ {
			if before := lives[i-1]; lives[i].First <= before.Last {
				r.add("S5", "task %s: attempt %d on %s lived until %s, attempt %d on %s from %s", id,
					before.Attempt, before.Node, before.Last, lives[i].Attempt, lives[i].Node, lives[i].First)
			}
			if lives[i].Attempt <= lives[i-1].Attempt {
				r.add("S5", "task %s: attempt %d was started after attempt %d", id, lives[i].Attempt, lives[i-1].Attempt)
			}
		}
		t, known := records[id]
		if !known {
			continue // S1 and S8 say so
		}
		if h.Tasks[t.Key].AtMostOnce && len(lives) > 1 {
			r.add("S6", "at-most-once task %s was started %d times", id, len(lives))
		}
		for _, l := range lives {
			if l.Attempt > len(t.Attempts) {
				r.add("S4", "task %s: a program says it is attempt %d, the record has %d", id, l.Attempt, len(t.Attempts))
			}
		}
	}
	for id, t := range records {
		if t.Outcome == exited && len(byTask[id]) == 0 {
			r.add("S11", "task %s exited and its program never lived", id)
		}
	}
}

func firstFinals(h *History) map[string]Record {
	for _, node := range sorted(h.Finals) {
		return byID(h.Finals[node])
	}
	return nil
}

// cancels checks S12: after a cancel was acknowledged there is no attempt that
// was not there then, and the program is gone soon; where its agent is out of
// contact that takes until its lease is over.
func (r *report) cancels(h *History) {
	records := firstFinals(h)
	for _, op := range h.Ops {
		if op.Kind != Cancel || op.Result != OK {
			continue
		}
		id := op.Seen.ID
		if t, known := records[id]; known && len(t.Attempts) > len(op.Seen.Attempts) {
			r.add("S12", "task %s had %d attempts when its cancellation was acknowledged and %d at the end", id, len(op.Seen.Attempts), len(t.Attempts))
		}
		most := op.Return + max(lease, h.Tasks[op.Key].Lease) + margin + grace
		if quiet(h, op.Call, op.Return+grace) {
			most = op.Return + grace
		}
		for _, l := range h.Lives {
			if l.Task == id && l.Last > most {
				r.add("S12", "task %s was cancelled by %s and lived until %s", id, op.Return, l.Last)
			}
		}
	}
}

// quiet reports whether there was no fault between two times, and a lease before.
func quiet(h *History, from, to time.Duration) bool {
	for _, f := range h.Faults {
		if f.Begin < to && f.End+lease > from {
			return false
		}
	}
	return true
}
