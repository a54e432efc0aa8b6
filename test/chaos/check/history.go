// Package check says what of the promises of a cluster a history contradicts.
//
// A history is what was seen from outside: what clients were answered, when
// programs were alive by their own heartbeats, what each control node says at
// the end, and which faults there were. The rules are numbered as in the plan
// that they come from (S safety, L liveness); the package's tests hold a
// history for each rule that breaks it.
//
// It is pure: it starts nothing, reads no clock and knows nothing of processes.
package check

import (
	"fmt"
	"time"
)

// Kinds of Op.
const (
	Submit = "submit"
	Get    = "get"
	Cancel = "cancel"
)

// Results of an Op.
const (
	OK       = "ok"
	Conflict = "conflict" // the key is another body's
	Failed   = "failed"   // nothing was done, and that is certain
	Unknown  = "unknown"  // it may have been done, or may still be
)

// Op is one call of a client. Times are by CLOCK_BOOTTIME.
type Op struct {
	Kind         string
	Client       int
	Node         string // control node that was asked
	Key, Body    string // idempotency key and which body
	Call, Return time.Duration
	Result       string
	Seen         Record // what was answered, with OK
	Quiet        bool   // there was no fault at the time
}

// Record is a task as a control node tells it.
type Record struct {
	ID       string
	Key      string // by its label, not by the field that is checked
	State    string // pending | assigned | running | finished
	Stopping bool
	Outcome  string
	Exit     int // -1: none
	Stdout   string
	Attempts []Attempt
	Finished time.Time // by the leader's wall clock
}

// Attempt is one try as the record has it. Times are wall clocks.
type Attempt struct {
	Number        int
	Node          string
	Outcome       string
	Exit          int // -1: none
	Placed, Ended time.Time
}

// Fetch is one stream of a task's output as a control node gave it.
type Fetch struct {
	Task, Key, Node, Stream string
	Got                     string // length and hash as in Task.Stdout, or why there is none
}

// Task is what the workload asked for and expects.
type Task struct {
	Key            string
	AtMostOnce     bool
	Lease          time.Duration
	Infrastructure int // retries
	Program        int
	Exit           int    // what its program exits with, every time
	Stdout         string // length and hash of what its program writes
	// Start is how long its engine may take to begin its program.
	Start   time.Duration
	Length  time.Duration // of one run of its program
	Backoff time.Duration // the pause before its program is run again for the first time
}

// Life is one program by its own heartbeats.
type Life struct {
	Task        string // id
	Attempt     int
	Node        string
	First, Last time.Duration // CLOCK_BOOTTIME
}

// Beat notes that the program lived then.
func (l *Life) Beat(at time.Duration) {
	if l.First == 0 || at < l.First {
		l.First = at
	}
	l.Last = max(l.Last, at)
}

// Fault is one fault that was made.
type Fault struct {
	Kind       string
	Target     string
	Begin, End time.Duration
	// Bit is the proof that it did what it says; empty: it did not.
	Bit string
	// Leader says that it could cost the cluster its leader.
	Leader bool
	// Spares says that no program may be lost by it.
	Spares bool
}

// History is a whole run.
type History struct {
	Ops    []Op
	Tasks  map[string]Task // by key
	Lives  []Life
	Faults []Fault
	// Finals is what each control node says of every task, after the faults.
	Finals map[string][]Record
	// Fetches are the streams of output that were read after the faults.
	Fetches []Fetch
	// Live are hashes of the record that each control node had in memory at one log
	// index, Hashes of what its disk makes of it, and Snapshots is how many of the
	// record there were.
	Live, Hashes map[string]string
	Snapshots    map[string]int
	// Resumed is how long after each loss of a drill the next submission was accepted.
	Resumed []time.Duration
	// Left is what was still there a minute after the last task.
	Left []string
	// Members is how many nodes gossip showed each control node at the end.
	Members map[string]int
	// Sizes are what processes hold before the work and after it, as "c1 files".
	Before, After map[string]int
	Nodes         int
	// Quiet is when no fault had been made yet, with Terms of the leader.
	QuietTerms []uint64
	// Healed is when the last fault was mended, Settled when every task had ended;
	// zero: that did not come.
	Began, Healed, Settled time.Duration
	// HealedAt is Healed by the wall clock, as the record has its times.
	HealedAt time.Time
}

