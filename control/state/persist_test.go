package state_test

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// busyEnd is later than everything in a busy world.
var busyEnd = time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)

// busy makes a world with a task in every state.
func busy(t testing.TB) *world {
	w := newWorld(t)
	w.register("n1")
	w.register("n2")
	w.must(state.SetNode{Node: "n2", Drain: new(true)})
	w.submit("pending", keyed("kp"))
	w.must(state.PutKey{Key: aKey("ka", access.Admin)})
	w.must(state.PutKey{Key: aKey("kr", access.Run)})
	w.must(state.RevokeKey{ID: "kr", By: "ka"})
	w.must(state.PutToken{Token: access.Token{Hash: [32]byte{1}, Role: "agent", ExpiresAt: busyEnd}})
	w.must(state.SpendToken{Hash: [32]byte{1}, Role: "agent", Node: "n3", Request: [32]byte{2}})
	w.must(state.RevokeCertificate{Certificate: access.Revoked{Serial: "ab", ExpiresAt: busyEnd}})
	w.must(state.RevokeCertificate{Certificate: access.Revoked{Node: "n9"}})
	w.must(rotation(w.sn(), "g2"))
	w.must(state.ConfirmGossipKey{Node: "n1", Version: 1})
	w.must(state.ConfirmGossipKey{Node: "c1", Version: 1})
	w.live("assigned", "n1", keyed("ka"))
	w.must(state.Progress{Token: w.live("running", "n1", lasting(time.Minute)), StartedAt: w.now})
	w.must(state.Stop{Task: "running", Outcome: task.Cancelled})
	w.must(state.LoseAttempt{Token: w.live("again", "n1")})
	w.must(state.Finish{Token: w.live("finished", "n1", owned("bob"), keyed("kp")), Result: task.Result{
		Outcome: task.Exited, HasExit: true, ExitCode: 7,
		Stdout: task.Stream{Head: []byte{0, 255}, Bytes: 2, Kept: 2, SHA256: [32]byte{9}},
	}})
	return w
}

// same fails unless two snapshots hold and answer the same.
func same(t *testing.T, got, want *state.Snapshot) {
	t.Helper()
	if got.Index() != want.Index() || got.Counts() != want.Counts() {
		t.Errorf("got index %d, %+v, want %d, %+v", got.Index(), got.Counts(), want.Index(), want.Counts())
	}
	if !bytes.Equal(written(t, got), written(t, want)) || got.Hash() != want.Hash() {
		t.Error("the records differ in their bytes")
	}
	lists := func(sn *state.Snapshot) string {
		s := fmt.Sprint(taskIDs(slices.Collect(sn.Newest(0))), taskIDs(slices.Collect(sn.Pending())),
			taskIDs(slices.Collect(sn.Ended())), taskIDs(slices.Collect(sn.NewestOf("ann", 0))))
		for at, t := range sn.Deadlines() {
			s += fmt.Sprint(" ", t.ID, at)
		}
		for _, owner := range []string{"ann", "bob"} {
			s += fmt.Sprint(" ", owner, sn.WaitingOf(owner))
		}
		for n := range sn.Nodes() {
			s += fmt.Sprintf(" %+v %s", *n, taskIDs(slices.Collect(sn.On(n.ID))))
		}
		return s
	}
	if g, w := lists(got), lists(want); g != w {
		t.Errorf("got  %s\nwant %s", g, w)
	}
	for tk := range want.Newest(0) {
		if !reflect.DeepEqual(got.Task(tk.ID), tk) {
			t.Errorf("got  %+v\nwant %+v", got.Task(tk.ID), tk)
		}
		if tk.Key != "" && got.ByKey(tk.Owner, tk.Key) != got.Task(tk.ID) {
			t.Errorf("key %q of %s does not lead to %s", tk.Key, tk.Owner, tk.ID)
		}
	}
}

func TestARestoredStoreIsTheSame(t *testing.T) {
	w := busy(t)
	other := state.NewStore(state.Limits{})
	if _, err := other.Apply(3, entry(t, w.now, state.Submit{Task: aTask("old", keyed("kp"))})); err != nil {
		t.Fatal(err)
	}
	if err := other.Restore(bytes.NewReader(written(t, w.sn()))); err != nil {
		t.Fatal(err)
	}
	same(t, other.Snapshot(), w.sn())
	if other.Snapshot().Task("old") != nil {
		t.Error("a task of the record before is still there")
	}
	// And it goes on the same.
	next := entry(t, w.now, state.Submit{Task: aTask("new")}, state.Stop{Task: "again", Outcome: task.Cancelled})
	for _, s := range []*state.Store{w.store, other} {
		if _, err := s.Apply(w.index+1, next); err != nil {
			t.Fatal(err)
		}
	}
	same(t, other.Snapshot(), w.sn())
}

