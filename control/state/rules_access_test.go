package state_test

import (
	"fmt"
	"testing"
	"time"

	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/task"
)

func aKey(id string, role access.Role) access.Key {
	return access.Key{ID: id, Name: "name of " + id, Role: role, Hash: "$2a$10$" + id, Limits: access.Limits{Rate: 7, Quota: access.NoLimit}, CreatedBy: "k0"}
}

func TestAKeyIsMadeOnceAndRevokedForEver(t *testing.T) {
	w := newWorld(t)
	w.must(state.PutKey{Key: aKey("a", access.Admin)})
	k := w.sn().Key("a")
	if k == nil || !k.Counts() || k.CreatedAt != w.now || k.Limits.Rate != 7 {
		t.Fatalf("got %+v, want the key, made now", k)
	}
	if out := w.must(state.PutKey{Key: aKey("a", access.Admin)}); !out.Existed {
		t.Error("the same command again made a key")
	}
	other := aKey("a", access.Run)
	other.Hash = "another"
	wantCode(t, w.do(state.PutKey{Key: other}).Err, task.CodeKeyConflict)
	w.must(state.PutKey{Key: aKey("b", access.Run)})
	w.must(state.RevokeKey{ID: "b", By: "a"})
	if k := w.sn().Key("b"); k.Counts() || k.Hash != "" || k.RevokedAt != w.now || k.RevokedBy != "a" {
		t.Errorf("got %+v, want it revoked by a and its hash gone", k)
	}
	if out := w.must(state.RevokeKey{ID: "b", By: "x"}); !out.Existed || w.sn().Key("b").RevokedBy != "a" {
		t.Error("a key was revoked twice")
	}
	// A proposal that comes a second time does not bring it back.
	wantCode(t, w.do(state.PutKey{Key: aKey("b", access.Run)}).Err, task.CodeKeyConflict)
	wantCode(t, w.do(state.RevokeKey{ID: "nobody"}).Err, task.CodeNotFound)
	wantCode(t, w.do(state.PutKey{Key: aKey("c", "root")}).Err, task.CodeBadRequest)
	wantCode(t, w.do(state.PutKey{Key: aKey("", access.Run)}).Err, task.CodeBadRequest)
}

func TestTheFirstKeyIsMadeOnlyWhereThereNeverWasOne(t *testing.T) {
	w := newWorld(t)
	w.must(state.PutKey{Key: aKey("a", access.Admin), First: true})
	wantCode(t, w.do(state.PutKey{Key: aKey("b", access.Admin), First: true}).Err, task.CodeStale)
	if out := w.must(state.PutKey{Key: aKey("a", access.Admin), First: true}); !out.Existed {
		t.Error("the repeated command is not known again")
	}
}

func TestTheLastAdminKeyStays(t *testing.T) {
	w := newWorld(t)
	w.must(state.PutKey{Key: aKey("a", access.Admin)})
	w.must(state.PutKey{Key: aKey("o", access.Operate)})
	wantCode(t, w.do(state.RevokeKey{ID: "a", By: "a"}).Err, task.CodeLastAdmin)
	w.must(state.PutKey{Key: aKey("b", access.Admin)})
	w.must(state.RevokeKey{ID: "a", By: "a"})
	wantCode(t, w.do(state.RevokeKey{ID: "b", By: "b"}).Err, task.CodeLastAdmin)
}

func TestRevokedKeysAreBounded(t *testing.T) {
	w := newWorld(t)
	w.must(state.PutKey{Key: aKey("a", access.Admin)})
	for i := range 1002 {
		id := fmt.Sprintf("k%04d", i)
		w.all(state.PutKey{Key: aKey(id, access.Run)}, state.RevokeKey{ID: id, By: "a"})
	}
	if got := w.sn().KeyCount(); got != 1001 {
		t.Errorf("got %d keys, want 1 that counts and 1000 revoked", got)
	}
	if w.sn().Key("k0000") != nil || w.sn().Key("k1001") == nil {
		t.Error("want the oldest gone and the newest there")
	}
}

func TestAJoinTokenWorksOnce(t *testing.T) {
	w := newWorld(t)
	token := access.Token{Hash: [32]byte{1}, Role: "agent", ExpiresAt: w.now.Add(time.Minute)}
	spend := state.SpendToken{Hash: token.Hash, Role: "agent", Node: "n1", Request: [32]byte{9}}
	wantCode(t, w.do(spend).Err, task.CodeToken)
	w.must(state.PutToken{Token: token})
	asControl := spend
	asControl.Role = "control"
	wantCode(t, w.do(asControl).Err, task.CodeToken)
	w.must(spend)
	if out := w.must(spend); !out.Existed {
		t.Error("the same request again is not known again")
	}
	another := spend
	another.Request = [32]byte{8}
	wantCode(t, w.do(another).Err, task.CodeToken)
	another = spend
	another.Node = "n2"
	wantCode(t, w.do(another).Err, task.CodeToken)
	if out := w.must(state.PutToken{Token: token}); !out.Existed || w.sn().Token(token.Hash).Node != "n1" {
		t.Error("a repeated PutToken made a used token new")
	}
	w.must(state.RevokeCertificate{Certificate: access.Revoked{Node: "n1"}})
	wantCode(t, w.do(spend).Err, task.CodeToken) // a revoked node gets no second certificate by it
	w.now = w.now.Add(time.Hour)
	wantCode(t, w.do(spend).Err, task.CodeToken)
	late := access.Token{Hash: [32]byte{2}, Role: "agent", ExpiresAt: w.now}
	wantCode(t, w.do(state.PutToken{Token: late}).Err, task.CodeBadRequest)
	late.ExpiresAt = w.now.Add(3 * time.Second)
	w.must(state.PutToken{Token: late})
	w.now = w.now.Add(time.Minute)
	wantCode(t, w.do(state.SpendToken{Hash: late.Hash, Role: "agent", Node: "n3", Request: [32]byte{7}}).Err, task.CodeToken)
}

