package check

import (
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// searchWithin bounds the search for an order; none found by then is a failure.
const searchWithin = time.Minute

// linear checks S9 (and with it S2, S3 and S8 once more): for each key there is
// an order of all calls, each between its begin and its end, in which every
// answer follows from those before it. A read through any node sees at least
// what an earlier write or read through another has seen.
func (r *report) linear(h *History) {
	byKey := make(map[string][]porcupine.Operation)
	for _, op := range h.Ops {
		if op.Result == Failed {
			continue
		}
		end := int64(op.Return)
		if op.Result == Unknown {
			if op.Kind == Get {
				continue // it says nothing and does nothing
			}
			end = math.MaxInt64
		}
		byKey[op.Key] = append(byKey[op.Key], porcupine.Operation{ClientId: op.Client, Input: op, Output: op, Call: int64(op.Call), Return: end})
	}
	deadline := searchWithin
	for _, key := range sorted(byKey) {
		switch porcupine.CheckOperationsTimeout(taskModel, byKey[key], deadline) {
		case porcupine.Illegal:
			r.add("S9", "the calls for key %s have no order: %s", key, describe(byKey[key]))
		case porcupine.Unknown:
			r.add("S9", "no order of the %d calls for key %s was found within %s", len(byKey[key]), key, deadline)
		}
	}
}

// known is the state of one key: what is settled of its task.
type known struct {
	exists   bool
	body, id string // id is empty while nobody was told
	stopping bool
	rank     int // how far its task had come at least; see rankOf
	outcome  string
	exit     int
}

var taskModel = (&porcupine.NondeterministicModel{
	Init:  func() []any { return []any{known{}} },
	Step:  func(state, input, output any) []any { return step(state.(known), input.(Op)) },
	Equal: func(a, b any) bool { return a == b },
}).ToModel()

func step(s known, op Op) []any {
	switch {
	case op.Kind == Submit && op.Result == Unknown:
		if s.exists {
			return []any{s}
		}
		return []any{known{exists: true, body: op.Body}, s}
	case op.Kind == Submit && op.Result == Conflict:
		if s.exists && s.body != op.Body {
			return []any{s}
		}
		return nil
	case op.Kind == Submit && !s.exists:
		return see(known{exists: true, body: op.Body}, op.Seen)
	case op.Kind == Submit && s.body != op.Body:
		return nil
	case op.Kind == Cancel && op.Result == Unknown:
		stopped := s
		stopped.stopping = true
		return []any{s, stopped}
	case !s.exists:
		return nil
	case op.Kind == Cancel:
		if op.Seen.State != finished && !op.Seen.Stopping {
			return nil
		}
		s.stopping = true
		return see(s, op.Seen)
	}
	return see(s, op.Seen)
}

// see adds what was told to what is known, unless the one contradicts the other.
func see(s known, t Record) []any {
	rank := rankOf(t)
	switch {
	case s.id != "" && s.id != t.ID, rank < s.rank:
		return nil
	case s.rank == math.MaxInt && (s.outcome != t.Outcome || s.exit != t.Exit):
		return nil
	case s.stopping && t.State != finished && !t.Stopping:
		return nil
	}
	s.id, s.rank = t.ID, rank
	s.stopping = s.stopping || t.Stopping
	if t.State == finished {
		s.outcome, s.exit, s.stopping = t.Outcome, t.Exit, true
	}
	return []any{s}
}

// rankOf orders what a task goes through: pending, then assigned and running
// for each attempt, pending again when it has ended, finished.
func rankOf(t Record) int {
	n := 3 * len(t.Attempts)
	switch t.State {
	case "assigned":
		return n - 2
	case "running":
		return n - 1
	case finished:
		return math.MaxInt
	}
	return n
}

func describe(ops []porcupine.Operation) (lines []string) {
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	for _, o := range ops {
		op := o.Input.(Op)
		lines = append(lines, op.Call.String()+"-"+op.Return.String()+" "+op.Kind+" "+op.Body+" through "+op.Node+": "+op.Result+" "+
			op.Seen.ID+" "+op.Seen.State+" "+op.Seen.Outcome)
	}
	return lines
}

func sortedByReturn(ops []Op) []Op {
	all := slices.Clone(ops)
	slices.SortFunc(all, func(a, b Op) int { return int(a.Return - b.Return) })
	return all
}
