package state_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

func everyCommand() []state.Command {
	tok := task.Token{Task: "t1", Attempt: 2, Epoch: 3}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	return []state.Command{
		state.Submit{Task: aTask("t1")},
		state.Register{Node: aNode("n1"), Running: []task.Token{tok, {Task: "t2", Attempt: 1, Epoch: 9}}},
		state.Place{Decisions: []state.Decision{{Task: "t1", Attempt: 2, Node: "n1", Epoch: 3, Queued: 4}}},
		state.Progress{Token: tok, Node: "n1", StartedAt: at},
		state.Finish{Token: tok, Node: "n1", Result: task.Result{Outcome: task.Exited, ExitCode: 3}, Bill: task.Bill{Run: 5}},
		state.Stop{Task: "t1", Outcome: task.Cancelled, Reason: "why", Owner: "ann"},
		state.LoseNode{Node: "n1", Epoch: 3, Left: true, Lease: time.Second},
		state.LoseAttempt{Token: tok, Reason: "why"},
		state.SetNode{Node: "n1", Drain: new(false), Unfit: new(""), Epoch: 3},
		state.SetNode{Node: "n1", Drain: new(true), Unfit: new("disk full"), Epoch: 3},
		state.SetNode{Node: "n1"},
		state.Expire{Tasks: []task.ID{"t1", "t2"}},
		state.Forget{Tasks: []task.ID{"t1", "t2"}},
		state.Wish{Spec: task.Spec{Image: "busybox:1"}.WithDefaults(task.V2, true), Count: 3, Owner: "ann"},
		state.Resume{Tasks: []task.ID{"t1", "t2"}, Waited: []state.Waited{{Task: "t3", Attempt: 2}}},
		state.Found{Cluster: "01cluster"},
		state.ForgetNodes{Nodes: []state.GoneNode{{Node: "n1", Epoch: 7}, {Node: "n2", Epoch: 9}}},
		state.MoveOutputs{Moves: []state.MovedOutput{{Task: "t1", Attempt: 2, From: "n1", FromAddr: "n1:7451", To: "n2"}}},
		state.Submit{Task: aTask("t3"), Quota: 7},
		state.PutKey{Key: aKey("k1", access.Run), First: true},
		state.RevokeKey{ID: "k1", By: "k2"},
		state.PutToken{Token: access.Token{Hash: [32]byte{1}, Role: "agent", CreatedBy: "k1", ExpiresAt: at}},
		state.SpendToken{Hash: [32]byte{1}, Role: "agent", Node: "n1", Request: [32]byte{2}},
		state.RevokeCertificate{Certificate: access.Revoked{Serial: "ab", Node: "n1", RevokedBy: "k1", ExpiresAt: at}},
		state.RotateGossipKey{Old: gossipKey("g1"), New: gossipKey("g2"), Version: 7, By: "k1"},
		state.ConfirmGossipKey{Node: "n1", Version: 7},
		state.AdvanceGossipKey{Version: 7, Step: state.RotationUse, Skipped: []string{"n1", "n2"}},
	}
}

func TestEveryCommandComesBackFromTheLog(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC)
	kinds := make(map[string]bool)
	for _, want := range everyCommand() {
		b, err := proto.Marshal(state.ToWire(want, now))
		if err != nil {
			t.Fatal(err)
		}
		var m ecsv1.Command
		if err := proto.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		got, at, err := state.FromWire(&m)
		if err != nil || !at.Equal(now) || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v at %v, %v\nwant %+v at %v", got, at, err, want, now)
		}
		kind := m.ProtoReflect().WhichOneof(m.ProtoReflect().Descriptor().Oneofs().Get(0))
		kinds[string(kind.Name())] = true
	}
	members := (&ecsv1.Command{}).ProtoReflect().Descriptor().Oneofs().Get(0).Fields()
	for i := range members.Len() {
		if name := string(members.Get(i).Name()); !kinds[name] {
			t.Errorf("command %s: no Go command becomes it", name)
		}
	}
}

func TestACommandOfAnUnknownKindIsAnError(t *testing.T) {
	for name, m := range map[string]*ecsv1.Command{"nil": nil, "empty": {}, "later": laterKind(t)} {
		if c, _, err := state.FromWire(m); err == nil {
			t.Errorf("%s: got %+v, want an error", name, c)
		}
	}
}

// laterKind is a command as a later version may write it.
func laterKind(t testing.TB) *ecsv1.Command {
	var m ecsv1.Command
	if err := proto.Unmarshal([]byte{0x08, 0x01, 0xfa, 0x06, 0x00}, &m); err != nil { // field 111, no bytes
		t.Fatal(err)
	}
	return &m
}

func TestAnEntryThatCannotBeReadChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.submit("t1")
	good := state.ToWire(state.Submit{Task: aTask("t2")}, w.now)
	marshal := func(commands ...*ecsv1.Command) []byte {
		b, err := proto.Marshal(&ecsv1.Entry{Commands: commands})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	crowd := make([]*ecsv1.Command, state.MaxCommands+1)
	for i := range crowd {
		crowd[i] = good
	}
	whole := marshal(good, good)
	for name, b := range map[string][]byte{
		"unknown kind last": marshal(good, laterKind(t)),
		"no bytes of it":    []byte("not an entry"),
		"cut":               whole[:len(whole)-1],
		"too many":          marshal(crowd...),
	} {
		before := w.sn()
		if out, err := w.store.Apply(9, b); err == nil || !strings.Contains(err.Error(), "apply entry 9") {
			t.Errorf("%s: got %v, %v, want an error that names the entry", name, out, err)
		}
		if w.sn() != before {
			t.Errorf("%s: the record was changed", name)
		}
	}
}

func TestEntriesAreAppliedOnce(t *testing.T) {
	w := newWorld(t)
	w.submit("t1")
	w.submit("t2")
	for _, index := range []uint64{0, 1, 2} {
		if _, err := w.store.Apply(index, w.log[0]); err == nil {
			t.Errorf("entry %d after 2: got no error", index)
		}
	}
	if _, err := w.store.Apply(7, w.log[0]); err != nil {
		t.Errorf("entry 7 after 2: got %v, want none: raft has entries of its own", err)
	}
}

func TestAFullEntryOfCommandsKeepsSequenceNumbersApart(t *testing.T) {
	w := newWorld(t)
	commands := make([]state.Command, state.MaxCommands)
	for i := range commands {
		commands[i] = state.Submit{Task: aTask(task.ID(fmt.Sprint("t", i)))}
	}
	w.all(commands...)
	w.submit("last")
	before := ^uint64(0)
	n := 0
	for tk := range w.sn().Newest(0) {
		if tk.Seq >= before {
			t.Fatalf("seq %d is not below %d", tk.Seq, before)
		}
		before = tk.Seq
		n++
	}
	if want := state.MaxCommands + 1; n != want {
		t.Errorf("got %d tasks, want %d", n, want)
	}
}
