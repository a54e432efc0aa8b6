package ecstest

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"

	"ecs/agent/runtime/fake"
	"ecs/control/state"
	"ecs/internal/task"
	"ecs/proto/api"
)

// witness watches every snapshot of every control node while the cluster runs.
type witness struct {
	c  *Cluster
	mu struct {
		sync.Mutex
		problems []string
		final    map[task.ID]*task.Result
		hashes   map[uint64][32]byte // log index -> state hash
		busiest  int                 // most attempts seen on one node
	}
}

func newWitness(c *Cluster) *witness {
	w := &witness{c: c}
	w.mu.final = make(map[task.ID]*task.Result)
	w.mu.hashes = make(map[uint64][32]byte)
	return w
}

func (w *witness) problem(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.mu.problems) < 20 {
		w.mu.problems = append(w.mu.problems, fmt.Sprintf(format, args...))
	}
}

// control watches one control node's record until the cluster stops.
func (w *witness) control(n *Control) {
	server := n.server
	w.c.running.Go(func() {
		for {
			sn := server.Snapshot()
			changed := sn.WatchNodes()
			w.capacity(n.host.Name(), sn)
			select {
			case <-changed:
			case <-w.c.ctx.Done():
				return
			}
		}
	})
}

// capacity checks S15: reserved is the sum of live attempts and fits.
func (w *witness) capacity(host string, sn *state.Snapshot) {
	for n := range sn.Nodes() {
		var sum task.Capacity
		count := 0
		for t := range sn.On(n.ID) {
			sum.MilliCPU += t.Spec.Resources.MilliCPU
			sum.Memory += t.Spec.Resources.Memory
			count++
		}
		if sum.MilliCPU != n.Reserved.MilliCPU || sum.Memory != n.Reserved.Memory || count != n.Attempts {
			w.problem("%s index %d: node %s reserves %+v for %d attempts, its %d attempts need %+v", host, sn.Index(), n.ID, n.Reserved, n.Attempts, count, sum)
		}
		if sum.MilliCPU > n.Capacity.MilliCPU || sum.Memory > n.Capacity.Memory {
			w.problem("%s index %d: node %s has %+v of %+v in use", host, sn.Index(), n.ID, sum, n.Capacity)
		}
		w.mu.Lock()
		w.mu.busiest = max(w.mu.busiest, count)
		w.mu.Unlock()
	}
}

// Settle waits until every promised task has ended on every control node and
// all of them have the same record.
func (c *Cluster) Settle(limit time.Duration) {
	c.T.Helper()
	c.Until(limit, "every accepted task ended and every control node agrees", func() bool {
		var index uint64
		for i, n := range c.Controls {
			sn := n.server.Snapshot()
			if i > 0 && sn.Index() != index {
				return false
			}
			index = sn.Index()
			for id := range c.Client.Accepted() {
				if t := sn.Task(task.ID(id)); t != nil && t.State != task.Finished {
					return false
				}
			}
		}
		return true
	})
}

// Violations checks the invariants of RELIABILITY.md 3.3 that a bubble can
// see, after Settle, and returns every one that does not hold.
func (c *Cluster) Violations() []string {
	w := c.watch
	first := c.Controls[0].server.Snapshot()
	for _, n := range c.Controls[1:] {
		if got := n.server.Snapshot(); got.Hash() != first.Hash() {
			w.problem("S16: %s and %s differ at index %d", c.Controls[0].host.Name(), n.host.Name(), got.Index())
		}
	}
	for id, p := range c.Client.Accepted() {
		t := first.Task(task.ID(id))
		if t == nil {
			w.problem("S1: accepted task %s (key %q) is gone", id, p.key)
			continue
		}
		if t.Result == nil {
			w.problem("S3: task %s has no result", id)
			continue
		}
		lost, failed := t.Failures()
		if len(t.Attempts) > 1+t.Spec.InfrastructureRetries+t.Spec.ProgramRetries || lost > 1+t.Spec.InfrastructureRetries || failed > 1+t.Spec.ProgramRetries {
			w.problem("S7: task %s had %d attempts, %d lost and %d ended otherwise; allowed were %d and %d again", id,
				len(t.Attempts), lost, failed, t.Spec.InfrastructureRetries, t.Spec.ProgramRetries)
		}
		if t.Result.Attempt != len(t.Attempts) {
			w.problem("S4: task %s has the result of attempt %d, its last is %d", id, t.Result.Attempt, len(t.Attempts))
		}
		if t.Spec.Delivery == task.AtMostOnce && len(t.Attempts) > 1 {
			w.problem("S6: at-most-once task %s had %d attempts", id, len(t.Attempts))
		}
		c.output(t)
	}
	c.runs()
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.mu.problems)
}