func TestAnEmptyStoreCanBeWrittenAndRestored(t *testing.T) {
	empty := state.NewStore(state.Limits{})
	w := busy(t)
	if err := w.store.Restore(bytes.NewReader(written(t, empty.Snapshot()))); err != nil {
		t.Fatal(err)
	}
	same(t, w.sn(), empty.Snapshot())
}

func TestRestoreWakesEveryWatcher(t *testing.T) {
	w := busy(t)
	bytesOf := written(t, w.sn())
	watches := map[string]<-chan struct{}{
		"pending": w.sn().WatchPending(),
		"nodes":   w.sn().WatchNodes(),
		"on":      w.sn().WatchOn("n1"),
		"any":     w.sn().Watch(),
	}
	for tk := range w.sn().Newest(0) {
		_, watches[string(tk.ID)] = w.sn().WatchTask(tk.ID)
	}
	_, watches["unknown"] = w.sn().WatchTask("unknown")
	if err := w.store.Restore(bytes.NewReader(bytesOf)); err != nil {
		t.Fatal(err)
	}
	for name, ch := range watches {
		if !closed(ch) {
			t.Errorf("watch of %s: got open, want closed", name)
		}
	}
}

func TestAHashTellsRecordsApart(t *testing.T) {
	a, b := busy(t), busy(t)
	if a.sn().Hash() != b.sn().Hash() {
		t.Error("equal records: got different hashes")
	}
	before := a.sn().Hash()
	a.all() // an entry without commands still moves the index
	if a.sn().Hash() == before {
		t.Error("another index: got the same hash")
	}
	b.must(state.Stop{Task: "assigned", Outcome: task.Cancelled})
	if a.sn().Hash() == b.sn().Hash() {
		t.Error("another record at the same index: got the same hash")
	}
}

// snapshotOf writes records as Write would, whatever they are.
func snapshotOf(t *testing.T, h *ecsv1.SnapshotHeader, nodes []*ecsv1.Node, tasks []*ecsv1.Task) []byte {
	t.Helper()
	var b bytes.Buffer
	put := func(m *ecsv1.SnapshotRecord) {
		if _, err := protodelim.MarshalTo(&b, m); err != nil {
			t.Fatal(err)
		}
	}
	put(&ecsv1.SnapshotRecord{Kind: &ecsv1.SnapshotRecord_Header{Header: h}})
	for _, n := range nodes {
		put(&ecsv1.SnapshotRecord{Kind: &ecsv1.SnapshotRecord_Node{Node: n}})
	}
	for _, tk := range tasks {
		put(&ecsv1.SnapshotRecord{Kind: &ecsv1.SnapshotRecord_Task{Task: tk}})
	}
	return b.Bytes()
}

