package check

import (
	"cmp"
	"slices"
	"time"
)

const (
	settleWithin = 60 * time.Second // L1, beyond what a task takes
	writeWithin  = 10 * time.Second // L2
	// replaceWithin is L3: lease, margin and 2 s, counted from the fault, or from when
	// the last leader was surely in place, for a new one counts from its beginning.
	replaceWithin = lease + margin + 2*time.Second
	// electedWithin is how long after a fault that may cost the leader the next one
	// is in place: an election has 3 s, and what comes back may bring another.
	electedWithin = 5 * time.Second
	// heartbeat is how often an agent's lease is renewed, by more than it takes.
	heartbeat = 1500 * time.Millisecond
)

// liveness checks that what is owed comes in time: L1 to L6, and S17.
func (r *report) liveness(h *History) {
	if h.Settled == 0 {
		r.add("L1", "not every accepted task ended")
	}
	for _, t := range firstFinals(h) {
		if by := h.HealedAt.Add(settleWithin + takes(h.Tasks[t.Key])); t.State == finished && t.Finished.After(by) {
			r.add("L1", "task %s ended at %s, want by %s: the last fault was mended at %s", t.ID, t.Finished, by, h.HealedAt)
		}
	}
	r.writes(h)
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

// takes is how long a task may take by itself once nothing is broken: until an
// attempt that is out of contact is given up, and then every run that its program
// may get, with the pauses between them, which double and are drawn half longer.
func takes(t Task) time.Duration {
	pauses, next := time.Duration(0), t.Backoff
	for range t.Program {
		pauses += next + next/2
		next *= 2
	}
	return max(lease, t.Lease) + margin + time.Duration(1+t.Program)*(t.Start+t.Length) + pauses
}

// SettleWithin is how long after the last fault the last of some tasks may end.
func SettleWithin(tasks map[string]Task) time.Duration {
	most := time.Duration(0)
	for _, t := range tasks {
		most = max(most, takes(t))
	}
	return settleWithin + most
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

// Replaced counts the attempts of agents that were gone which L3 could judge.
func Replaced(h *History) int { return new(report).replaced(h) }

// replaced checks L3 by the agents that were gone for longer than it takes: the
// attempts that they had, under the usual lease, are given up in time, and the next
// ones begin. It counts the attempts that it could judge.
func (r *report) replaced(h *History) (judged int) {
	records := firstFinals(h)
	begun := make(map[string]map[int]time.Duration) // by task and attempt
	for _, l := range h.Lives {
		if begun[l.Task] == nil {
			begun[l.Task] = make(map[int]time.Duration)
		}
		if first, known := begun[l.Task][l.Attempt]; !known || l.First < first {
			begun[l.Task][l.Attempt] = l.First
		}
	}
	for _, f := range h.Faults {
		if f.Kind != AgentGone {
			continue
		}
		by := countedFrom(h, f.Begin) + replaceWithin
		if f.End < by {
			continue // the agent came back: it may have said itself what has ended
		}
		for _, l := range h.Lives {
			if l.Node != f.Target || l.First > f.Begin || l.Last < f.Begin {
				continue
			}
			t, known := records[l.Task]
			want := h.Tasks[t.Key]
			if known && want.AtMostOnce && l.Last > f.Begin+heartbeat && r.onceLost(h, f, t, want) { // it had not ended when the kill came
				judged++
			}
			if !known || l.Attempt >= len(t.Attempts) || want.Lease > lease {
				continue
			}
			next := t.Attempts[l.Attempt]
			by := by + want.Start + lossPause(t.Attempts[:l.Attempt])
			if next.Node != f.Target && troubled(h, next.Node, f.Begin, by) {
				continue // that it began late, or not at all, is another fault's doing
			}
			first, lived := begun[l.Task][next.Number]
			switch {
			case lived && first > by:
				r.add("L3", "task %s: its agent %s was gone from %s, its next attempt began at %s, want by %s", l.Task, f.Target, f.Begin, first, by)
			case !lived && next.Outcome != cancelled:
				r.add("L3", "task %s: its agent %s was gone from %s, its next attempt on %s never began", l.Task, f.Target, f.Begin, next.Node)
			}
			judged++
		}
	}
	return judged
}

// onceLost checks that an at-most-once task whose agent was gone for long ended as
// lost, after its own lease and soon then. It reports whether that could be judged.
func (r *report) onceLost(h *History, f Fault, t Record, want Task) bool {
	after, by := f.Begin-heartbeat+want.Lease, countedFrom(h, f.Begin)+max(lease, want.Lease)+margin+2*time.Second
	if f.End < by || t.Outcome == cancelled {
		return false
	}
	ended := h.Healed + t.Finished.Sub(h.HealedAt)
	if t.Outcome != nodeLost || ended < after || ended > by {
		r.add("L3", "at-most-once task %s: its agent %s was gone from %s, it ended as %s at %s, want %s between %s and %s", t.ID, f.Target, f.Begin,
			t.Outcome, ended, nodeLost, after, by)
	}
	return true
}

// lossPause is how long a task that has lost attempts backs off at most: not after
// the first, then for 1.5 s, and twice as long each time up to 45 s.
func lossPause(attempts []Attempt) time.Duration {
	lost := 0
	for _, a := range attempts {
		if infrastructure(a.Outcome) {
			lost++
		}
	}
	if lost < 2 {
		return 0
	}
	return min(1500*time.Millisecond<<(lost-2), 45*time.Second)
}

// countedFrom is when the leader that gives up an agent gone at a time counts from,
// at the latest.
func countedFrom(h *History, gone time.Duration) time.Duration {
	var faults []Fault
	for _, f := range h.Faults {
		if f.Leader {
			faults = append(faults, f)
		}
	}
	slices.SortFunc(faults, func(a, b Fault) int { return cmp.Compare(a.Begin, b.Begin) })
	from := gone
	for _, f := range faults {
		if f.Begin < from+replaceWithin && f.End+electedWithin > from {
			from = f.End + electedWithin
		}
	}
	return from
}

// troubled reports whether a node had a fault of its own between two times, or had
// not got over one.
func troubled(h *History, node string, from, to time.Duration) bool {
	for _, f := range h.Faults {
		if f.Target == node && f.Begin < to && f.End+lease > from {
			return true
		}
	}
	return false
}

// AgentGone is the kind of a fault that kills an agent for longer than its lease.
const AgentGone = "kill an agent for long"
