package state_test

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"ecs/control/state"
	"ecs/internal/task"
)

var (
	seeds = flag.Uint64("seeds", 8, "how many seeds the model test runs")
	steps = flag.Int("steps", 2000, "how many entries each seed applies")
)

// Random commands, right and wrong ones, applied one entry after the other.
// After each the invariants are checked against what the model knows.
func TestRandomCommandsKeepTheInvariants(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			t.Parallel()
			m := newModel(t, seed)
			for range *steps {
				m.step()
				if t.Failed() {
					t.Fatalf("at entry %d", m.w.index)
				}
			}
			m.enough()
			m.replicas(true)
		})
	}
}

// modelLimits make the queue full now and then.
var modelLimits = state.Limits{MaxPending: 30}

// model drives a store and remembers what must stay true.
type model struct {
	*testing.T
	w   *world
	rng *rand.Rand

	accepted map[task.ID]*task.Task // every task that was acknowledged and not forgotten
	finished map[task.ID]*task.Task // their final records
	tokens   []task.Token           // every attempt ever placed
	allowed  map[task.NodeID]task.Capacity
	seen     map[string]int // commands that changed something, by kind

	follower *state.Store // applies every entry
	restored *state.Store // is restored from a snapshot now and then
}

func newModel(t *testing.T, seed uint64) *model {
	return &model{
		T:        t,
		w:        limitedWorld(t, modelLimits),
		rng:      rand.New(rand.NewPCG(seed, 1)),
		accepted: make(map[task.ID]*task.Task),
		finished: make(map[task.ID]*task.Task),
		allowed:  make(map[task.NodeID]task.Capacity),
		seen:     make(map[string]int),
		follower: state.NewStore(modelLimits),
		restored: state.NewStore(modelLimits),
	}
}

// step applies one entry, most often of one command.
func (m *model) step() {
	commands := []state.Command{m.command()}
	for m.rng.IntN(5) == 0 {
		commands = append(commands, m.command())
	}
	if m.rng.IntN(8) == 0 {
		commands = append(commands, m.access())
	}
	if m.rng.IntN(8) == 0 {
		commands = append(commands, m.gossip())
	}
	before := m.w.sn()
	m.apply(before, commands)
	if len(commands) == 1 && m.rng.IntN(10) == 0 {
		m.again(commands[0])
	}
	if m.rng.IntN(20) == 0 {
		m.indexes()
	}
	if m.rng.IntN(100) == 0 {
		m.replicas(m.rng.IntN(3) < 2)
	}
}

func (m *model) apply(before *state.Snapshot, commands []state.Command) []state.Outcome {
	outcomes := m.w.all(commands...)
	entry := m.w.log[len(m.w.log)-1]
	for _, s := range []*state.Store{m.follower, m.restored} {
		got, err := s.Apply(m.w.index, entry)
		if err != nil {
			m.Fatalf("replica: %v", err)
		}
		if !reflect.DeepEqual(got, outcomes) {
			m.Errorf("replica decided %+v, the first %+v", got, outcomes)
		}
	}
	after := m.w.sn()
	for i, c := range commands {
		m.learn(c, outcomes[i], after)
	}
	m.invariants(before, after, len(commands) == 1)
	if len(commands) == 1 {
		m.decided(before, commands[0], outcomes[0])
	}
	return outcomes
}

// learn takes note of what an outcome promised.
func (m *model) learn(c state.Command, out state.Outcome, after *state.Snapshot) {
	if out.Err != nil {
		m.seen[fmt.Sprintf("%T refused", c)]++
		return
	}
	m.seen[fmt.Sprintf("%T", c)]++
	switch c := c.(type) {
	case state.Submit:
		if !out.Existed {
			m.accepted[out.Task.ID] = out.Task
			if live := out.Task.Live(); live != nil {
				m.tokens = append(m.tokens, live.Token(out.Task.ID))
				m.seen["placed at once"]++
			}
		}
	case state.Place:
		for _, id := range out.Placed {
			if t := after.Task(id); t != nil && len(t.Attempts) > 0 {
				a := &t.Attempts[len(t.Attempts)-1]
				m.tokens = append(m.tokens, a.Token(id))
			}
		}
		m.seen["placed"] += len(out.Placed)
	case state.Forget:
		for _, id := range out.Ended {
			delete(m.accepted, id)
			delete(m.finished, id)
		}
		m.seen["forgotten"] += len(out.Ended)
	case state.Finish:
		if out.Task.BackingOff {
			m.seen["backing off"]++
		}
	case state.Resume:
		m.seen["resumed"] += len(out.Ended)
	case state.Register:
		m.allowed[c.Node.ID] = out.Node.Reserved // shrinks from here, save for what fits
	}
	m.seen["lost"] += len(out.Lost)
}