// output checks that a task has the output it was made to have, whatever
// happened to the agents meanwhile.
func (c *Cluster) output(t *task.Task) {
	want := t.Spec.Labels[labelOutput]
	if want == "" || t.Result.Outcome != task.Exited {
		return
	}
	if got := describeOutput(t.Result.Stdout.Bytes, t.Result.Stdout.SHA256); got != want {
		c.watch.problem("S12: task %s has output %s, its program wrote %s", t.ID, got, want)
	}
}

// labelOutput is the label that says what output a task is to have.
const labelOutput = "output"

func describeOutput(bytes int64, kept [sha256.Size]byte) string {
	return fmt.Sprintf("%d-%x", bytes, kept[:8])
}

// ExpectOutput notes what a task will write to its standard output, for
// CheckInvariants.
func ExpectOutput(req *api.TaskRequest, stdout []byte) {
	kept := stdout
	if most := int(req.MaxOutput); most > 0 {
		kept = stdout[:min(most, len(stdout))]
	}
	if req.Labels == nil {
		req.Labels = map[string]string{}
	}
	req.Labels[labelOutput] = describeOutput(int64(len(stdout)), sha256.Sum256(kept))
}

// leases checks that no program ran beyond its lease, agent or no agent, by more
// than what ending it takes.
func (c *Cluster) leases(host string, runs []fake.Run) {
	late := max(0, c.opts.SlowKill-task.FenceAhead)
	for _, r := range runs {
		end := r.EndedAt
		if end.IsZero() {
			end = time.Now()
		}
		switch {
		case r.Lease.IsZero():
			c.watch.problem("S17: task %s ran on %s without a lease", r.Token.Task, host)
		case end.After(r.Lease.Add(late)):
			c.watch.problem("S17: task %s ran on %s until %s, its lease ended %s", r.Token.Task, host,
				end.Format(time.StampMilli), r.Lease.Format(time.StampMilli))
		}
	}
}

// run is one program's life, as the engines saw it.
type run struct {
	task       task.ID
	attempt    int
	node       string
	start, end time.Time
}

// runs checks S5 and S6 by the engines' own histories: no two programs of one
// task at the same moment, and an at-most-once program started once at most.
func (c *Cluster) runs() {
	byTask := make(map[task.ID][]run)
	for _, a := range append(slices.Clone(c.Agents), c.former...) {
		history := a.engine.History()
		c.leases(a.host.Name(), history)
		used := make(map[int64]task.Token)
		for _, h := range history {
			if before, twice := used[h.Container]; twice {
				c.watch.problem("S13: a container on %s was used by %v and by %v", a.host.Name(), before, h.Token)
			}
			used[h.Container] = h.Token
		}
		for _, h := range history {
			end := h.EndedAt
			if end.IsZero() {
				end = time.Now().Add(time.Hour)
			}
			byTask[h.Token.Task] = append(byTask[h.Token.Task], run{h.Token.Task, h.Token.Attempt, a.host.Name(), h.StartedAt, end})
		}
	}
	sn := c.Controls[0].server.Snapshot()
	keys := make(map[string]task.ID)
	for id, all := range byTask {
		slices.SortFunc(all, func(a, b run) int { return a.start.Compare(b.start) })
		for i := 1; i < len(all); i++ {
			if all[i].start.Before(all[i-1].end) {
				c.watch.problem("S5: task %s ran twice at once: attempt %d on %s until %s, attempt %d on %s from %s", id,
					all[i-1].attempt, all[i-1].node, all[i-1].end.Format(time.StampMilli), all[i].attempt, all[i].node, all[i].start.Format(time.StampMilli))
			}
		}
		t := sn.Task(id)
		if t == nil {
			continue
		}
		if t.Spec.Delivery == task.AtMostOnce && len(all) > 1 {
			c.watch.problem("S6: at-most-once task %s started %d times", id, len(all))
		}
		// S8 by what really ran: a key that ran as two tasks is two tasks.
		name := keyOf(t)
		if name == "" {
			continue
		}
		if other, ok := keys[name]; ok && other != id {
			c.watch.problem("S8: key %q ran as tasks %s and %s", name, other, id)
		}
		keys[name] = id
	}
}

// keyOf is the key the client used, which it also puts into a label: the check
// must not rely on the field that it checks.
func keyOf(t *task.Task) string { return t.Spec.Labels["key"] }

// CheckInvariants fails the test for every violation.
func (c *Cluster) CheckInvariants() {
	c.T.Helper()
	for _, v := range c.Violations() {
		c.T.Error(v)
	}
	if c.T.Failed() {
		c.T.Log(c.describe())
	}
}