func TestOpenTokensAreBoundedAndOldOnesMakeRoom(t *testing.T) {
	w := newWorld(t)
	put := func(i int, last time.Duration) state.Outcome {
		return w.do(state.PutToken{Token: access.Token{Hash: [32]byte{byte(i), byte(i >> 8), 1}, Role: "agent", ExpiresAt: w.now.Add(last)}})
	}
	for i := range 1000 {
		if out := put(i, time.Hour); out.Err != nil {
			t.Fatal(out.Err)
		}
	}
	wantCode(t, put(1000, time.Hour).Err, task.CodeTooMany)
	w.now = w.now.Add(2 * time.Hour)
	if out := put(1000, time.Hour); out.Err != nil {
		t.Error(out.Err)
	}
}

func TestRevokedCertificatesAreFoundAndWatched(t *testing.T) {
	w := newWorld(t)
	changed := w.sn().WatchRevoked()
	w.submit("t1")
	if closed(changed) {
		t.Error("a task woke who waits for revocations")
	}
	w.must(state.RevokeCertificate{Certificate: access.Revoked{Serial: "ab", Node: "n1", RevokedBy: "k"}})
	if !closed(changed) || w.sn().RevokedSerial("ab") == nil || w.sn().RevokedSerial("cd") != nil || w.sn().RevokedNode("n1") != nil {
		t.Error("want the revocation of the serial alone, and everyone woken")
	}
	w.must(state.RevokeCertificate{Certificate: access.Revoked{Node: "n1"}})
	first := w.sn().RevokedNode("n1").RevokedAt
	w.must(state.RevokeCertificate{Certificate: access.Revoked{Node: "n1"}})
	if got := w.sn().RevokedNode("n1").RevokedAt; !got.After(first) {
		t.Error("revoking a node again does not count its newer certificates")
	}
	wantCode(t, w.do(state.RevokeCertificate{}).Err, task.CodeBadRequest)
}

func TestNobodyHasMoreWaitingThanItsShare(t *testing.T) {
	w := limitedWorld(t, state.Limits{MaxPendingBytes: 20 << 10})
	for i := range 2 {
		w.must(state.Submit{Task: aTask(task.ID(fmt.Sprint("t", i))), Quota: 2})
	}
	wantCode(t, w.do(state.Submit{Task: aTask("t3"), Quota: 2}).Err, task.CodeQuota)
	w.must(state.Submit{Task: aTask("b1", owned("bob")), Quota: 2})
	w.must(state.Stop{Task: "t0", Outcome: task.Cancelled})
	w.must(state.Submit{Task: aTask("t4"), Quota: 2})
	if got := w.sn().WaitingOf("ann").Tasks; got != 2 {
		t.Errorf("got %d waiting, want 2", got)
	}
	// Half of the bytes, whatever the number.
	big := aTask("big")
	big.Spec.Stdin = make([]byte, 9<<10)
	wantCode(t, w.do(state.Submit{Task: big, Quota: 1000}).Err, task.CodeQuota)
	// A command of before there were shares asks for none.
	w.must(state.Submit{Task: aTask("t5")})
	// What is placed at once waits for nothing.
	n := w.register("n1")
	w.must(state.Submit{Task: aTask("t6"), Node: "n1", Epoch: n.Epoch, Quota: 2})
	w.must(state.Stop{Task: "b1", Outcome: task.Cancelled})
	if got := w.sn().WaitingOf("bob"); got != (state.Waiting{}) {
		t.Errorf("got %+v for who has nothing waiting", got)
	}
}

func TestNobodyHasMoreBackingOffThanItsShare(t *testing.T) {
	w := newWorld(t)
	n := w.register("n1")
	place := func(id task.ID, owner string) state.Outcome {
		return w.do(state.Submit{Task: aTask(id, rerun(1), owned(owner)), Node: "n1", Epoch: n.Epoch, Quota: 2})
	}
	for _, id := range []task.ID{"t1", "t2"} {
		placed := place(id, "ann").Task
		w.exit(placed.Live().Token(id), 1)
	}
	if got := w.sn().WaitingOf("ann"); got.BackingOff != 2 || got.Tasks != 0 {
		t.Errorf("got %+v, want two that back off", got)
	}
	wantCode(t, place("t3", "ann").Err, task.CodeQuota)
	if out := place("b1", "bob"); out.Err != nil {
		t.Errorf("got %v for another key", out.Err)
	}
	w.resume("t1")
	if got := w.sn().WaitingOf("ann"); got.BackingOff != 1 || got.Tasks != 1 {
		t.Errorf("got %+v, want one of each", got)
	}
	if out := place("t4", "ann"); out.Err != nil {
		t.Errorf("got %v with room in its share", out.Err)
	}
	w.must(state.Stop{Task: "t2", Outcome: task.Cancelled})
	if got := w.sn().WaitingOf("ann"); got.BackingOff != 0 {
		t.Errorf("got %+v, want none that backs off", got)
	}
}
