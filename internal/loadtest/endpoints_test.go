package loadtest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"ecs/proto/api"
)

// TestAnotherEndpointIsAskedWhereOneIsDown: and the report says whose place it took.
func TestAnotherEndpointIsAskedWhereOneIsDown(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer up.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	r, err := Run(context.Background(), Target{Endpoints: []string{gone.URL + "/", up.URL}, Rate: 100, Duration: 100 * time.Millisecond, Mix: []Share{{"noop", 1}}})
	if err != nil || len(r.Rows) != 1 || r.Rows[0].Failed != 0 || r.Rows[0].Requests != 10 {
		t.Fatalf("got %+v, %v, want 10 requests and all answered", r, err)
	}
	if len(r.Moves) != 1 || r.Moves[0].From != gone.URL || len(r.Moves[0].Faults) != 1 || r.Moves[0].Faults[0].What != "connection refused" || r.Moves[0].Faults[0].Count != 5 {
		t.Errorf("got %+v, want the 5 that were due at %s, and why", r.Moves, gone.URL)
	}
}

// TestATaskThatGoesOnIsTheSame: what a node may have done before it failed is not
// done again by the next.
func TestATaskThatGoesOnIsTheSame(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{} // by idempotency key
	node := func(status int) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			asked[r.Header.Get(api.HeaderIdempotencyKey)]++
			w.WriteHeader(status)
		}))
		t.Cleanup(s.Close)
		return s
	}
	unwell, well := node(http.StatusServiceUnavailable), node(http.StatusAccepted)
	r, err := Run(context.Background(), Target{Endpoints: []string{unwell.URL, well.URL}, Rate: 100, Duration: 100 * time.Millisecond, Mix: []Share{{"submit", 1}}})
	if err != nil || len(r.Rows) != 1 || r.Rows[0].Failed != 0 {
		t.Fatalf("got %+v, %v", r, err)
	}
	twice := 0
	for _, n := range asked {
		if n == 2 {
			twice++
		}
	}
	if len(asked) != 10 || twice != 5 {
		t.Errorf("got %v, want 10 tasks, 5 of them asked for twice under one key", asked)
	}
}

// TestWhatIsOutOfReachRests: requests do not wait for it one after the other.
func TestWhatIsOutOfReachRests(t *testing.T) {
	var tried atomic.Int64
	broken := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		tried.Add(1)
		panic(http.ErrAbortHandler)
	}))
	defer broken.Close()
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer up.Close()
	r, err := Run(context.Background(), Target{Endpoints: []string{broken.URL, up.URL}, Rate: 100, Duration: 400 * time.Millisecond, Mix: []Share{{"noop", 1}}})
	if err != nil || r.Rows[0].Failed != 0 || len(r.Moves) != 1 || r.Moves[0].Faults[0].Count != 20 {
		t.Errorf("got %+v, %v, want all answered and 20 moved", r, err)
	}
	if n := tried.Load(); n >= 20 {
		t.Errorf("the broken one was tried %d times in 20 turns, want it to rest", n)
	}
}

func TestNobodyIsAskedAfterARefusal(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	defer s.Close()
	r, err := Run(context.Background(), Target{Endpoints: []string{s.URL, s.URL}, Rate: 100, Duration: 100 * time.Millisecond, Mix: []Share{{"noop", 1}}})
	if err != nil || asked.Load() != 10 || r.Rows[0].Failed != 10 || len(r.Moves) != 0 {
		t.Errorf("got %+v, %v after %d requests, want each asked once", r, err, asked.Load())
	}
}

// TestARestOutlastsALate503: requests overtake each other.
func TestARestOutlastsALate503(t *testing.T) {
	now := time.Now()
	e := &endpoint{}
	e.fail(syscall.ECONNRESET, now)
	e.fail(&odd{status: http.StatusServiceUnavailable}, now)
	if !e.rests(now) || e.rests(now.Add(restFor)) {
		t.Error("want it to rest as long as it was to before the 503")
	}
	if statusOf(e.fault()) != http.StatusServiceUnavailable {
		t.Errorf("got %v, want what came last", e.fault())
	}
}

// TestOneRequestHasOneTimeForAllEndpoints: the time does not begin anew at each.
func TestOneRequestHasOneTimeForAllEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := Run(t.Context(), Target{Endpoints: []string{"http://a", "http://b", "http://c"}, HTTP: &http.Client{Transport: slowBreak(answeredWithin - time.Second)},
			Rate: 1, Duration: time.Second, Mix: []Share{{"noop", 1}}})
		if err != nil || r.Took != answeredWithin || r.Rows[0].Failed != 1 || r.Rows[0].Faults[0].What != "no answer in time" {
			t.Errorf("got %+v, %v, want it to be over after %v", r, err, answeredWithin)
		}
	})
}

// slowBreak breaks each connection after that time.
type slowBreak time.Duration

func (s slowBreak) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-time.After(time.Duration(s)):
		return nil, syscall.ECONNRESET
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// TestAFaultOfAllEndpointsSaysSo: it is shown as the last one's alone otherwise.
func TestAFaultOfAllEndpointsSaysSo(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	for n, said := range map[int]bool{1: false, 2: true} {
		r, err := Run(context.Background(), Target{Endpoints: []string{gone.URL, gone.URL}[:n], Rate: 100, Duration: 20 * time.Millisecond, Mix: []Share{{"noop", 1}}})
		if err != nil || r.Rows[0].Failed != 2 || len(r.Rows[0].Faults) != 1 {
			t.Fatalf("got %+v, %v, want both failed alike", r, err)
		}
		if f := r.Rows[0].Faults[0]; f.What != "connection refused" || strings.Contains(f.First.Error(), "none of 2 endpoints") != said {
			t.Errorf("got %+v of %d endpoints, want all named: %v", f, n, said)
		}
	}
}
