package api

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/telemetry"
	"ecs/proto/api"
	ecsv1 "ecs/proto/ecs/v1"
)

// keysOnly is a record that holds one key.
type keysOnly struct{ key access.Key }

// still is a record that nobody changes.
type still struct{ *state.Store }

func (still) Sync(context.Context) error { return nil }
func (still) CaughtUp() bool             { return true }

func (k *keysOnly) record(tb testing.TB) Record {
	store := state.NewStore(state.Limits{})
	entry, err := proto.Marshal(&ecsv1.Entry{Commands: []*ecsv1.Command{state.ToWire(state.PutKey{Key: k.key}, time.Now())}})
	if err == nil {
		_, err = store.Apply(1, entry)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return still{store}
}

func limited(l Limits) func(*Config) { return func(c *Config) { c.Limits = l } }

// excess checks that a limit is told, and gives the seconds to wait.
func (w *world) excess(a answer, code api.Code, limit string) int {
	w.t.Helper()
	p := w.problem(a, http.StatusTooManyRequests, code)
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	if p.Limit != limit || err != nil || seconds < 1 || p.Detail == "" {
		w.t.Errorf("got limit %q, Retry-After %q, detail %q, want %s", p.Limit, a.header.Get("Retry-After"), p.Detail, limit)
	}
	return seconds
}

// excessOf asks until a rate's limit is told: on a slow machine later than at
// once, but never sooner than it may be.
func (w *world) excessOf(path string, code api.Code, limit string, least int) {
	w.t.Helper()
	for i := range 100 * (least + 1) {
		a := w.do(http.MethodGet, path, "")
		if a.status == http.StatusOK {
			continue
		}
		if w.excess(a, code, limit); i < least {
			w.t.Errorf("%s: limited after %d requests, want %d at least", path, i, least)
		}
		return
	}
	w.t.Errorf("%s: no %s after %d requests", path, limit, 100*(least+1))
}

func TestAKeyHasItsRate(t *testing.T) {
	w := newWorld(t, limited(Limits{KeyRate: 5}))
	w.excessOf("/v2/tasks", api.CodeRateLimited, limitKeyRate, 5)
	w.excessOf("/v1.1/_noop", api.CodeRateLimited, limitKeyRate, 0)
	if a := w.do(http.MethodGet, "/v2/tasks", "", "Authorization", basic(bob, "b-secret")); a.status != http.StatusOK {
		t.Errorf("got %d for another key", a.status)
	}
}

func TestAnAddressHasItsRateWhoeverCalls(t *testing.T) {
	w := newWorld(t, limited(Limits{AddressRate: 3, DocsRate: 2}))
	w.problem(w.do(http.MethodGet, "/v2/tasks", "", "Authorization", ""), http.StatusUnauthorized, api.CodeUnauthorized)
	w.problem(w.do(http.MethodGet, "/v2/tasks", "", "Authorization", basic("x", "y")), http.StatusUnauthorized, api.CodeUnauthorized)
	w.excessOf("/v2/tasks", api.CodeRateLimited, limitAddressRate, 1)
	w.excessOf("/docs", api.CodeRateLimited, limitDocsRate, 2)
	w.excessOf("/openapi.yaml", api.CodeRateLimited, limitDocsRate, 0)
}

func TestRequestsInProgressAreBounded(t *testing.T) {
	w := newWorld(t, limited(Limits{KeyConcurrency: 2, AddressConcurrency: 3}))
	id := w.submitted(hello)
	waits := make(chan int, 3)
	wait := func(header ...string) {
		go func() {
			a, _ := w.try(http.MethodGet, "/v2/tasks/"+string(id)+"?wait=30s", "", header...)
			waits <- a.status
		}()
	}
	wait()
	wait()
	eventually(t, "both wait", func() bool {
		w.handler.gates.keys.mu.Lock()
		defer w.handler.gates.keys.mu.Unlock()
		e := w.handler.gates.keys.known[alice]
		return e != nil && e.Value.(*usage).atOnce == 2
	})
	w.excess(w.do(http.MethodGet, "/v2/tasks", ""), api.CodeRateLimited, limitKeyConcurrency)
	// Somebody else's third is the address's last.
	wait("Authorization", basic(olga, "o-secret"))
	eventually(t, "the third waits", func() bool {
		w.handler.gates.addresses.mu.Lock()
		defer w.handler.gates.addresses.mu.Unlock()
		for e := w.handler.gates.addresses.order.Front(); e != nil; e = e.Next() {
			return e.Value.(*usage).atOnce == 3
		}
		return false
	})
	w.excess(w.do(http.MethodGet, "/v2/tasks", "", "Authorization", basic(bob, "b-secret")), api.CodeRateLimited, limitAddressConcurrency)
	w.finish(w.start(id), exited(0))
	for range 3 {
		if status := <-waits; status != http.StatusOK {
			t.Errorf("got %d from a wait", status)
		}
	}
	if a := w.do(http.MethodGet, "/v2/tasks", ""); a.status != http.StatusOK {
		t.Errorf("got %d afterwards", a.status)
	}
}

func TestAKeysOwnLimitsComeFirst(t *testing.T) {
	w := newWorld(t, limited(Limits{KeyRate: 1, AddressRate: 2, KeyQuota: 1}), func(c *Config) {
		c.Auth = pairs{alice: "a-secret", bob: "b-secret", olga: "o-secret", root: "r-secret", "fast": "f-secret"}
	})
	ring := NewKeyring(nil, access.Run, w)
	w.handler.cfg.Auth = ring
	w.putKey("fast", "f", access.Run, access.Limits{Rate: access.NoLimit, Quota: 3})
	w.putKey("slow", "s", access.Run, access.Limits{})
	as := func(key, secret string) []string { return []string{"Authorization", basic(key, secret)} }
	for range 20 {
		if a := w.do(http.MethodGet, "/v2/tasks", "", as("fast", "f")...); a.status != http.StatusOK {
			t.Fatalf("got %d %s", a.status, a.body)
		}
	}
	w.do(http.MethodGet, "/v2/tasks", "", as("slow", "s")...)
	a := w.do(http.MethodGet, "/v2/tasks", "", as("slow", "s")...)
	if a.status != http.StatusTooManyRequests {
		t.Errorf("got %d, want the default for a key without limits of its own", a.status)
	}
	for range 3 {
		if a := w.do(http.MethodPost, "/v2/tasks", hello, as("fast", "f")...); a.status != http.StatusAccepted {
			t.Fatalf("got %d %s", a.status, a.body)
		}
	}
	w.excess(w.do(http.MethodPost, "/v2/tasks", hello, as("fast", "f")...), api.CodeQuota, limitKeyQuota)
}

func TestLimitersForgetWhoWasNotSeenForLongest(t *testing.T) {
	l := newLimiter(3)
	now := time.Now()
	names := [2]string{"rate", "at once"}
	one := bound{rate: 0.001, burst: 1, atOnce: 1}
	end, err := l.take("busy", one, names, now)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		e, err := l.take(fmt.Sprint(i), one, names, now)
		if err != nil {
			t.Fatal(err)
		}
		e()
	}
	if len(l.known) > 3 || l.order.Len() != len(l.known) {
		t.Errorf("%d are remembered, want 3", len(l.known))
	}
	if _, err := l.take("busy", one, names, now); err == nil {
		t.Error("one with something in progress was forgotten")
	}
	end()
	if _, err := l.take("99", one, names, now); err == nil {
		t.Error("the last one seen was forgotten")
	}
	if _, err := l.take("99", one, names, now.Add(time.Hour)); err != nil {
		t.Errorf("its token does not come back: %v", err)
	}
}

