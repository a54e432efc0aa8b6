package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"ecs/control/state"
	"ecs/internal/access"
	"ecs/proto/api"
)

// recordRing is a keyring over the world's record and a file.
func recordRing(t *testing.T, w *world, lines ...string) *Keyring {
	t.Helper()
	k := fileRing(t, lines...)
	k.record = w
	return k
}

func (w *world) putKey(id, secret string, role access.Role, limits access.Limits) {
	w.t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
	if err != nil {
		w.t.Fatal(err)
	}
	if out := w.apply(state.PutKey{Key: access.Key{ID: id, Role: role, Hash: string(hash), Limits: limits}}); out.Err != nil {
		w.t.Fatal(out.Err)
	}
}

func TestKeysOfTheRecordCountBesideThoseOfTheFile(t *testing.T) {
	w := newWorld(t)
	k := recordRing(t, w, "f:"+hashed(t, "file", bcrypt.MinCost), "gone:"+hashed(t, "file", bcrypt.MinCost))
	w.putKey("r", "record", access.Admin, access.Limits{Rate: 3})
	ask := func(key, secret string) (access.Principal, error) {
		who, err := k.Authenticate(t.Context(), Attempt{key, secret, ""})
		if err == nil && !k.Counts(who) {
			t.Errorf("%s was let in and does not count", key)
		}
		who.Proof = [32]byte{}
		return who, err
	}
	for range 2 { // once checked, once remembered
		if who, err := ask("r", "record"); err != nil || who != (access.Principal{Owner: "r", Role: access.Admin, Limits: access.Limits{Rate: 3}}) {
			t.Errorf("got %+v, %v for the record's key", who, err)
		}
		if who, err := ask("f", "file"); err != nil || who != (access.Principal{Owner: "f", Role: access.Operate}) {
			t.Errorf("got %+v, %v for the file's key", who, err)
		}
	}
	if _, ok := k.Remembered("r", "record"); !ok {
		t.Error("a verified pair is not remembered")
	}
	w.putKey("another", "x", access.Admin, access.Limits{})
	w.apply(state.RevokeKey{ID: "r"})
	if _, ok := k.Remembered("r", "record"); ok {
		t.Error("a revoked key is remembered")
	}
	if _, err := ask("r", "record"); !errors.Is(err, ErrWrongSecret) {
		t.Errorf("got %v for a revoked key", err)
	}
	// What the record revoked no file brings back.
	w.putKey("gone", "record", access.Run, access.Limits{})
	w.apply(state.RevokeKey{ID: "gone"})
	if _, err := ask("gone", "file"); !errors.Is(err, ErrWrongSecret) {
		t.Errorf("got %v for a revoked key that a file has too", err)
	}
	long := strings.Repeat("x", 73)
	if _, err := ask("another", long); !errors.Is(err, ErrWrongSecret) {
		t.Errorf("got %v for a secret longer than bcrypt looks at", err)
	}
}

func TestGuessesOfOneAddressAreRefusedBeforeAnyCheck(t *testing.T) {
	k := fileRing(t, "a:"+hashed(t, "one", bcrypt.MinCost))
	checked := 0
	p := k.file.table.Load()
	line := p.users["a"]
	p.users["a"] = password{line.stored, func(s string, rest func(time.Duration)) bool { checked++; return line.matches(s, rest) }}
	refused := 0
	for i := range 1000 {
		_, err := k.Authenticate(t.Context(), Attempt{"a", fmt.Sprint(i), "1.2.3.4"})
		var e *Excess
		switch {
		case errors.As(err, &e):
			refused++
			if e.Limit != limitGuesses || e.RetryAfter <= 0 || e.RetryAfter > 2*time.Second {
				t.Fatalf("got %+v", e)
			}
		case !errors.Is(err, ErrWrongSecret):
			t.Fatal(err)
		}
	}
	if checked > guessBurst+10 || refused < 1000-guessBurst-10 {
		t.Errorf("%d guesses were checked and %d refused, want %d checked", checked, refused, guessBurst)
	}
	// Neither is who knows, from another address, nor who was known before.
	if !right(k, "a", "one") {
		t.Error("another address is refused")
	}
	if _, err := k.Authenticate(t.Context(), Attempt{"a", "one", "1.2.3.4"}); err != nil {
		t.Errorf("a remembered pair is refused because of its address: %v", err)
	}
}

// A control node that starts or lags refuses no key that counts, and takes none of
// it for a guess.
func TestNobodyIsRefusedByARecordThatIsBehind(t *testing.T) {
	w := newWorld(t)
	w.handler.cfg.Auth = NewKeyring(nil, access.Run, w)
	ask := func(key, secret string) answer {
		return w.do(http.MethodGet, "/v2/tasks", "", "Authorization", basic(key, secret))
	}
	w.starting = true
	for range 3 * guessBurst {
		p := w.problem(ask("new", "n-secret"), http.StatusServiceUnavailable, api.CodeNoLeader)
		if p.Detail == "" {
			t.Fatal("it does not say why")
		}
	}
	if w.syncs != 0 {
		t.Errorf("a node that starts asked the leader %d times", w.syncs)
	}
	w.starting = false
	for i := range guessBurst + 5 { // made at another node, used at once at this one
		key := fmt.Sprint("new", i)
		w.catchUp = func() { w.putKey(key, "n-secret", access.Run, access.Limits{}) }
		if a := ask(key, "n-secret"); a.status != http.StatusOK {
			t.Fatalf("key %d: got %d %s", i, a.status, a.body)
		}
	}
	w.behind = true
	w.problem(ask("newest", "n-secret"), http.StatusServiceUnavailable, api.CodeNoLeader)
	w.behind = false
	w.problem(ask("newest", "n-secret"), http.StatusUnauthorized, api.CodeUnauthorized)

	// Guesses ask the leader no oftener than an address may guess.
	w.syncs = 0
	begun := time.Now()
	for range 5 * guessBurst {
		ask("new1", "wrong")
	}
	most := guessBurst + 1 + int(time.Since(begun).Seconds()*guessesPerMinute/60)
	if w.syncs == 0 || w.syncs > most {
		t.Errorf("%d guesses asked the leader %d times, want 1 to %d", 5*guessBurst, w.syncs, most)
	}
}

func TestAKeyThatIsTakenAwayWhileItIsHashedIsRefused(t *testing.T) {
	k := fileRing(t, "a:"+hashed(t, "one", bcrypt.MinCost))
	p := k.file.table.Load()
	line := p.users["a"]
	p.users["a"] = password{line.stored, func(s string, rest func(time.Duration)) bool {
		k.file.table.Store(&passwords{info: p.info})
		return line.matches(s, rest)
	}}
	if right(k, "a", "one") {
		t.Error("a key that is gone opens the door")
	}
}

// BenchmarkRememberedKey is what authentication costs a caller who is known.
func BenchmarkRememberedKey(b *testing.B) {
	hash, err := HashSecret("secret")
	if err != nil {
		b.Fatal(err)
	}
	k := NewKeyring(nil, access.Run, (&keysOnly{access.Key{ID: "key", Role: access.Run, Hash: hash}}).record(b))
	a := Attempt{"key", "secret", "1.2.3.4"}
	if _, err := k.Authenticate(context.Background(), a); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := k.Authenticate(context.Background(), a); err != nil {
			b.Fatal(err)
		}
	}
}
