package check

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// good is a history in which every promise was kept: one task that was lost once
// and then ran, one that was cancelled, faults that bit.
func good() *History {
	at := func(s float64) time.Time { return time.Unix(1000, int64(s*1e9)) }
	ran := Record{ID: "t1", Key: "k1", State: finished, Outcome: exited, Exit: 3, Stdout: "4-ab", Finished: at(26), Attempts: []Attempt{
		{Number: 1, Node: "p1", Outcome: nodeLost, Exit: -1, Placed: at(11), Ended: at(24)},
		{Number: 2, Node: "p2", Outcome: exited, Exit: 3, Placed: at(24.1), Ended: at(26)}}}
	stopped := Record{ID: "t2", Key: "k2", State: finished, Outcome: cancelled, Exit: -1, Finished: at(14), Attempts: []Attempt{
		{Number: 1, Node: "p2", Outcome: cancelled, Exit: -1, Placed: at(12), Ended: at(14)}}}
	early := func(r Record, state string, attempts int) Record {
		r.State, r.Outcome, r.Exit, r.Stdout, r.Attempts, r.Finished = state, "", -1, "", r.Attempts[:attempts:attempts], time.Time{}
		return r
	}
	stopping := early(stopped, "running", 1)
	stopping.Stopping = true
	s := time.Second
	h := &History{
		Began: 0, Healed: 40 * s, HealedAt: at(48), Settled: 50 * s, Nodes: 3,
		Tasks: map[string]Task{
			"k1": {Key: "k1", Lease: lease, Infrastructure: 3, Exit: 3, Stdout: "4-ab"},
			"k2": {Key: "k2", Lease: lease, AtMostOnce: true},
			"k3": {Key: "k3", Lease: lease},
		},
		Ops: []Op{
			{Kind: Submit, Node: "c1", Key: "k1", Body: "a", Call: 1 * s, Return: 2 * s, Result: Unknown},
			{Kind: Submit, Node: "c2", Key: "k1", Body: "a", Call: 3 * s, Return: 4 * s, Result: OK, Seen: early(ran, "assigned", 1)},
			{Kind: Submit, Node: "c2", Key: "k1", Body: "b", Call: 5 * s, Return: 6 * s, Result: Conflict},
			{Kind: Submit, Node: "c3", Key: "k2", Body: "a", Call: 5 * s, Return: 6 * s, Result: OK, Seen: early(stopped, "pending", 0)},
			{Kind: Cancel, Node: "c1", Key: "k2", Call: 7 * s, Return: 8 * s, Result: OK, Seen: stopping},
			{Kind: Get, Node: "c3", Key: "k2", Call: 9 * s, Return: 10 * s, Result: OK, Seen: stopped},
			{Kind: Get, Node: "c3", Key: "k1", Call: 13 * s, Return: 14 * s, Result: OK, Seen: early(ran, "pending", 1)},
			{Kind: Submit, Node: "c2", Key: "k1", Body: "a", Call: 15 * s, Return: 15 * s, Result: OK, Seen: early(ran, "running", 2)},
			{Kind: Submit, Node: "c2", Key: "k1", Body: "a", Call: 23 * s, Return: 24 * s, Result: OK, Seen: ran},
			{Kind: Submit, Node: "c1", Key: "k3", Body: "a", Call: 30 * s, Return: 31 * s, Result: Failed},
			{Kind: Submit, Node: "c2", Key: "k1", Body: "a", Call: 32 * s, Return: 33 * s, Result: OK, Seen: ran},
		},
		Lives: []Life{
			{Task: "t1", Attempt: 1, Node: "p1", First: 4 * s, Last: 10 * s},
			{Task: "t1", Attempt: 2, Node: "p2", First: 14 * s, Last: 16 * s},
			{Task: "t2", Attempt: 1, Node: "p2", First: 6 * s, Last: 9 * s},
		},
		Faults: []Fault{
			{Kind: AgentGone, Target: "p1", Begin: 5 * s, End: 35 * s, Bit: "killed"},
			{Kind: "pause", Target: "c1", Begin: 31 * s, End: 33 * s, Bit: "in state T", Leader: true},
		},
		Finals:     map[string][]Record{"c1": {ran, stopped}, "c2": {ran, stopped}, "c3": {ran, stopped}},
		Fetches:    []Fetch{{Task: "t1", Key: "k1", Node: "c2", Stream: "stdout", Got: "4-ab"}, {Task: "t1", Key: "k1", Node: "c2", Stream: "stderr", Got: nothing}},
		Live:       map[string]string{"c1": "cc", "c2": "cc", "c3": "cc"},
		Hashes:     map[string]string{"c1": "aa", "c2": "aa", "c3": "aa"},
		Snapshots:  map[string]int{"c1": 2, "c2": 1, "c3": 2},
		Members:    map[string]int{"c1": 3, "c2": 3, "c3": 3},
		Before:     map[string]int{"c1 fd": 20},
		After:      map[string]int{"c1 fd": 30},
		QuietTerms: []uint64{2, 2},
	}
	return h
}

