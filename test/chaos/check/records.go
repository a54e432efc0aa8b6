package check

import (
	"reflect"
	"slices"
	"time"
)

const finished = "finished"

// Outcomes that the checks tell apart.
const (
	exited      = "exited"
	cancelled   = "cancelled"
	nodeLost    = "node_lost"
	interrupted = "interrupted"
)

// StaleExit is the exit code that agents here say of attempts that were over, to
// see whether somebody believes it. No program exits with it.
const StaleExit = 99

func infrastructure(outcome string) bool { return outcome == nodeLost || outcome == interrupted }

// records checks what the control nodes say at the end: S1 to S4, S7, S10, S11
// and S16.
func (r *report) records(h *History) {
	acked := acknowledged(h)
	var first string
	for _, node := range sorted(h.Finals) {
		records := byID(h.Finals[node])
		for key, id := range acked {
			if _, there := records[id]; !there {
				r.add("S1", "task %s (key %s) was accepted and %s does not have it", id, key, node)
			}
		}
		if first == "" {
			first = node
			for _, t := range h.Finals[node] {
				r.record(h, t)
			}
			continue
		}
		for id, want := range byID(h.Finals[first]) {
			if got, there := records[id]; !there || !reflect.DeepEqual(got, want) {
				r.add("S2", "task %s: %s says %+v, %s says %+v", id, first, want, node, got)
			}
		}
	}
	for _, op := range h.Ops {
		if op.Result != OK || op.Seen.State != finished || first == "" {
			continue
		}
		if last, there := byID(h.Finals[first])[op.Seen.ID]; there && (last.Outcome != op.Seen.Outcome || last.Exit != op.Seen.Exit) {
			r.add("S2", "task %s: %s said %s %d, at the end it is %s %d", op.Seen.ID, op.Node, op.Seen.Outcome, op.Seen.Exit, last.Outcome, last.Exit)
		}
	}
	r.equal("in memory", h.Live)
	r.equal("on disk", h.Hashes)
}

// equal checks S16.
func (r *report) equal(where string, hashes map[string]string) {
	nodes := sorted(hashes)
	for _, node := range nodes {
		if hashes[node] != hashes[nodes[0]] {
			r.add("S16", "the record of %s %s has hash %s, that of %s %s", node, where, hashes[node], nodes[0], hashes[nodes[0]])
		}
	}
}

// nothing is the length and the hash of no output.
const nothing = "0-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// fetched checks S10 by the bytes themselves: every control node gives what the
// program wrote. Programs here write nothing to stderr.
func (r *report) fetched(h *History) {
	for _, f := range h.Fetches {
		want := nothing
		if f.Stream == "stdout" {
			want = h.Tasks[f.Key].Stdout
		}
		if f.Got != want {
			r.add("S10", "%s of task %s through %s is %s, its program wrote %s", f.Stream, f.Task, f.Node, f.Got, want)
		}
	}
}

// refused checks of S9 what an order of the calls can't show: a key of which every
// submission was surely not carried out has no task.
func (r *report) refused(h *History) {
	mayBe := make(map[string]bool)
	asked := make(map[string]Op)
	for _, op := range h.Ops {
		if op.Kind == Submit {
			asked[op.Key] = op
			mayBe[op.Key] = mayBe[op.Key] || op.Result != Failed
		}
	}
	for _, node := range sorted(h.Finals) {
		for _, t := range h.Finals[node] {
			if op, known := asked[t.Key]; known && !mayBe[t.Key] {
				r.add("S9", "task %s: every submission of key %s was refused, the last through %s at %s, and %s has it", t.ID, t.Key, op.Node, op.Return, node)
			}
		}
	}
}

func byID(records []Record) map[string]Record {
	all := make(map[string]Record, len(records))
	for _, t := range records {
		all[t.ID] = t
	}
	return all
}

