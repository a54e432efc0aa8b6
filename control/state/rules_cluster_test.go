package state_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/task"
)

func TestClusterIsNamedOnce(t *testing.T) {
	w := newWorld(t)
	w.must(state.Found{Cluster: "one"})
	w.must(state.Found{Cluster: "two"})
	if got := w.sn().Cluster(); got != "one" {
		t.Errorf("got %q, want the first name to hold", got)
	}
}

func TestOnlyNodesThatAreGoneForGoodAreForgotten(t *testing.T) {
	w := newWorld(t)
	before := w.register("left")
	for _, id := range []task.NodeID{"back", "busy", "here"} {
		w.register(id)
	}
	w.live("t1", "busy", func(t *task.Task) { t.Spec.Lease = task.MaxLease })
	var gone []state.GoneNode
	for _, id := range []task.NodeID{"left", "back", "busy"} {
		n := w.node(id)
		w.must(state.LoseNode{Node: id, Epoch: n.Epoch, Left: id == "left", Lease: task.DefaultLease})
		gone = append(gone, state.GoneNode{Node: id, Epoch: n.Epoch})
	}
	w.register("back")
	gone = append(gone, state.GoneNode{Node: "here", Epoch: w.node("here").Epoch}, state.GoneNode{Node: "never"})
	w.must(state.ForgetNodes{Nodes: gone})
	w.must(state.ForgetNodes{Nodes: gone})
	for id, want := range map[task.NodeID]bool{"left": false, "back": true, "busy": true, "here": true} {
		if got := w.sn().Node(id) != nil; got != want {
			t.Errorf("%s: got it in the record %v, want %v", id, got, want)
		}
	}
	if got, want := w.sn().IndexSizes()["on"], 3+1; got != want { // nodes, and what runs
		t.Errorf("got %d places of nodes and tasks, want %d", got, want)
	}
	for n := range w.sn().NodesSince(0) {
		if n == nil {
			t.Error("a forgotten node is among those that changed")
		}
	}
	if again := w.register("left"); again.Epoch <= before.Epoch {
		t.Errorf("got epoch %d after %d, want it to grow", again.Epoch, before.Epoch)
	}
	if got := w.copy(state.Limits{}).Snapshot().Hash(); got != w.sn().Hash() {
		t.Error("a replay gives another record")
	}
}

func TestNothingOfAnOldIncarnationIsTaken(t *testing.T) {
	w := newWorld(t)
	w.must(state.Found{Cluster: "one"})
	n := w.register("n1")
	once := w.live("once", "n1", func(t *task.Task) { t.Spec.Delivery = task.AtMostOnce })
	often := w.live("often", "n1")
	w.submit("waiting")
	sn := w.store.Recovered(1000, "first")
	if sn.Incarnation() != 1 || sn.Recovery() != "first" || sn.Cluster() != "one" || sn.Index() != 1000 || sn.Counts().Live != 2 {
		t.Fatalf("got incarnation %d of %s at %d, %+v", sn.Incarnation(), sn.Cluster(), sn.Index(), sn.Counts())
	}
	w.index = 1000
	w.submit("new")
	for id, want := range map[task.ID]bool{"waiting": true, "once": false, "often": false, "new": false} {
		if got := w.sn().Uncertain(w.task(id)); got != want {
			t.Errorf("%s: got uncertain %v, want %v", id, got, want)
		}
	}
	for _, tok := range []task.Token{once, often} {
		wantCode(t, w.finish(tok, task.Exited).Err, task.CodeStale)
	}
	wantCode(t, w.do(state.LoseNode{Node: "n1", Epoch: n.Epoch, Left: true}).Err, task.CodeStale)
	if out := w.must(state.Register{Node: aNode("n1"), Running: []task.Token{once, often}}); len(out.Forget) != 2 {
		t.Errorf("got %v to forget, want both attempts of before", out.Forget)
	}
	if got := w.task("once"); got.Result == nil || got.Result.Outcome != task.NodeLost {
		t.Errorf("at most once: got %+v, want it ended node_lost", got.Result)
	}
	if got := w.task("often"); got.State != task.Pending {
		t.Errorf("at least once: got %s, want it to wait for its next attempt", got.State)
	}
	if !w.sn().Uncertain(w.task("often")) {
		t.Error("at least once: its agent has only been told to end it, want it held back until its lease is over")
	}
	w.place("often", "n1")
	w.must(state.LoseNode{Node: "n1", Epoch: w.node("n1").Epoch, Lease: task.DefaultLease})
	if got := w.task("often"); got.State != task.Pending || w.sn().Uncertain(got) {
		t.Errorf("lost again by this incarnation: got %s and uncertain, want it certain", got.State)
	}
}