var floor = Floor{Tasks: 2, Faults: 2, Kinds: 2, Replaced: 1, Snapshots: 1, Fetches: 2}

func rules(h *History) []string {
	var names []string
	for _, v := range All(h, floor) {
		names = append(names, v.Rule)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func TestAGoodHistoryBreaksNothing(t *testing.T) {
	for _, v := range All(good(), floor) {
		t.Error(v)
	}
}

// everywhere changes a task's end on all control nodes.
func everywhere(h *History, i int, change func(*Record)) {
	for _, records := range h.Finals {
		r := records[i]
		r.Attempts = slices.Clone(r.Attempts)
		change(&r)
		records[i] = r
	}
}

// once has the second task, which is at-most-once, lost with p1 as it should be.
func once(h *History) {
	h.Lives[2].Node, h.Lives[2].First, h.Lives[2].Last = "p1", 4*time.Second, 10*time.Second
	h.Ops = slices.DeleteFunc(h.Ops, func(op Op) bool { return op.Key == "k2" && op.Kind != Submit })
	k := h.Tasks["k2"]
	k.Lease = 12 * time.Second
	h.Tasks["k2"] = k
	everywhere(h, 1, func(r *Record) {
		r.Outcome, r.Finished = nodeLost, h.HealedAt.Add(-21*time.Second) // at 19 s
		r.Attempts[0] = Attempt{Number: 1, Node: "p1", Outcome: nodeLost, Exit: -1, Placed: r.Attempts[0].Placed, Ended: r.Finished}
	})
}

func TestAnAtMostOnceTaskIsLostAfterItsLease(t *testing.T) {
	h := good()
	once(h)
	if got := rules(h); len(got) > 0 {
		t.Errorf("got %v, want nothing", All(h, floor))
	}
	if got := Replaced(h) - Replaced(good()); got != 1 {
		t.Errorf("got %d more judged, want 1", got)
	}
}

// A program that had ended before it heard of the cancellation is not run again.
func TestACancelledTaskMayKeepItsProgramsFailure(t *testing.T) {
	for _, c := range []struct {
		cancel string
		at     time.Duration
		want   string
	}{{Unknown, 15 * time.Second, ""}, {Failed, 15 * time.Second, "S7"}, {OK, 33 * time.Second, "S7"}} { // it ended before that
		h := good()
		k := h.Tasks["k1"]
		k.Program = 2
		h.Tasks["k1"] = k
		h.Ops = append(h.Ops, Op{Kind: Cancel, Client: 9, Node: "c1", Key: "k1", Call: c.at, Return: c.at + time.Second, Result: c.cancel, Seen: h.Ops[8].Seen})
		if got := strings.Join(rules(h), " "); got != c.want {
			t.Errorf("cancellation %s at %s: got %q, want %q", c.cancel, c.at, got, c.want)
		}
	}
}

func TestProgramsThatLiveAcrossALossAreCounted(t *testing.T) {
	h := &History{Faults: []Fault{{Begin: 10 * time.Second, Spares: true}, {Begin: 10 * time.Second}}, Lives: []Life{
		{First: 9 * time.Second, Last: 21 * time.Second}, {First: 11 * time.Second, Last: 30 * time.Second}, {First: time.Second, Last: 19 * time.Second}}}
	if got := Spared(h); got != 1 {
		t.Errorf("got %d, want 1", got)
	}
}

func TestEachBrokenPromiseIsNoticed(t *testing.T) {
	s := time.Second
	for _, tt := range []struct {
		rule, name string
		change     func(h *History)
	}{
		{"S1", "an accepted task is gone from one node", func(h *History) { h.Finals["c2"] = h.Finals["c2"][:1] }},
		{"S1", "a task of nobody's", func(h *History) { everywhere(h, 0, func(r *Record) { r.Key = "other" }) }},
		{"S2", "two nodes differ", func(h *History) { r := h.Finals["c3"][0]; r.Exit = 4; h.Finals["c3"] = []Record{r, h.Finals["c3"][1]} }},
		{"S2", "a final answer was changed", func(h *History) { h.Ops[5].Seen.Outcome = exited }},
		{"S3", "no outcome", func(h *History) { everywhere(h, 0, func(r *Record) { r.State, r.Outcome = "running", "" }) }},
		{"S3", "an attempt without an end", func(h *History) { everywhere(h, 0, func(r *Record) { r.Attempts[0].Outcome = "" }) }},
		{"S4", "the result is an earlier attempt's", func(h *History) { everywhere(h, 0, func(r *Record) { r.Attempts[1].Outcome = nodeLost }) }},
		{"S4", "an attempt placed beside another", func(h *History) {
			everywhere(h, 0, func(r *Record) { r.Attempts[1].Placed = r.Attempts[0].Placed.Add(time.Second) })
		}},
		{"S4", "an attempt that the record does not know", func(h *History) { h.Lives[1].Attempt = 3 }},
		{"S5", "two alive at once", func(h *History) { h.Lives[0].Last = 15 * s }},
		{"S5", "an older one started later", func(h *History) { h.Lives[0].First, h.Lives[0].Last = 17*s, 18*s }},
		{"S5", "one attempt was run twice, one after the other", func(h *History) {
			h.Lives = append(h.Lives, Life{Task: "t1", Attempt: 2, Node: "p2", First: 17 * s, Last: 18 * s})
		}},
		{"S5", "one attempt was run twice at once", func(h *History) {
			h.Lives = append(h.Lives, Life{Task: "t1", Attempt: 2, Node: "p2", First: 15 * s, Last: 18 * s})
		}},
		{"S6", "an at-most-once attempt was run twice", func(h *History) {
			h.Lives = append(h.Lives, Life{Task: "t2", Attempt: 1, Node: "p2", First: 10 * s, Last: 11 * s})
		}},
		{"S6", "at most once, twice by the record", func(h *History) {
			everywhere(h, 1, func(r *Record) {
				r.Attempts = append(r.Attempts, Attempt{Number: 2, Outcome: cancelled, Placed: time.Unix(2000, 0), Ended: time.Unix(2001, 0)})
			})
		}},
		{"S6", "at most once, twice by its programs", func(h *History) {
			h.Lives = append(h.Lives, Life{Task: "t2", Attempt: 2, Node: "p1", First: 10 * s, Last: 11 * s})
		}},
		{"S7", "more attempts than asked for", func(h *History) { k := h.Tasks["k1"]; k.Infrastructure = -1; h.Tasks["k1"] = k }},
		{"S7", "a good end was repeated", func(h *History) {
			everywhere(h, 0, func(r *Record) { r.Attempts[0].Outcome, r.Attempts[0].Exit = exited, 0 })
		}},
		{"S7", "a task was given up with retries left", func(h *History) {
			everywhere(h, 0, func(r *Record) { r.Outcome, r.Exit, r.Attempts = nodeLost, -1, r.Attempts[:1] })
		}},
		{"S11", "cancelled by nobody", func(h *History) { h.Ops = slices.Delete(h.Ops, 4, 5) }},
		{"S7", "a failure was not repeated", func(h *History) { k := h.Tasks["k1"]; k.Program = 2; h.Tasks["k1"] = k }},
		{"S8", "a key is two tasks", func(h *History) { h.Ops[8].Seen.ID = "t9" }},
		{"S8", "two tasks have a key", func(h *History) { everywhere(h, 1, func(r *Record) { r.Key = "k1" }) }},
		{"S8", "a key was taken with another body", func(h *History) { h.Ops[8].Body = "b" }},
		{"S9", "a read of the past", func(h *History) { h.Ops[8].Seen = h.Ops[1].Seen }},
		{"S9", "a cancellation unseen", func(h *History) { h.Ops[5].Seen = h.Ops[3].Seen }},
		{"S9", "a conflict with nothing", func(h *History) { h.Ops[2].Call, h.Ops[2].Return = 0, s/2 }},
		{"S9", "a task that was told of is not found", func(h *History) { h.Ops[6].Seen = Record{} }},
		{"S9", "what was refused was done", func(h *History) {
			h.Finals["c2"] = append(slices.Clone(h.Finals["c2"]), Record{ID: "t3", Key: "k3", State: finished, Outcome: exited})
		}},
		{"S10", "other output", func(h *History) { everywhere(h, 0, func(r *Record) { r.Stdout = "3-ab" }) }},
		{"S10", "other bytes", func(h *History) { h.Fetches[0].Got = "4-ba" }},
		{"S10", "bytes of nobody's", func(h *History) { h.Fetches[1].Got = "1-ab" }},
		{"S10", "output that is gone", func(h *History) { h.Fetches[0].Got = "output_lost" }},
		{"S11", "another exit code", func(h *History) {
			everywhere(h, 0, func(r *Record) { r.Exit, r.Attempts[1].Exit = 137, 137 })
		}},
		{"S11", "an outcome from nowhere", func(h *History) { everywhere(h, 1, func(r *Record) { r.Outcome = "oom_killed" }) }},
		{"S11", "an exit of no program", func(h *History) { h.Lives = h.Lives[2:] }},
		{"S12", "started after its cancellation", func(h *History) { h.Ops[4].Seen.Attempts = nil }},
		{"S12", "went on after its cancellation", func(h *History) { h.Lives[2].Last = 39 * s }},
		{"S16", "records in memory differ", func(h *History) { h.Live["c2"] = "dd" }},
		{"S16", "records differ", func(h *History) { h.Hashes["c3"] = "bb" }},
		{"S17", "a process grew", func(h *History) { h.After["c1 fd"] = 500 }},
		{"L1", "never settled", func(h *History) { h.Settled = 0 }},
		{"L1", "a task ended late", func(h *History) {
			everywhere(h, 0, func(r *Record) { r.Finished = h.HealedAt.Add(settleWithin + lease + margin + s) })
		}},
		{"L2", "no writes for long", func(h *History) { h.Ops[8].Call, h.Ops[8].Return = 38*s, 39*s; h.Ops = h.Ops[:10] }},
		{"L2", "no writes to the end", func(h *History) { h.Ops = h.Ops[:9] }},
		{"L3", "replaced late", func(h *History) {
			h.Lives[1].First, h.Lives[1].Last = 21*s, 22*s
		}},
		{"L3", "replaced late by a second leader", func(h *History) {
			h.Faults[1].Begin, h.Faults[1].End = 8*s, 9*s // it may have cost the leader: by 28 s
			h.Lives[1].First, h.Lives[1].Last = 29*s, 30*s
		}},
		{"L3", "never replaced", func(h *History) { h.Lives = slices.Delete(h.Lives, 1, 2) }},
		{"floor", "no agent was gone for long", func(h *History) { h.Faults[0].End = 15 * s }},
		{"floor", "a leader was at risk all the time", func(h *History) {
			h.Faults[1].Begin, h.Faults[1].End = 8*s, 30*s
		}},
		{"floor", "the next attempt met a fault of its own", func(h *History) {
			h.Faults = append(h.Faults, Fault{Kind: "pause", Target: "p2", Begin: 12 * s, End: 20 * s, Bit: "in state T"})
		}},
		{"L4", "gossip incomplete", func(h *History) { h.Members["c2"] = 2 }},
		{"L5", "left behind", func(h *History) { h.Left = []string{"container x"} }},
		{"L6", "an election in peace", func(h *History) { h.QuietTerms[1] = 3 }},
		{"L6", "an error in peace", func(h *History) { h.Ops[9].Quiet = true }},
		{"L2", "accepted late after a loss", func(h *History) { h.Resumed = []time.Duration{s, 11 * s, s} }},
		{"L2", "accepted late after most losses", func(h *History) { h.Resumed = []time.Duration{s, 4 * s, 4 * s} }},
		{"L2", "accepted late after two of a hundred losses", func(h *History) {
			h.Resumed = append(slices.Repeat([]time.Duration{s}, 98), 4*s, 4*s)
		}},
		{"fence", "a lost leader cost an attempt", func(h *History) { h.Faults = []Fault{{Kind: "lose the leader", Bit: "dropped", Spares: true}} }},
		{"S4", "what was over was believed", func(h *History) {
			everywhere(h, 0, func(r *Record) { r.Exit, r.Attempts[1].Exit = StaleExit, StaleExit })
		}},
		{"L3", "at most once, lost late", func(h *History) { once(h); everywhere(h, 1, func(r *Record) { r.Finished = h.HealedAt }) }},
		{"L3", "at most once, lost within its lease", func(h *History) {
			once(h)
			everywhere(h, 1, func(r *Record) { r.Finished = h.HealedAt.Add(-30 * s) })
		}},
		{"L3", "at most once, and no loss", func(h *History) { once(h); everywhere(h, 1, func(r *Record) { r.Outcome = exited }) }},
		{"floor", "a node without a snapshot", func(h *History) { delete(h.Snapshots, "c2") }},
		{"floor", "no output was read", func(h *History) { h.Fetches = nil }},
		{"floor", "a fault that did nothing", func(h *History) { h.Faults[1].Bit = "" }},
		{"floor", "too little work", func(h *History) { h.Ops = slices.Clone(h.Ops[:3]) }},
	} {
		t.Run(tt.rule+" "+tt.name, func(t *testing.T) {
			h := good()
			tt.change(h)
			if got := rules(h); !slices.Contains(got, tt.rule) {
				t.Errorf("got %v, want %s among them", got, tt.rule)
			}
		})
	}
}

// A task that takes long by itself has longer than another.
func TestEveryTaskHasItsOwnTime(t *testing.T) {
	h := good()
	long := Task{Key: "k1", Lease: lease, Infrastructure: 3, Exit: 3, Stdout: "4-ab", Length: 20 * time.Second, Start: time.Second}
	h.Tasks["k1"] = long
	everywhere(h, 0, func(r *Record) { r.Finished = h.HealedAt.Add(settleWithin + lease + margin + 20*time.Second) })
	if got := rules(h); len(got) > 0 {
		t.Errorf("got %v, want nothing", got)
	}
	long.Program, long.Backoff = 2, time.Second
	if got, want := takes(long), lease+margin+3*21*time.Second+4500*time.Millisecond; got != want {
		t.Errorf("got %s, want %s: three runs and pauses of 1.5 s and 3 s", got, want)
	}
	if got, want := SettleWithin(map[string]Task{"k1": long, "k2": {}}), settleWithin+takes(long); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLossesPauseFromTheSecondOn(t *testing.T) {
	lost, ran := Attempt{Outcome: nodeLost}, Attempt{Outcome: exited}
	for want, attempts := range map[time.Duration][]Attempt{
		0:                       {ran, lost, ran},
		1500 * time.Millisecond: {lost, ran, lost},
		3 * time.Second:         {lost, lost, lost},
		45 * time.Second:        slices.Repeat([]Attempt{lost}, 10),
	} {
		if got := lossPause(attempts); got != want {
			t.Errorf("%d attempts: got %s, want %s", len(attempts), got, want)
		}
	}
}

// The search for an order must end with as many calls for a key as the workload
// makes.
func TestTheSearchForAnOrderEnds(t *testing.T) {
	h := good()
	for i := range 20 {
		h.Ops = append(h.Ops, Op{Kind: Submit, Client: i, Node: "c1", Key: "k1", Body: "a", Call: 3 * time.Second, Return: 4 * time.Second, Result: Unknown})
	}
	began := time.Now()
	if got := rules(h); len(got) > 0 {
		t.Errorf("got %v, want nothing", got)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestFewOfARuleAreToldAndNoneForLong(t *testing.T) {
	var r report
	for i := range 100 {
		r.add("S1", "%d %s", i, strings.Repeat("x", 5000))
	}
	if len(r.all) != mostOfARule || len(fmt.Sprint(r.all[0])) > mostOfAText+10 {
		t.Errorf("got %d of %d bytes", len(r.all), len(r.all[0].Text))
	}
}
