package state_test

import (
	"slices"
	"testing"

	"ecs/control/state"
	"ecs/internal/task"
)

func gossipKey(id string) state.GossipKey {
	return state.GossipKey{ID: id, Sealed: []byte("sealed " + id)}
}

// rotation begins the next rotation of a record, to a key.
func rotation(sn *state.Snapshot, to string) state.RotateGossipKey {
	c := state.RotateGossipKey{Old: gossipKey("g1"), New: gossipKey(to), By: "k1"}
	if g := sn.GossipKeys(); g != nil {
		c.Version = g.Version
	}
	return c
}

func wantRing(t *testing.T, sn *state.Snapshot, step string, version uint64, ids ...string) {
	t.Helper()
	g := sn.GossipKeys()
	var got []string
	for _, k := range g.Ring {
		got = append(got, k.ID)
	}
	if g.Step != step || g.Version != version || !slices.Equal(got, ids) {
		t.Errorf("got step %q, version %d, ring %v, want %q, %d, %v", g.Step, g.Version, got, step, version, ids)
	}
}

func TestARotationGoesOnOnlyWhenEveryNodeHasConfirmed(t *testing.T) {
	w := newWorld(t)
	w.register("n1")
	w.register("n2")
	w.must(state.LoseNode{Node: "n2", Epoch: w.sn().Node("n2").Epoch})
	w.must(rotation(w.sn(), "g2"))
	wantRing(t, w.sn(), state.RotationAdd, 1, "g1", "g2")
	for i, step := range []string{state.RotationAdd, state.RotationUse, state.RotationRemove} {
		version := uint64(i + 1)
		advance := state.AdvanceGossipKey{Version: version, Step: step, Skipped: []string{"n2"}}
		wantCode(t, w.do(advance).Err, task.CodeStale)
		wantCode(t, w.do(state.ConfirmGossipKey{Node: "n1", Version: version + 1}).Err, task.CodeStale)
		w.must(state.ConfirmGossipKey{Node: "n1", Version: version})
		unskipped := advance
		unskipped.Skipped = nil
		wantCode(t, w.do(unskipped).Err, task.CodeStale) // a lost node is named, not overlooked
		w.must(advance)
		if out := w.must(advance); !out.Existed {
			t.Errorf("%s: the same again went a step further", step)
		}
		switch step {
		case state.RotationAdd:
			wantRing(t, w.sn(), state.RotationUse, 2, "g2", "g1")
		case state.RotationUse:
			wantRing(t, w.sn(), state.RotationRemove, 3, "g2")
		}
	}
	wantRing(t, w.sn(), "", 3, "g2")
	g := w.sn().GossipKeys()
	if g.EndedAt.IsZero() || g.StartedBy != "k1" || !slices.Equal(g.Skipped, []string{"n2"}) {
		t.Errorf("got %+v", g)
	}
	// The lost one comes back and fetches.
	w.must(state.ConfirmGossipKey{Node: "n2", Version: 3})
	if got := w.sn().GossipVersion("n2"); got != 3 {
		t.Errorf("got version %d of the one that came back, want 3", got)
	}
	if out := w.must(state.ConfirmGossipKey{Node: "n2", Version: 2}); !out.Existed || w.sn().GossipVersion("n2") != 3 {
		t.Error("an older confirmation took a newer one's place")
	}
}

func TestOneRotationAtATime(t *testing.T) {
	w := newWorld(t)
	first := rotation(w.sn(), "g2")
	w.must(first)
	if out := w.must(first); !out.Existed {
		t.Error("the same rotation began twice")
	}
	wantCode(t, w.do(rotation(w.sn(), "g3")).Err, task.CodeRotation)
	for i, step := range []string{state.RotationAdd, state.RotationUse, state.RotationRemove} {
		w.must(state.AdvanceGossipKey{Version: uint64(i + 1), Step: step})
	}
	if out := w.must(first); !out.Existed {
		t.Error("a proposal that came late began a rotation to the key that is in use")
	}
	w.must(rotation(w.sn(), "g3"))
	wantRing(t, w.sn(), state.RotationAdd, 4, "g2", "g3") // the record's, not the proposer's old one
	for i, step := range []string{state.RotationAdd, state.RotationUse, state.RotationRemove} {
		w.must(state.AdvanceGossipKey{Version: uint64(i + 4), Step: step})
	}
	wantCode(t, w.do(first).Err, task.CodeRotation) // and does not bring g2 back
	wantRing(t, w.sn(), "", 6, "g3")
	for _, bad := range []state.RotateGossipKey{{}, {New: gossipKey("")}, {New: state.GossipKey{ID: "x"}}} {
		wantCode(t, w.do(bad).Err, task.CodeBadRequest)
	}
}

func TestANodeThatRegistersMeanwhileIsWaitedFor(t *testing.T) {
	w := newWorld(t)
	w.must(rotation(w.sn(), "g2"))
	w.register("n1")
	wantCode(t, w.do(state.AdvanceGossipKey{Version: 1, Step: state.RotationAdd}).Err, task.CodeStale)
	w.must(state.LoseNode{Node: "n1", Epoch: w.sn().Node("n1").Epoch, Left: true})
	w.must(state.AdvanceGossipKey{Version: 1, Step: state.RotationAdd})
}

// A record that was recovered may be of before a rotation that every node has seen:
// what it gives them now must count as newer.
func TestARecoveredRecordsRingIsNewerThanAnyBefore(t *testing.T) {
	w := newWorld(t)
	w.must(rotation(w.sn(), "g2"))
	w.must(state.ConfirmGossipKey{Node: "n1", Version: 1})
	sn := w.store.Recovered(1000, "first")
	wantRing(t, sn, state.RotationAdd, 1<<32+1, "g1", "g2")
	if sn.GossipVersion("n1") != 0 {
		t.Error("a confirmation of another incarnation counts")
	}
}

func TestWhoWatchesTheRingIsWoken(t *testing.T) {
	w := newWorld(t)
	ring := w.sn().WatchGossipKeys()
	w.must(rotation(w.sn(), "g2"))
	if !closed(ring) {
		t.Error("ring: not woken")
	}
	ring, holders := w.sn().WatchGossipKeys(), w.sn().WatchGossipHolders()
	w.must(state.ConfirmGossipKey{Node: "n1", Version: 1})
	if closed(ring) {
		t.Error("ring: woken for nothing")
	}
	if !closed(holders) {
		t.Error("holders: not woken")
	}
}