// Floor is how much must have happened for a run to prove anything.
type Floor struct {
	Tasks, Faults, Kinds int
	Replaced             int // attempts of agents that were gone, which L3 could judge
	Snapshots            int // of each control node
	Fetches              int
	Resumed              int // losses after which submissions were accepted again
	Spared               int // programs that lived from before a loss that spares them to a lease after it
}

// Violation is one promise that was broken.
type Violation struct{ Rule, Text string }

func (v Violation) String() string { return v.Rule + ": " + v.Text }

// report collects violations, a few of each rule: the first ones say it all.
type report struct {
	all       []Violation
	count     map[string]int
	cancelled map[string]time.Duration // when somebody first asked to cancel a key's task, who may have
}

const (
	mostOfARule = 10
	mostOfAText = 1000
)

func (r *report) add(rule, format string, args ...any) {
	if r.count == nil {
		r.count = make(map[string]int)
	}
	if r.count[rule]++; r.count[rule] <= mostOfARule {
		text := fmt.Sprintf(format, args...)
		r.all = append(r.all, Violation{rule, text[:min(len(text), mostOfAText)]})
	}
}

// All gives every violation of a history.
func All(h *History, floor Floor) []Violation {
	r := &report{cancelled: make(map[string]time.Duration)}
	for _, op := range h.Ops {
		if op.Kind == Cancel && (op.Result == OK || op.Result == Unknown) {
			if first, known := r.cancelled[op.Key]; !known || op.Call < first {
				r.cancelled[op.Key] = op.Call
			}
		}
	}
	r.enough(h, floor)
	r.records(h)
	r.refused(h)
	r.fetched(h)
	r.lives(h)
	r.keys(h)
	r.cancels(h)
	r.liveness(h)
	r.resumed(h)
	r.spared(h)
	r.linear(h)
	return r.all
}

func (r *report) enough(h *History, floor Floor) {
	if judged := r.replaced(h); judged < floor.Replaced {
		r.add("floor", "L3 could judge %d attempts, want %d: no agent was gone for long enough beside a leader that stayed", judged, floor.Replaced)
	}
	for _, node := range sorted(h.Hashes) {
		if got := h.Snapshots[node]; got < floor.Snapshots {
			r.add("floor", "%s has %d snapshots of the record, want %d", node, got, floor.Snapshots)
		}
	}
	if len(h.Fetches) < floor.Fetches {
		r.add("floor", "%d streams of output were read, want %d", len(h.Fetches), floor.Fetches)
	}
	if len(h.Resumed) < floor.Resumed {
		r.add("floor", "submissions were accepted again after %d losses, want %d", len(h.Resumed), floor.Resumed)
	}
	if spared := Spared(h); spared < floor.Spared {
		r.add("floor", "%d programs lived across a loss, want %d", spared, floor.Spared)
	}
	accepted, kinds, bit := 0, make(map[string]bool), 0
	for _, id := range acknowledged(h) {
		if id != "" {
			accepted++
		}
	}
	for _, f := range h.Faults {
		if f.Bit == "" {
			r.add("floor", "%s of %s at %s did nothing", f.Kind, f.Target, f.Begin)
			continue
		}
		bit++
		kinds[f.Kind] = true
	}
	if accepted < floor.Tasks || bit < floor.Faults || len(kinds) < floor.Kinds {
		r.add("floor", "%d tasks, %d faults of %d kinds; want %d, %d of %d: this proves too little",
			accepted, bit, len(kinds), floor.Tasks, floor.Faults, floor.Kinds)
	}
}

// acknowledged gives the tasks that clients were told of, by key.
func acknowledged(h *History) map[string]string {
	ids := make(map[string]string)
	for _, op := range h.Ops {
		if op.Result == OK && op.Seen.ID != "" {
			if _, known := ids[op.Key]; !known {
				ids[op.Key] = op.Seen.ID
			}
		}
	}
	return ids
}