func TestRestoreRefusesWhatItCannotTrust(t *testing.T) {
	sound := busy(t)
	whole := written(t, sound.sn())
	node := func() *ecsv1.Node { return taskwire.FromNode(sound.node("n1")) }
	tk := func(id task.ID, edit ...func(*ecsv1.Task)) *ecsv1.Task {
		m := proto.Clone(taskwire.FromTask(sound.task(id))).(*ecsv1.Task)
		for _, e := range edit {
			e(m)
		}
		return m
	}
	header := func(nodes, tasks int) *ecsv1.SnapshotHeader {
		return &ecsv1.SnapshotHeader{Format: 1, Index: 9, Nodes: uint64(nodes), Tasks: uint64(tasks)}
	}
	nodes := []*ecsv1.Node{node()}
	one := func(m *ecsv1.Task) []byte { return snapshotOf(t, header(1, 1), nodes, []*ecsv1.Task{m}) }
	if err := state.NewStore(state.Limits{}).Restore(bytes.NewReader(one(tk("running")))); err != nil {
		t.Fatalf("a sound snapshot: got %v, want none", err)
	}

	cases := map[string][]byte{
		"nothing":        nil,
		"another format": snapshotOf(t, &ecsv1.SnapshotHeader{Format: 2, Index: 1}, nil, nil),
		"no header":      snapshotOf(t, nil, nil, nil),
		"more than all":  append(bytes.Clone(whole), 0),
		"a task for a node": snapshotOf(t, header(1, 1), nil,
			[]*ecsv1.Task{tk("pending"), tk("assigned")}),
		"a node for a task": snapshotOf(t, header(1, 1), []*ecsv1.Node{node(), node()}, nil),
		"a node twice":      snapshotOf(t, header(2, 0), []*ecsv1.Node{node(), node()}, nil),
		"a node without id": snapshotOf(t, header(1, 0), []*ecsv1.Node{{}}, nil),
		"a task twice":      snapshotOf(t, header(1, 2), nodes, []*ecsv1.Task{tk("pending"), tk("pending")}),
		"one id for two": snapshotOf(t, header(1, 2), nodes,
			[]*ecsv1.Task{tk("pending"), tk("pending", func(m *ecsv1.Task) { m.Seq++ })}),
		"one key for two": snapshotOf(t, header(1, 2), nodes,
			[]*ecsv1.Task{tk("pending"), tk("pending", func(m *ecsv1.Task) { m.Seq++; m.Id = "x" })}),
		"out of order":             snapshotOf(t, header(1, 2), nodes, []*ecsv1.Task{tk("assigned"), tk("pending")}),
		"no id":                    one(tk("pending", func(m *ecsv1.Task) { m.Id = "" })),
		"no seq":                   one(tk("pending", func(m *ecsv1.Task) { m.Seq = 0 })),
		"no state":                 one(tk("pending", func(m *ecsv1.Task) { m.State = 0 })),
		"unknown state":            one(tk("pending", func(m *ecsv1.Task) { m.State = 5 })),
		"finished without result":  one(tk("finished", func(m *ecsv1.Task) { m.Result = nil })),
		"result before the end":    one(tk("running", func(m *ecsv1.Task) { m.Result = &ecsv1.Result{} })),
		"live without attempt":     one(tk("running", func(m *ecsv1.Task) { m.Attempts = nil })),
		"live on an unknown node":  one(tk("running", func(m *ecsv1.Task) { m.Attempts[0].Node = "n9" })),
		"fewer tasks than claimed": snapshotOf(t, header(1, 2), nodes, []*ecsv1.Task{tk("pending")}),
	}
	for i := 0; i < len(whole); i += 3 {
		cases[fmt.Sprintf("cut at %d", i)] = whole[:i]
	}
	for name, b := range cases {
		s := sound.copy(state.Limits{})
		before := s.Snapshot()
		if err := s.Restore(bytes.NewReader(b)); err == nil {
			t.Errorf("%s: got no error", name)
		}
		if s.Snapshot() != before {
			t.Errorf("%s: the record was changed", name)
		}
		if closed(before.Watch()) {
			t.Errorf("%s: watchers were woken", name)
		}
		// What a failed restore began must not show later.
		if _, err := s.Apply(before.Index()+1, entry(t, sound.now, state.Submit{Task: aTask("later", keyed("kl"))})); err != nil {
			t.Errorf("%s: apply after it: %v", name, err)
		}
		if got, want := len(slices.Collect(s.Snapshot().Newest(0))), len(slices.Collect(before.Newest(0)))+1; got != want {
			t.Errorf("%s: got %d tasks after it, want %d", name, got, want)
		}
	}
}

type brokenDisk struct{ room int }

func (d *brokenDisk) Write(p []byte) (int, error) {
	if len(p) > d.room {
		n := d.room
		d.room = 0
		return n, io.ErrShortWrite
	}
	d.room -= len(p)
	return len(p), nil
}

func TestWriteSaysWhatTheDiskSays(t *testing.T) {
	w := busy(t)
	for _, room := range []int{0, 1, 100, len(written(t, w.sn())) - 1} {
		if err := w.sn().Write(&brokenDisk{room: room}); err == nil {
			t.Errorf("room for %d bytes: got no error", room)
		}
	}
}

func TestASnapshotMayBeWrittenBesideApply(t *testing.T) {
	w := busy(t)
	sn, hash := w.sn(), w.sn().Hash()
	done := make(chan bool)
	go func() {
		defer close(done)
		for range 50 {
			if sn.Hash() != hash {
				t.Error("a snapshot changed while it was written")
				return
			}
		}
	}()
	for i := range 300 {
		id := task.ID(fmt.Sprint("x", i))
		w.submit(id, keyed(string(id)))
		w.must(state.Stop{Task: id, Outcome: task.Cancelled})
		w.must(state.Forget{Tasks: []task.ID{id}})
	}
	<-done
}
