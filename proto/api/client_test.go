package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// node serves handler and gives its endpoint.
func node(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.URL
}

// gone is an endpoint nobody listens at.
func gone(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func client(t *testing.T, endpoints ...string) *Client {
	t.Helper()
	c, err := New(endpoints, "key", "secret", WithPatience(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func answerTask(w http.ResponseWriter, status int, task Task) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(task)
}

func refuse(w http.ResponseWriter, status int, code Code, retryAfter string) {
	if retryAfter != "" {
		w.Header().Set("Retry-After", retryAfter)
	}
	w.Header().Set("Content-Type", ProblemType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(Problem{Status: status, Code: code, Title: "t", CID: "c"})
}

func TestSubmitGoesOnToTheNextNodeWithTheSameKey(t *testing.T) {
	// A node that dies may still be at it when the next is asked.
	var mu sync.Mutex
	var all []string
	took := func(r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, r.Header.Get(HeaderIdempotencyKey))
	}
	asked := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
	cut := node(t, func(_ http.ResponseWriter, r *http.Request) {
		took(r)
		panic(http.ErrAbortHandler) // the node dies with the request in its hands
	})
	leaderless := node(t, func(w http.ResponseWriter, r *http.Request) {
		took(r)
		refuse(w, http.StatusServiceUnavailable, CodeNoLeader, "2")
	})
	good := node(t, func(w http.ResponseWriter, r *http.Request) {
		took(r)
		if key, secret, ok := r.BasicAuth(); !ok || key != "key" || secret != "secret" {
			t.Errorf("got credentials %q %q", key, secret)
		}
		answerTask(w, http.StatusAccepted, Task{ID: "t1", State: StatePending})
	})
	c := client(t, gone(t), cut, leaderless, good)
	task, err := c.Submit(context.Background(), TaskRequest{Image: "busybox:1"}, SubmitOptions{})
	if err != nil || task.ID != "t1" {
		t.Fatalf("got %+v, %v, want task t1", task, err)
	}
	if keys := asked(); len(keys) != 3 || keys[0] == "" || keys[0] != keys[1] || keys[1] != keys[2] {
		t.Errorf("got keys %q, want the same drawn one three times", keys)
	}
	if _, err := c.Get(context.Background(), "t1"); err != nil || len(asked()) != 4 {
		t.Errorf("got %d requests and %v, want the next call to begin with the node that answered", len(asked()), err)
	}
}

func TestClientWaitsAsLongAsItIsAsked(t *testing.T) {
	var asked atomic.Int32
	first := time.Now()
	var second time.Time
	c := client(t, node(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			refuse(w, http.StatusServiceUnavailable, CodeQueueFull, "1")
			return
		}
		second = time.Now()
		answerTask(w, http.StatusOK, Task{ID: "t1"})
	}))
	if _, err := c.Get(context.Background(), "t1"); err != nil {
		t.Fatal(err)
	}
	if waited := second.Sub(first); waited < time.Second {
		t.Errorf("came back after %v, want the second that Retry-After asked for", waited)
	}
}

func TestClientLosesPatience(t *testing.T) {
	c, err := New([]string{gone(t)}, "k", "s", WithPatience(200*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Cluster(context.Background()); err == nil {
		t.Error("got an answer from nobody")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Cluster(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's end", err)
	}
}

func TestRefusalsAreNotRepeated(t *testing.T) {
	asked := 0
	c := client(t, node(t, func(w http.ResponseWriter, _ *http.Request) {
		asked++
		refuse(w, http.StatusNotFound, CodeNotFound, "")
	}))
	_, err := c.Get(context.Background(), "nope")
	if !errors.Is(err, &Problem{Code: CodeNotFound}) || errors.Is(err, &Problem{Code: CodeInternal}) || asked != 1 {
		t.Errorf("got %v after %d requests, want not_found after one", err, asked)
	}
	plain := client(t, node(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusTeapot) }))
	_, err = plain.Get(context.Background(), "x")
	var p *Problem
	if !errors.As(err, &p) || p.Status != http.StatusTeapot {
		t.Errorf("got %v, want a Problem with the status of whoever is in between", err)
	}
}

func TestWaitOutlastsManyAnswers(t *testing.T) {
	asked := 0
	c := client(t, node(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Query().Get("wait") == "" {
			t.Error("asked without wait")
		}
		state := StateRunning
		if asked == 3 {
			state = StateFinished
		}
		answerTask(w, http.StatusOK, Task{ID: "t1", State: state})
	}))
	task, err := c.Wait(context.Background(), "t1")
	if err != nil || !task.Finished() || asked != 3 {
		t.Errorf("got %+v, %v after %d, want it finished after 3", task, err, asked)
	}
}

func TestEventsGoOnWhereTheyBroke(t *testing.T) {
	var seen []string
	connections := 0
	c := client(t, node(t, func(w http.ResponseWriter, r *http.Request) {
		connections++
		seen = append(seen, r.Header.Get(HeaderLastEventID))
		fmt.Fprint(w, ": hello\n\nevent: novelty\ndata: 1\n\n")
		if connections == 1 {
			fmt.Fprint(w, "id: a\nevent: output\ndata: {\"attempt\":1,\"stream\":\"stdout\",\"offset\":0,\"encoding\":\"utf-8\",\"data\":\"hi\"}\n\n")
			fmt.Fprint(w, "id: lost\nevent: output\nda")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, "id: b\nevent: state\ndata: {\"id\":\"t1\",\"state\":\"finished\",\"exit_code\":3}\n\n")
	}))
	var got []string
	for e, err := range c.Events(context.Background(), "t1", "") {
		if err != nil {
			t.Fatal(err)
		}
		switch e.Type {
		case EventOutput:
			data, err := e.Output.Content()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(data))
		case EventState:
			got = append(got, e.Task.State)
		}
	}
	if strings.Join(got, ",") != "hi,finished" || strings.Join(seen, ",") != ",a" {
		t.Errorf("got events %q with last ids %q, want hi, finished and none, a", got, seen)
	}
}

