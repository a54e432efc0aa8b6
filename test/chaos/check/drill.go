package check

import (
	"slices"
	"time"
)

const (
	resumeWithin = 3 * time.Second  // how soon submissions are accepted again, in 99 of 100 cases
	resumeWorst  = 10 * time.Second // and in every one
)

// resumed checks how soon after each loss of a drill a submission was accepted that
// had begun after it. The promise is for 99 of 100; with fewer losses the slowest is
// no such number, and half of them have to keep it.
func (r *report) resumed(h *History) {
	if len(h.Resumed) == 0 {
		return
	}
	all := slices.Sorted(slices.Values(h.Resumed))
	at, name := (len(all)*99+99)/100-1, "at p99"
	if len(all) < 100 {
		at, name = len(all)/2, "in the median"
	}
	if worst := all[len(all)-1]; all[at] > resumeWithin || worst > resumeWorst {
		r.add("L2", "after %d losses submissions were accepted again in %s %s and %s at worst, want %s and %s", len(all), all[at], name, worst, resumeWithin, resumeWorst)
	}
}

// spared checks that faults that spare programs have cost none its attempt. Only
// where there were no other faults can that be said.
func (r *report) spared(h *History) {
	if len(h.Faults) == 0 || slices.ContainsFunc(h.Faults, func(f Fault) bool { return !f.Spares }) {
		return
	}
	for _, t := range firstFinals(h) {
		for _, a := range t.Attempts {
			if infrastructure(a.Outcome) {
				r.add("fence", "task %s: attempt %d on %s ended as %s, and nothing but leaders was lost", t.ID, a.Number, a.Node, a.Outcome)
			}
		}
	}
}

// Spared counts programs that lived from before a loss that spares them to after
// the time that their lease would have had.
func Spared(h *History) (n int) {
	for _, f := range h.Faults {
		for _, l := range h.Lives {
			if f.Spares && l.First < f.Begin && l.Last > f.Begin+lease {
				n++
			}
		}
	}
	return n
}
