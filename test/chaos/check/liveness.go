package check

import "time"

const (
	settleWithin = 60 * time.Second // L1, beyond the longest task
	writeWithin  = 10 * time.Second // L2
	// replaceWithin is L3: lease, margin and 2 s, and once more lease and margin
	// where the leader was lost meanwhile, for a new one counts from its beginning;
	// an election has 3 s.
	replaceWithin = lease + margin + 2*time.Second
	replaceLate   = lease + margin + 3*time.Second
)

// liveness checks that what is owed comes in time: L1 to L6, and S17.
func (r *report) liveness(h *History) {
	switch {
	case h.Settled == 0:
		r.add("L1", "not every accepted task ended")
	case h.Settled-h.Healed > settleWithin+longest(h):
		r.add("L1", "the last task ended %s after the last fault", h.Settled-h.Healed)
	}
	r.writes(h)
	r.replaced(h)
	for _, node := range sorted(h.Members) {
		if got := h.Members[node]; got != h.Nodes {
			r.add("L4", "gossip of %s shows %d nodes, want %d", node, got, h.Nodes)
		}
	}
	for _, left := range h.Left {
		r.add("L5", "left behind: %s", left)
	}
	for _, name := range sorted(h.After) {
		// A process may have grown by what it does now and then; not by what it did
		// a thousand times.
		if before, after := h.Before[name], h.After[name]; after > 2*before+50 {
			r.add("S17", "%s: %d before the work, %d after it", name, before, after)
		}
	}
	for i := 1; i < len(h.QuietTerms); i++ {
		if h.QuietTerms[i] != h.QuietTerms[0] {
			r.add("L6", "the leader's term went from %d to %d without a fault", h.QuietTerms[0], h.QuietTerms[i])
		}
	}
	for _, op := range h.Ops {
		if op.Quiet && (op.Result == Failed || op.Result == Unknown) {
			r.add("L6", "%s through %s without a fault: %s", op.Kind, op.Node, op.Result)
		}
	}
}

// longest is the longest lease of a task: how long one may be waited for.
func longest(h *History) time.Duration {
	most := lease
	for _, t := range h.Tasks {
		most = max(most, t.Lease)
	}
	return most + margin
}

// writes checks L2: never longer than so without an accepted submission, while
// clients submit all the time.
func (r *report) writes(h *History) {
	last := h.Began
	for _, op := range sortedByReturn(h.Ops) {
		if op.Kind != Submit || op.Result != OK || op.Return > h.Healed {
			continue // a repeat counts: it is decided in the log, too
		}
		if gap := op.Return - last; gap > writeWithin {
			r.add("L2", "no submission was accepted for %s until %s", gap, op.Return)
		}
		last = op.Return
	}
	if gap := h.Healed - last; gap > writeWithin {
		r.add("L2", "no submission was accepted for %s until the end of the faults", gap)
	}
}

// replaced checks L3 by the agents that were gone for longer than it takes: the
// attempts that they had, under the usual lease, are given up in time.
func (r *report) replaced(h *History) {
	records := firstFinals(h)
	for _, f := range h.Faults {
		if f.Kind != AgentGone {
			continue
		}
		within := replaceWithin
		if leaderAtRisk(h, f.Begin, f.Begin+replaceWithin+replaceLate) {
			within += replaceLate
		}
		if f.End-f.Begin < within {
			continue
		}
		for _, l := range h.Lives {
			if l.Node != f.Target || l.First > f.Begin || l.Last < f.Begin {
				continue
			}
			t, known := records[l.Task]
			if !known || l.Attempt >= len(t.Attempts) || h.Tasks[t.Key].Lease > lease {
				continue
			}
			for _, next := range h.Lives {
				if next.Task == l.Task && next.Attempt == l.Attempt+1 && next.First > f.Begin+within {
					r.add("L3", "task %s: its agent %s was gone from %s, its next attempt began at %s", l.Task, f.Target, f.Begin, next.First)
				}
			}
		}
	}
}

// AgentGone is the kind of a fault that kills an agent for longer than its lease.
const AgentGone = "kill an agent for long"

func leaderAtRisk(h *History, from, to time.Duration) bool {
	for _, f := range h.Faults {
		if f.Leader && f.Begin < to && f.End > from-lease {
			return true
		}
	}
	return false
}