func TestOutputThatBreaksOffIsAnError(t *testing.T) {
	c := client(t, node(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Range") == "bytes=9-":
			refuse(w, http.StatusRequestedRangeNotSatisfiable, CodeRange, "")
		case r.URL.Query().Get("follow") == "true":
			fmt.Fprint(w, "part")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		default:
			w.Header().Set(HeaderTruncated, "stdout=10")
			fmt.Fprint(w, "whole")
		}
	}))
	read := func(o OutputOptions) (string, bool, error) {
		r, err := c.Output(context.Background(), "t1", Stdout, o)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		return string(b), r.Truncated(), err
	}
	if got, cut, err := read(OutputOptions{}); got != "whole" || !cut || err != nil {
		t.Errorf("got %q, %v, %v, want it whole and truncated", got, cut, err)
	}
	if got, _, err := read(OutputOptions{Follow: true}); got != "part" || err == nil {
		t.Errorf("got %q, %v, want an error behind the part", got, err)
	}
	if got, _, err := read(OutputOptions{Offset: 9}); got != "" || err != nil {
		t.Errorf("got %q, %v, want nothing behind the end", got, err)
	}
}

func TestEndpointsAreChecked(t *testing.T) {
	for _, bad := range [][]string{nil, {"127.0.0.1:8448"}, {"ftp://x"}, {"http://"}, {"http://a\x7f"}} {
		if _, err := New(bad, "k", "s"); err == nil {
			t.Errorf("New(%q): got no error", bad)
		}
	}
}

// FuzzEvents holds that no bytes make the event reader panic or go on for ever.
func FuzzEvents(f *testing.F) {
	f.Add("id: a\nevent: output\ndata: {\"data\":\"x\"}\n\n")
	f.Add("event: state\ndata: {}\n\n: \n\n")
	f.Fuzz(func(t *testing.T, text string) {
		r := newEventReader(strings.NewReader(text))
		for range len(text) + 1 {
			e, err := r.next()
			if err != nil {
				return
			}
			if e.Task == nil && e.Output == nil {
				t.Fatalf("got the event %+v without content", e)
			}
		}
		t.Fatal("more events than bytes")
	})
}

// What makes another one each time is not sent again where it may have arrived, and
// is where it can't have.
func TestKeysAndTokensAreMadeOnce(t *testing.T) {
	type answer struct {
		status int
		code   Code
		cut    bool
		again  bool
	}
	var asked atomic.Int32
	var now atomic.Pointer[answer]
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		a := now.Load()
		if a.cut {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", ProblemType)
		w.WriteHeader(a.status)
		fmt.Fprintf(w, `{"code":%q}`, a.code)
	}))
	defer s.Close()
	nobody := gone(t)
	for name, c := range map[string]answer{
		"the connection breaks":   {cut: true},
		"nobody knows":            {status: 503, code: CodeUnknown},
		"a fault":                 {status: 500, code: CodeInternal},
		"a proxy's answer":        {status: 502},
		"nothing was written":     {status: 503, code: CodeNoLeader, again: true},
		"another one has the key": {status: 503, code: CodeNoAuthority, again: true},
	} {
		now.Store(&c)
		client, err := New([]string{nobody, s.URL}, "k", "s", WithPatience(500*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		for _, do := range []func() error{
			func() error { _, err := client.MakeKey(t.Context(), KeyRequest{Role: RoleAdmin}); return err },
			func() error { _, err := client.MakeToken(t.Context(), TokenRequest{Role: NodeAgent}); return err },
		} {
			asked.Store(0)
			err := do()
			var open *Uncertain
			if got := errors.As(err, &open); err == nil || got == c.again {
				t.Errorf("%s: got %v", name, err)
			}
			if n := asked.Load(); c.again != (n > 1) || n == 0 {
				t.Errorf("%s: asked %d times", name, n)
			}
		}
		client.Close()
	}
}