// record checks one task's end against what was asked.
func (r *report) record(h *History, t Record) {
	want, known := h.Tasks[t.Key]
	if !known {
		r.add("S1", "task %s has key %q, which nobody used", t.ID, t.Key)
		return
	}
	if t.State != finished || t.Outcome == "" {
		r.add("S3", "task %s has no outcome: %s %s", t.ID, t.State, t.Outcome)
		return
	}
	lost, failed := 0, 0
	for i, a := range t.Attempts {
		if infrastructure(a.Outcome) {
			lost++
		} else {
			failed++
		}
		last := i == len(t.Attempts)-1
		switch {
		case a.Number != i+1 || a.Outcome == "" || a.Ended.IsZero():
			r.add("S3", "task %s: attempt %d has no end: %+v", t.ID, i+1, a)
		case last && t.Outcome == exited && (a.Outcome != exited || a.Exit != t.Exit):
			r.add("S4", "task %s exited with %d, its last attempt ended as %s %d", t.ID, t.Exit, a.Outcome, a.Exit)
		case !last && a.Outcome == exited && a.Exit == 0:
			r.add("S7", "task %s: attempt %d came to a good end and was repeated", t.ID, a.Number)
		case !last && t.Attempts[i+1].Placed.Before(a.Ended.Add(-time.Second)): // leaders' wall clocks are one machine's
			r.add("S4", "task %s: attempt %d was placed before attempt %d had ended", t.ID, a.Number+1, a.Number)
		}
	}
	if lost > 1+want.Infrastructure || failed > 1+want.Program || len(t.Attempts) > 1+want.Infrastructure+want.Program {
		r.add("S7", "task %s: %d attempts lost and %d ended otherwise, want at most %d and %d again", t.ID, lost, failed, want.Infrastructure, want.Program)
	}
	if want.AtMostOnce && len(t.Attempts) > 1 {
		r.add("S6", "at-most-once task %s had %d attempts", t.ID, len(t.Attempts))
	}
	switch t.Outcome {
	case exited:
		if t.Exit == StaleExit {
			r.add("S4", "task %s has for its end what was said of an attempt of an earlier registration", t.ID)
		}
		if t.Exit != want.Exit {
			r.add("S11", "task %s exited with %d, its program with %d", t.ID, t.Exit, want.Exit)
		}
		if t.Stdout != want.Stdout {
			r.add("S10", "task %s has output %s, its program wrote %s", t.ID, t.Stdout, want.Stdout)
		}
		if want.Exit != 0 && failed < 1+want.Program && !r.stopped(h, t) {
			r.add("S7", "task %s exited with %d after %d of %d runs", t.ID, t.Exit, failed, 1+want.Program)
		}
	case cancelled:
		if _, asked := r.cancelled[want.Key]; !asked {
			r.add("S11", "task %s ended as cancelled, and nobody asked for that", t.ID)
		}
	case nodeLost, interrupted:
		if !want.AtMostOnce && lost < 1+want.Infrastructure {
			r.add("S7", "task %s was given up as %s after %d of %d attempts", t.ID, t.Outcome, lost, 1+want.Infrastructure)
		}
	default:
		r.add("S11", "task %s ended as %s, which nothing here brings about", t.ID, t.Outcome)
	}
}

// stopped reports whether a task's cancellation was asked for before it ended: a
// program that ends before it hears of that has its own end, and no further run.
func (r *report) stopped(h *History, t Record) bool {
	asked, known := r.cancelled[t.Key]
	return known && asked < h.Healed+t.Finished.Sub(h.HealedAt)
}

// keys checks S8: one task for each key, and no other body under it.
func (r *report) keys(h *History) {
	ids, bodies := make(map[string]string), make(map[string]string)
	for _, op := range h.Ops {
		if op.Kind != Submit || op.Result != OK {
			continue
		}
		if before, known := ids[op.Key]; known && before != op.Seen.ID {
			r.add("S8", "key %s is task %s, and task %s through %s", op.Key, before, op.Seen.ID, op.Node)
		}
		if body, known := bodies[op.Key]; known && body != op.Body {
			r.add("S8", "key %s was taken with bodies %s and %s", op.Key, body, op.Body)
		}
		ids[op.Key], bodies[op.Key] = op.Seen.ID, op.Body
	}
	for _, node := range sorted(h.Finals) {
		of := make(map[string]string)
		for _, t := range h.Finals[node] {
			if other, twice := of[t.Key]; twice {
				r.add("S8", "key %s is tasks %s and %s on %s", t.Key, other, t.ID, node)
			}
			of[t.Key] = t.ID
		}
	}
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