// invariants compares two snapshots: S1, S2, S7 and S15 of the reliability
// plan.
func (m *model) invariants(before, after *state.Snapshot, single bool) {
	for id, first := range m.accepted {
		now := after.Task(id)
		if now == nil {
			m.Errorf("accepted task %s is gone", id)
			continue
		}
		spec := first.Spec
		if now.State == task.Finished {
			spec = spec.Wiped()
		}
		if !reflect.DeepEqual(now.Spec, spec) || now.Seq != first.Seq || now.Key != first.Key || now.Owner != first.Owner {
			m.Errorf("task %s: what was accepted has changed: %+v, was %+v", id, now, first)
		}
		if old := before.Task(id); old != nil && single && old.State != now.State && !old.State.CanFollow(now.State) {
			m.Errorf("task %s went from %s to %s", id, old.State, now.State)
		}
		lost, failed := now.Failures()
		most := 1 + now.Spec.InfrastructureRetries + now.Spec.ProgramRetries
		if now.State != task.Finished && (lost > now.Spec.InfrastructureRetries || failed > now.Spec.ProgramRetries) {
			m.Errorf("task %s goes on after %d losses and %d failures: %+v", id, lost, failed, now.Spec)
		}
		if now.BackingOff && (now.State != task.Pending || now.StopAs != "") {
			m.Errorf("task %s backs off and is %s", id, now.State)
		}
		if old := before.Task(id); single && old != nil && old.BackingOff && now.State == task.Assigned {
			m.Errorf("task %s was placed while it backed off", id)
		}
		if now.Spec.Delivery == task.AtMostOnce {
			most = 1
		}
		if len(now.Attempts) > most {
			m.Errorf("task %s has %d attempts, at most %d are allowed", id, len(now.Attempts), most)
		}
		m.ended(id, now)
	}
	m.capacity(after)
}

// ended checks that a finished record is complete and never changes again.
func (m *model) ended(id task.ID, now *task.Task) {
	if last := m.finished[id]; last != nil {
		if last != now {
			m.Errorf("finished task %s changed: %+v, was %+v", id, now, last)
		}
		return
	}
	if now.State != task.Finished {
		if now.Result != nil || !now.FinishedAt.IsZero() {
			m.Errorf("task %s is %s and has a result", id, now.State)
		}
		return
	}
	if now.Result == nil || now.Result.Outcome == "" || now.FinishedAt.IsZero() || now.Result.Attempt != len(now.Attempts) {
		m.Errorf("task %s finished with %+v", id, now.Result)
	}
	for _, a := range now.Attempts {
		if a.Outcome == "" || a.EndedAt.IsZero() {
			m.Errorf("task %s finished with a live attempt %+v", id, a)
		}
	}
	m.finished[id] = now
	m.seen[string(now.Result.Outcome)]++
}

// capacity recounts what is reserved. A node that registered with less than its
// attempts hold may stay over its capacity, but takes nothing more.
func (m *model) capacity(after *state.Snapshot) {
	for n := range after.Nodes() {
		var held task.Capacity
		count := 0
		for t := range after.Newest(0) {
			if live := t.Live(); live != nil && live.Node == n.ID {
				held.MilliCPU += t.Spec.Resources.MilliCPU
				held.Memory += t.Spec.Resources.Memory
				held.Pids += t.Spec.Resources.Pids
				count++
			}
		}
		if held != n.Reserved || count != n.Attempts {
			m.Errorf("node %s: reserved %+v by %d, its attempts hold %+v by %d", n.ID, n.Reserved, n.Attempts, held, count)
		}
		most := task.Capacity{
			MilliCPU: max(n.Capacity.MilliCPU, m.allowed[n.ID].MilliCPU),
			Memory:   max(n.Capacity.Memory, m.allowed[n.ID].Memory),
		}
		if held.MilliCPU > most.MilliCPU || held.Memory > most.Memory {
			m.Errorf("node %s: %+v is reserved of %+v", n.ID, held, most)
		}
		m.allowed[n.ID] = held
	}
}

