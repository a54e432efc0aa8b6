package place

import (
	"fmt"
	"slices"
	"strings"

	"ecs/control/state"
	"ecs/internal/task"
)

// Explain says why a pending task has no node yet, in a sentence for people,
// and its position in the queue: 1 is the next. For a task that does not wait
// it answers "" and 0. It reads all nodes and the queue up to the task.
func Explain(sn *state.Snapshot, h Hints, id task.ID) (because string, position int) {
	t := sn.Task(id)
	if t == nil || t.State != task.Pending {
		return "", 0
	}
	if t.BackingOff {
		return backoff(t), 0
	}
	for other := range sn.Pending() {
		position++
		if other.Seq >= t.Seq {
			break
		}
	}
	return survey(sn, h, &t.Spec).sentence(&t.Spec), position
}

// backoff says how the last attempt ended and when there will be another:
// "attempt 1 exited with code 3, the next may begin at 2026-01-02T03:04:05Z (1 of
// at most 4 retries of the program)".
func backoff(t *task.Task) string {
	last := &t.Attempts[len(t.Attempts)-1]
	how := "ended as " + string(last.Outcome)
	if last.Outcome == task.Exited {
		how = fmt.Sprintf("exited with code %d", last.ExitCode)
	}
	lost, failed := t.Failures()
	of := fmt.Sprintf("%d of at most %s of the program", failed, retries(t.Spec.ProgramRetries))
	if last.Outcome.Infrastructure() {
		of = fmt.Sprintf("%d of at most %s after losses", lost, retries(t.Spec.InfrastructureRetries))
	}
	return fmt.Sprintf("attempt %d %s, the next may begin at %s (%s)", last.Number, how,
		last.RetryAt.UTC().Format("2006-01-02T15:04:05.999Z07:00"), of)
}

func retries(n int) string {
	if n == 1 {
		return "1 retry"
	}
	return fmt.Sprintf("%d retries", n)
}

// Possible reports whether a node of the cluster could hold the task if it were
// empty and took tasks, and if not why. Nodes that left don't count; where there
// is none at all the task may wait for one.
func Possible(sn *state.Snapshot, s task.Spec) (ok bool, because string) {
	found := tally{}
	for n := range sn.Nodes() {
		if n.Status == task.Left {
			continue
		}
		found.nodes++
		switch v := never(n, &s); v {
		case "":
			return true, ""
		default:
			found.count(v, n.Capacity, n)
		}
	}
	if found.nodes == 0 {
		return true, ""
	}
	return false, found.sentence(&s)
}

// verdict is why a node can't take a task; empty if it can.
type verdict string

// The verdicts, the lasting ones last. A node gets the first that applies.
const (
	lost     verdict = "lost"
	draining verdict = "draining"
	unfit    verdict = "unfit"
	suspect  verdict = "suspect"
	zoned    verdict = "zoned"
	closed   verdict = "closed"
	small    verdict = "small"
	full     verdict = "full"
)

// never judges what no wait will change.
func never(n *task.Node, s *task.Spec) verdict {
	zones := s.Placement.Zones
	switch {
	case len(zones) > 0 && !slices.Contains(zones, n.Zone):
		return zoned
	case s.Network == task.NetworkEgress && !hasEgress(n):
		return closed
	case !n.Capacity.Fits(s.Resources):
		return small
	}
	return ""
}

// judge says whether a node can take a task now.
func judge(n *task.Node, h Hints, s *task.Spec) verdict {
	if v := never(n, s); v != "" {
		return v
	}
	switch {
	case n.Status == task.Lost:
		return lost
	case n.Drain || n.Status == task.Draining:
		return draining
	case n.Unfit != "":
		return unfit
	case h.Avoid[n.ID]:
		return suspect
	case !n.Free().Fits(s.Resources):
		return full
	}
	return ""
}

// tally counts the verdicts over the cluster.
type tally struct {
	nodes, able int
	counts      map[verdict]int
	most        map[verdict]task.Capacity // the most that is there to take
	reason      string                    // why the first unfit node is
}

func survey(sn *state.Snapshot, h Hints, s *task.Spec) *tally {
	found := &tally{}
	for n := range sn.Nodes() {
		if n.Status == task.Left {
			continue
		}
		found.nodes++
		v := judge(n, h, s)
		switch v {
		case "":
			found.able++
		case small:
			found.count(v, n.Capacity, n)
		default:
			found.count(v, n.Free(), n)
		}
	}
	return found
}

func (f *tally) count(v verdict, room task.Capacity, n *task.Node) {
	if f.counts == nil {
		f.counts, f.most = make(map[verdict]int), make(map[verdict]task.Capacity)
	}
	f.counts[v]++
	most, seen := f.most[v]
	if !seen || room.MilliCPU > most.MilliCPU || room.MilliCPU == most.MilliCPU && room.Memory > most.Memory {
		f.most[v] = room
	}
	if v == unfit && f.reason == "" {
		f.reason = n.Unfit
	}
}

// sentence says it to people: "0 of 3 nodes can take it: 2 have no room (it
// needs 250m CPU and 256 MiB; the most free is 100m CPU and 1 GiB), 1 is
// draining".
func (f *tally) sentence(s *task.Spec) string {
	if f.nodes == 0 {
		return "no node has joined the cluster"
	}
	head := fmt.Sprintf("%d of %s can take it", f.able, plural(f.nodes, "node"))
	if f.able > 0 {
		return head + ": it is about to be placed"
	}
	var parts []string
	say := func(v verdict, one, many, detail string) {
		if n := f.counts[v]; n == 1 {
			parts = append(parts, "1 "+one+detail)
		} else if n > 1 {
			parts = append(parts, fmt.Sprintf("%d %s%s", n, many, detail))
		}
	}
	need := amount(task.Capacity{MilliCPU: s.Resources.MilliCPU, Memory: s.Resources.Memory})
	say(full, "has no room", "have no room", fmt.Sprintf(" (it needs %s; the most free is %s)", need, amount(f.most[full])))
	say(small, "is too small", "are too small", fmt.Sprintf(" (it needs %s; the largest has %s)", need, amount(f.most[small])))
	say(draining, "is draining", "are draining", "")
	say(lost, "is lost", "are lost", "")
	say(suspect, "is out of contact", "are out of contact", "")
	say(unfit, "can run nothing", "can run nothing", fmt.Sprintf(" (%s)", f.reason))
	say(closed, "has no egress network", "have no egress network", "")
	say(zoned, "is in another zone", "are in other zones", fmt.Sprintf(" (it asks for %s)", strings.Join(s.Placement.Zones, ", ")))
	return head + ": " + strings.Join(parts, ", ")
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// amount writes a capacity as people do: "250m CPU and 256 MiB".
func amount(c task.Capacity) string {
	return fmt.Sprintf("%dm CPU and %s", max(0, c.MilliCPU), size(max(0, c.Memory)))
}

func size(bytes int64) string {
	switch {
	case bytes >= 1<<30 && bytes%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", bytes>>30)
	case bytes >= 10<<30:
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}
