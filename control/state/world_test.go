package state_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"ecs/control/state"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

// world is a store with the log that made it.
type world struct {
	t     testing.TB
	store *state.Store
	index uint64
	now   time.Time
	log   [][]byte
}

func newWorld(t testing.TB) *world { return limitedWorld(t, state.Limits{}) }

func limitedWorld(t testing.TB, lim state.Limits) *world {
	return &world{t: t, store: state.NewStore(lim), now: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}
}

// all applies commands as one entry, a second after the last.
func (w *world) all(commands ...state.Command) []state.Outcome {
	w.t.Helper()
	w.now = w.now.Add(time.Second)
	w.index++
	b := entry(w.t, w.now, commands...)
	w.log = append(w.log, b)
	out, err := w.store.Apply(w.index, b)
	if err != nil {
		w.t.Fatalf("apply entry %d: %v", w.index, err)
	}
	return out
}

func (w *world) do(c state.Command) state.Outcome {
	w.t.Helper()
	return w.all(c)[0]
}

// must is do for what may not be refused.
func (w *world) must(c state.Command) state.Outcome {
	w.t.Helper()
	out := w.do(c)
	if out.Err != nil {
		w.t.Fatalf("%T: got refusal %v, want none", c, out.Err)
	}
	return out
}

func (w *world) sn() *state.Snapshot { return w.store.Snapshot() }

func (w *world) task(id task.ID) *task.Task {
	w.t.Helper()
	t := w.sn().Task(id)
	if t == nil {
		w.t.Fatalf("task %s is unknown", id)
	}
	return t
}

func (w *world) node(id task.NodeID) *task.Node {
	w.t.Helper()
	n := w.sn().Node(id)
	if n == nil {
		w.t.Fatalf("node %s is unknown", id)
	}
	return n
}

// register adds a node with room for 4 tasks of spec.
func (w *world) register(id task.NodeID, running ...task.Token) *task.Node {
	w.t.Helper()
	return w.must(state.Register{Node: aNode(id), Running: running}).Node
}

func (w *world) submit(id task.ID, edit ...func(*task.Task)) *task.Task {
	w.t.Helper()
	return w.must(state.Submit{Task: aTask(id, edit...)}).Task
}

// place gives a pending task its next attempt on a node.
func (w *world) place(id task.ID, node task.NodeID) task.Token {
	w.t.Helper()
	t, n := w.task(id), w.node(node)
	d := state.Decision{Task: id, Attempt: len(t.Attempts) + 1, Node: node, Epoch: n.Epoch}
	if out := w.must(state.Place{Decisions: []state.Decision{d}}); len(out.Placed) != 1 {
		w.t.Fatalf("place %s on %s: got no placement, want one", id, node)
	}
	return w.task(id).Live().Token(id)
}

// live submits a task and places it.
func (w *world) live(id task.ID, node task.NodeID, edit ...func(*task.Task)) task.Token {
	w.t.Helper()
	w.submit(id, edit...)
	return w.place(id, node)
}

func (w *world) finish(tok task.Token, o task.Outcome) state.Outcome {
	w.t.Helper()
	return w.do(state.Finish{Token: tok, Result: task.Result{Outcome: o}})
}

// copy replays the whole log into another store.
func (w *world) copy(lim state.Limits) *state.Store {
	w.t.Helper()
	s := state.NewStore(lim)
	for i, b := range w.log {
		if _, err := s.Apply(uint64(i+1), b); err != nil {
			w.t.Fatalf("replay entry %d: %v", i+1, err)
		}
	}
	return s
}

func entry(t testing.TB, now time.Time, commands ...state.Command) []byte {
	t.Helper()
	var m ecsv1.Entry
	for _, c := range commands {
		m.Commands = append(m.Commands, state.ToWire(c, now))
	}
	b, err := proto.Marshal(&m)
	if err != nil {
		t.Fatalf("marshal an entry: %v", err)
	}
	return b
}

func written(t testing.TB, sn *state.Snapshot) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := sn.Write(&b); err != nil {
		t.Fatalf("write a snapshot: %v", err)
	}
	return b.Bytes()
}

const (
	taskCPU    = 250
	taskMemory = 256 << 20
)

func aTask(id task.ID, edit ...func(*task.Task)) *task.Task {
	t := &task.Task{
		ID:      id,
		CID:     "cid-" + string(id),
		Owner:   "ann",
		BodyMAC: []byte(id),
		API:     task.V2,
		Spec: task.Spec{
			Image:   "docker.io/library/busybox:1.36",
			Command: []string{"date"},
			Labels:  map[string]string{"a": "1", "b": "2", "c": "3"},
			Secrets: []byte("sealed"),
			HasAuth: true,
			Stdin:   []byte("typed"), StdinSize: 5,
			Files: []task.File{{Path: "/a", Mode: 0o600, Content: []byte("content"), Size: 7}},

			InfrastructureRetries: 2,
		}.WithDefaults(task.V2, false),
		Bill: task.Bill{Accepted: time.Millisecond},
	}
	for _, e := range edit {
		e(t)
	}
	return t
}

func keyed(key string) func(*task.Task)   { return func(t *task.Task) { t.Key = key } }
func owned(owner string) func(*task.Task) { return func(t *task.Task) { t.Owner = owner } }
func body(mac string) func(*task.Task)    { return func(t *task.Task) { t.BodyMAC = []byte(mac) } }
func lasting(l time.Duration) func(*task.Task) {
	return func(t *task.Task) { t.Spec.Lease = l }
}
func retrying(n int) func(*task.Task) {
	return func(t *task.Task) { t.Spec.InfrastructureRetries = n }
}
func atMostOnce(t *task.Task) { t.Spec.Delivery = task.AtMostOnce }

func aNode(id task.NodeID) task.Node {
	return task.Node{
		ID:         id,
		Name:       "name-" + string(id),
		Zone:       "zone-" + string(id[len(id)-1:]),
		Capacity:   task.Capacity{MilliCPU: 4 * taskCPU, Memory: 4 * taskMemory},
		Attributes: map[string]string{task.AttributeEgress: "true"},
		OutputAddr: string(id) + ":7451",
		Version:    "1",
		Engine:     "fake",
	}
}

// wantCode fails unless err is a refusal with the code; "" wants none.
func wantCode(t testing.TB, err error, code task.Code) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Errorf("got refusal %v, want none", err)
		}
		return
	}
	var refusal *task.Error
	if !errors.As(err, &refusal) || refusal.Code != code {
		t.Errorf("got %v, want a refusal with code %s", err, code)
	}
}

func ids[T any](list []T, id func(T) task.ID) string {
	out := make([]task.ID, len(list))
	for i, v := range list {
		out[i] = id(v)
	}
	return fmt.Sprint(out)
}

func taskIDs(list []*task.Task) string {
	return ids(list, func(t *task.Task) task.ID { return t.ID })
}

// closed reports whether a watch has fired.
func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