// decided checks S3, S4 and S8: who was right to report, and what a key means.
func (m *model) decided(before *state.Snapshot, c state.Command, out state.Outcome) {
	live := func(tok task.Token) bool {
		t := before.Task(tok.Task)
		return t != nil && t.Live() != nil && t.Live().Token(t.ID) == tok
	}
	switch c := c.(type) {
	case state.Finish:
		if got, want := out.Err == nil, live(c.Token); got != want {
			m.Errorf("result of %+v: accepted %v, live %v", c.Token, got, want)
		}
	case state.Progress:
		if got, want := out.Err == nil, live(c.Token); got != want {
			m.Errorf("progress of %+v: accepted %v, live %v", c.Token, got, want)
		}
	case state.LoseAttempt:
		if got, want := out.Err == nil, live(c.Token); got != want {
			m.Errorf("loss of %+v: accepted %v, live %v", c.Token, got, want)
		}
	case state.Submit:
		known := before.Task(c.Task.ID)
		if known == nil && c.Task.Key != "" {
			known = before.ByKey(c.Task.Owner, c.Task.Key)
		}
		if out.Err == nil && out.Existed != (known != nil) {
			m.Errorf("submit %s with key %q: existed %v, known %v", c.Task.ID, c.Task.Key, out.Existed, known != nil)
		}
		if m.overQuota(before, c) {
			break
		}
		if known == nil && out.Err != nil && max(before.Counts().Pending, before.Counts().BackingOff) < modelLimits.MaxPending {
			m.Errorf("submit %s: refused with room in the queue: %v", c.Task.ID, out.Err)
		}
	}
}

// overQuota reports whether the owner of a submission has its share waiting, or
// backing off.
func (m *model) overQuota(before *state.Snapshot, c state.Submit) bool {
	var want state.Waiting
	for t := range before.Newest(0) {
		switch {
		case t.Owner != c.Task.Owner:
		case t.BackingOff:
			want.BackingOff++
			want.BackingOffBytes += state.Size(t)
			if !t.Attempts[len(t.Attempts)-1].Outcome.Infrastructure() {
				want.Failed++
				want.FailedBytes += state.Size(t)
			}
		case t.State == task.Pending:
			want.Tasks++
			want.Bytes += state.Size(t)
		}
	}
	if got := before.WaitingOf(c.Task.Owner); got != want {
		m.Errorf("%s is said to have %+v waiting, it has %+v", c.Task.Owner, got, want)
	}
	over := c.Quota > 0 && max(want.Tasks, want.Failed) >= c.Quota
	if over {
		m.seen["over quota"]++
	}
	return over
}

// again applies a command a second time: it changes no task.
func (m *model) again(c state.Command) {
	before := m.w.sn()
	if submit, ok := c.(state.Submit); ok && before.Task(submit.Task.ID) == nil {
		return // it was refused for a full queue, which may have room now
	}
	if _, ok := c.(state.Resume); ok {
		return // the time of some may have come meanwhile
	}
	m.apply(before, []state.Command{c})
	for t := range before.Newest(0) {
		if now := m.w.sn().Task(t.ID); now != t {
			m.Errorf("%T applied twice changed task %s: %+v, was %+v", c, t.ID, now, t)
		}
	}
}

// replicas checks S16: replay, and snapshot with tail, give the same bytes.
func (m *model) replicas(restore bool) {
	want := m.w.sn().Hash()
	if got := m.follower.Snapshot().Hash(); got != want {
		m.Errorf("replayed: got hash %x, want %x", got, want)
	}
	if got := m.restored.Snapshot().Hash(); got != want {
		m.Errorf("snapshot and tail: got hash %x, want %x", got, want)
	}
	if !restore {
		return
	}
	b := written(m, m.w.sn())
	if m.rng.IntN(2) == 0 {
		m.restored = state.NewStore(modelLimits) // a new node
	}
	if err := m.restored.Restore(bytes.NewReader(b)); err != nil {
		m.Errorf("restore: %v", err)
	}
	m.seen["restored"]++
}

// enough fails when the commands did not reach what they are to test.
func (m *model) enough() {
	for _, what := range []string{
		"state.Submit", "state.Submit refused", "state.Register", "placed", "placed at once", "state.Progress", "state.Progress refused",
		"state.Finish", "state.Finish refused", "state.Stop", "state.LoseNode", "state.LoseNode refused", "lost",
		"state.LoseAttempt", "state.LoseAttempt refused", "state.SetNode", "state.Expire", "forgotten", "restored",
		"state.PutKey", "state.PutKey refused", "state.RevokeKey", "state.PutToken", "state.SpendToken", "state.SpendToken refused", "state.RevokeCertificate", "over quota",
		"state.RotateGossipKey", "state.RotateGossipKey refused", "state.ConfirmGossipKey", "state.AdvanceGossipKey",
		"backing off", "resumed", "exited", "cancelled", "deadline_exceeded", "queue_expired", "node_lost", "interrupted",
	} {
		if m.seen[what] < 3 {
			m.Errorf("%s happened %d times, too few to prove anything: %v", what, m.seen[what], m.seen)
		}
	}
}