func TestAddressesCountBySubscriber(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1234": "192.0.2.7", "[::ffff:192.0.2.7]:1": "192.0.2.7", "[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80": "fe80::/64", "pipe": "pipe", "": "",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = remote
		if got := addressOf(r); got != want {
			t.Errorf("%s: got %s, want %s", remote, got, want)
		}
	}
}

// BenchmarkARefusedGuess is what it costs to turn a stranger away who has guessed
// too often.
func BenchmarkARefusedGuess(b *testing.B) {
	h := New(Config{Auth: NewKeyring(nil, access.Run, (&keysOnly{access.Key{ID: "good", Role: access.Run, Hash: nobodysHash}}).record(b)),
		Sealer: benchSealer{}, Log: telemetry.NewLogger(io.Discard, slog.LevelInfo), Limits: DefaultLimits()})
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodPost, "/v2/tasks", strings.NewReader("{}"))
		r.SetBasicAuth("good", "wrong")
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
}

// BenchmarkAKnownKey is what it costs to know a key again whose secret was right
// before. It must stay under 0.2 ms.
func BenchmarkAKnownKey(b *testing.B) {
	hash, err := HashSecret("right")
	if err != nil {
		b.Fatal(err)
	}
	ring := NewKeyring(nil, access.Run, (&keysOnly{access.Key{ID: "good", Role: access.Run, Hash: hash}}).record(b))
	if _, err := ring.Authenticate(b.Context(), Attempt{Key: "good", Secret: "right", From: "127.0.0.1"}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := ring.Remembered("good", "right"); !ok {
			b.Fatal("it is not remembered")
		}
	}
}

type benchSealer struct{}

func (benchSealer) Seal(plain, _ []byte) ([]byte, error) { return plain, nil }
func (benchSealer) MAC(data []byte) []byte               { return data }