// The record may have an attempt on a node that ended it long before, and those whose
// word was lost have had it go on elsewhere.
func TestWhatItsNodeDoesNotHaveAfterARecoveryMayRunElsewhere(t *testing.T) {
	w := newWorld(t)
	w.must(state.Found{Cluster: "one"})
	w.register("n1")
	w.live("t1", "n1", lasting(5*time.Minute))
	w.store.Recovered(1000, "first")
	w.index = 1000
	w.register("n1")
	if got := w.task("t1"); got.State != task.Pending || !w.sn().Uncertain(got) {
		t.Errorf("got %s, uncertain %v, want it to wait until its lease is over", got.State, w.sn().Uncertain(got))
	}
}

// What is held back and may wait no longer ends with the true reason.
func TestHeldTasksEndForWhatTheyWaitedFor(t *testing.T) {
	w := newWorld(t)
	w.submit("once", atMostOnce)
	w.submit("often")
	w.submit("placed")
	w.submit("waits")
	w.store.Recovered(1000, "first")
	w.index = 1000
	w.register("n1")
	w.place("placed", "n1")
	w.submit("new")
	all := []task.ID{"once", "often", "placed", "new", "unknown"}
	if out := w.must(state.Expire{Tasks: all, Held: true}); len(out.Ended) != 2 {
		t.Errorf("got %v ended, want the two that are held back", out.Ended)
	}
	w.must(state.Expire{Tasks: all, Held: true})
	w.must(state.Expire{Tasks: []task.ID{"waits"}})
	for id, want := range map[task.ID]task.Result{
		"once":  {Outcome: task.NodeLost, Reason: "it may have run"},
		"often": {Outcome: task.QueueExpired, Reason: "the cluster was recovered"},
		"waits": {Outcome: task.QueueExpired, Reason: "no node had room"},
	} {
		if got := w.task(id).Result; got == nil || got.Outcome != want.Outcome || !strings.Contains(got.Reason, want.Reason) {
			t.Errorf("%s: got %+v, want %s: %s", id, got, want.Outcome, want.Reason)
		}
	}
}

// A token that was spent after the record was made would be good for another node.
func TestNoJoinTokenOutlivesARecovery(t *testing.T) {
	w := newWorld(t)
	token := access.Token{Hash: [32]byte{1}, Role: "agent", ExpiresAt: w.now.Add(time.Hour)}
	w.must(state.PutToken{Token: token})
	if w.sn().Token(token.Hash) == nil {
		t.Fatal("got no token, want one")
	}
	if sn := w.store.Recovered(1000, "first"); sn.Token(token.Hash) != nil {
		t.Error("the token is still good")
	}
	w.index = 1000
	wantCode(t, w.do(state.SpendToken{Hash: token.Hash, Role: "agent", Node: "n1", Request: [32]byte{9}}).Err, task.CodeToken)
}

func TestArchiveIsWholeOrRefused(t *testing.T) {
	w := newWorld(t)
	w.must(state.Found{Cluster: "one"})
	w.register("n1")
	for range 300 {
		w.live(task.ID("t"+string(rune('a'+w.index%26))+string(rune('a'+w.index/26%26))), "n1", func(t *task.Task) { t.Spec.Resources = task.Resources{} })
	}
	w.store.Recovered(w.index+5, "first")
	var b bytes.Buffer
	if err := w.sn().Archive(&b, 7); err != nil {
		t.Fatal(err)
	}
	wantTerm := uint64(7)
	restore := func(data []byte) (*state.Store, error) {
		s := state.NewStore(state.Limits{})
		r, term, err := state.OpenArchive(bytes.NewReader(data))
		if err == nil {
			err = s.Restore(r)
		}
		if err == nil && term != wantTerm {
			t.Errorf("got term %d, want %d", term, wantTerm)
		}
		return s, err
	}
	if s, err := restore(b.Bytes()); err != nil || s.Snapshot().Hash() != w.sn().Hash() || s.Snapshot().Incarnation() != 1 || s.Snapshot().Recovery() != "first" {
		t.Fatalf("got %v, want the same record", err)
	}
	wantTerm = 0
	if _, err := restore(archiveOfVersion1(t, w.sn())); err != nil {
		t.Errorf("one that an earlier version wrote: %v", err)
	}
	wantTerm = 7
	bad := bytes.Clone(b.Bytes())
	bad[len(bad)-1] ^= 1
	cut := b.Bytes()[:b.Len()-40]
	for name, data := range map[string][]byte{"checksum": bad, "cut": cut, "empty": nil, "other": []byte("hello world, this is something else")} {
		if _, err := restore(data); err == nil {
			t.Errorf("%s: restored, want it refused", name)
		}
	}
	if _, err := restore(bad); !errors.Is(err, state.ErrArchive) {
		t.Errorf("got %v, want ErrArchive", err)
	}
}

// archiveOfVersion1 tells no term.
func archiveOfVersion1(t *testing.T, sn *state.Snapshot) []byte {
	t.Helper()
	b := bytes.NewBufferString("ecs snapshot 1\n")
	if err := sn.Write(b); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	return append(b.Bytes(), sum[:]...)
}
