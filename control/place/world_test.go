package place_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"ecs/control/place"
	"ecs/control/state"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

// world builds snapshots by applying commands, as a control node does.
type world struct {
	t     testing.TB
	store *state.Store
	index uint64
}

func newWorld(t testing.TB) *world { return &world{t: t, store: state.NewStore(state.Limits{})} }

func (w *world) all(commands ...state.Command) []state.Outcome {
	w.t.Helper()
	w.index++
	now := time.Unix(1_700_000_000+int64(w.index), 0)
	var m ecsv1.Entry
	for _, c := range commands {
		m.Commands = append(m.Commands, state.ToWire(c, now))
	}
	b, err := proto.Marshal(&m)
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := w.store.Apply(w.index, b)
	if err != nil {
		w.t.Fatal(err)
	}
	for i, o := range out {
		if o.Err != nil {
			w.t.Fatalf("%T: got refusal %v, want none", commands[i], o.Err)
		}
	}
	return out
}

func (w *world) sn() *state.Snapshot { return w.store.Snapshot() }

// node adds a node of four CPUs and 8 GiB.
func (w *world) node(id task.NodeID, zone string, edit ...func(*task.Node)) {
	w.t.Helper()
	n := task.Node{
		ID:         id,
		Zone:       zone,
		Capacity:   task.Capacity{MilliCPU: 4000, Memory: 8 << 30},
		Attributes: map[string]string{task.AttributeEgress: "true"},
	}
	for _, e := range edit {
		e(&n)
	}
	w.all(state.Register{Node: n})
}

// submit adds a pending task of one CPU and 1 GiB.
func (w *world) submit(id task.ID, edit ...func(*task.Spec)) {
	w.t.Helper()
	w.all(state.Submit{Task: aTask(id, edit...)})
}

func aTask(id task.ID, edit ...func(*task.Spec)) *task.Task {
	s := task.Spec{
		Image:                 "docker.io/library/busybox:1.36",
		Resources:             task.Resources{MilliCPU: 1000, Memory: 1 << 30},
		InfrastructureRetries: 10,
	}.WithDefaults(task.V2, false)
	for _, e := range edit {
		e(&s)
	}
	return &task.Task{ID: id, Owner: "ann", API: task.V2, Spec: s}
}

// place commits decisions and fails unless all of them are accepted.
func (w *world) place(decisions []state.Decision) {
	w.t.Helper()
	if out := w.all(state.Place{Decisions: decisions})[0]; len(out.Placed) != len(decisions) {
		w.t.Fatalf("got %d of %d decisions accepted", len(out.Placed), len(decisions))
	}
}

// put runs a task on the node.
func (w *world) put(id task.ID, node task.NodeID, edit ...func(*task.Spec)) {
	w.t.Helper()
	w.submit(id, edit...)
	w.putAgain(id, node)
}

func (w *world) putAgain(id task.ID, node task.NodeID) {
	w.t.Helper()
	w.place([]state.Decision{{
		Task:    id,
		Attempt: len(w.sn().Task(id).Attempts) + 1,
		Node:    node,
		Epoch:   w.sn().Node(node).Epoch,
	}})
}

// fail ends a task's live attempt so that it waits again.
func (w *world) fail(id task.ID, o task.Outcome) {
	w.t.Helper()
	tok := w.sn().Task(id).Live().Token(id)
	if o == task.NodeLost {
		w.all(state.LoseAttempt{Token: tok})
		return
	}
	w.all(state.Finish{Token: tok, Result: task.Result{Outcome: o}})
}

// chosen says where each task would be placed.
func chosen(sn *state.Snapshot, h place.Hints) map[task.ID]task.NodeID {
	out := make(map[task.ID]task.NodeID)
	for _, d := range place.Place(sn, h, 0) {
		out[d.Task] = d.Node
	}
	return out
}

func size(cpu, memory int64) func(*task.Spec) {
	return func(s *task.Spec) { s.Resources.MilliCPU, s.Resources.Memory = cpu, memory }
}

func zones(names ...string) func(*task.Spec) {
	return func(s *task.Spec) { s.Placement.Zones = names }
}

func image(ref string) func(*task.Spec) { return func(s *task.Spec) { s.Image = ref } }
func packed(s *task.Spec)               { s.Placement.Spread = task.BinPack }
func egress(s *task.Spec)               { s.Network = task.NetworkEgress }

func capacity(cpu, memory int64) func(*task.Node) {
	return func(n *task.Node) { n.Capacity = task.Capacity{MilliCPU: cpu, Memory: memory} }
}

func noEgress(n *task.Node) { n.Attributes = nil }
