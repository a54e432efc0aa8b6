package api

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"ecs/internal/access"
	"ecs/internal/telemetry"
	"ecs/proto/api"
)

// TestStrangersLearnWhetherTheirKeyCame: and nothing else, such as whether there is
// one of that name.
func TestStrangersLearnWhetherTheirKeyCame(t *testing.T) {
	w := newWorld(t)
	missing := w.same401("", "Bearer x", "Basic !!")
	refused := w.same401(basic(alice, "wrong"), basic("nobody", "a-secret"), basic(alice, ""), basic("", ""))
	if !strings.Contains(missing, "Basic authentication") || !strings.Contains(refused, "refused") {
		t.Errorf("got %q without a key and %q with a wrong one, want a remedy for each", missing, refused)
	}
	for _, path := range []string{"/nope", "/v1.1/_health", "/v1.1/_version", "/metrics", "/v2/nodes", "/v2/cluster"} {
		w.problem(w.do(http.MethodGet, path, "", "Authorization", ""), http.StatusUnauthorized, api.CodeUnauthorized)
	}
	for path, status := range map[string]int{"/openapi.yaml": 200, "/docs": 200, "/": 200} {
		if a := w.do(http.MethodGet, path, "", "Authorization", ""); a.status != status {
			t.Errorf("%s: got %d, want %d without a key", path, a.status, status)
		}
	}
}

// same401 makes a request with each of the headers, which are all refused alike, and
// gives the detail.
func (w *world) same401(headers ...string) string {
	w.t.Helper()
	var first api.Problem
	for i, header := range headers {
		a := w.do(http.MethodGet, "/v2/tasks", "", "Authorization", header)
		p := w.problem(a, http.StatusUnauthorized, api.CodeUnauthorized)
		if got := a.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Basic ") {
			w.t.Errorf("%q: got WWW-Authenticate %q, want Basic", header, got)
		}
		p.CID = ""
		if i == 0 {
			first = p
		}
		if !reflect.DeepEqual(p, first) {
			w.t.Errorf("%q: got %+v, want the same as %+v", header, p, first)
		}
	}
	return first.Detail
}

func TestEveryAnswerCarriesACorrelationID(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/v2/tasks", "/nope", "/docs", "/v2/tasks/none"} {
		if got := w.do(http.MethodGet, path, "", api.HeaderCID, "mine-1.2_3").header.Get(api.HeaderCID); got != "mine-1.2_3" {
			t.Errorf("%s: got %q, want the caller's", path, got)
		}
		for _, insane := range []string{"", "a b", strings.Repeat("x", 65), `a"b`, "ü"} {
			got := w.do(http.MethodGet, path, "", api.HeaderCID, insane).header.Get(api.HeaderCID)
			if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(got) {
				t.Errorf("%s: got %q for %q, want a new one", path, got, insane)
			}
		}
	}
	id := w.task(w.do(http.MethodPost, "/v2/tasks", `{"image":"busybox:1"}`, api.HeaderCID, "of-the-task")).ID
	if got := w.task(w.do(http.MethodGet, "/v2/tasks/"+id, "")).CID; got != "of-the-task" {
		t.Errorf("got %q in the record, want that of the request that made it", got)
	}
}

func TestWrongPathsAndMethodsAreProblems(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/nope", "//", "/v2//tasks", "/v2/tasks/", "/v2/tasks/%2e%2e", "/v2/tasks/%00", "/v2/tasks/a%2fb", "/v2/tasks/x/nope",
		"/v2/tasks/" + strings.Repeat("x", 100), "/V2/tasks", "/v1.1/tasks/x", "/docs/"} {
		w.problem(w.do(http.MethodGet, path, ""), http.StatusNotFound, api.CodeNotFound)
	}
	for path, allow := range map[string]string{"/v2/tasks": "GET, HEAD, OPTIONS, POST", "/v1.1/tasks": "OPTIONS, POST", "/v2/nodes/a1/drain": "OPTIONS, POST"} {
		a := w.do(http.MethodDelete, path, "")
		w.problem(a, http.StatusMethodNotAllowed, api.CodeNotAllowed)
		if got := a.header.Get("Allow"); got != allow {
			t.Errorf("%s: got Allow %q, want %q", path, got, allow)
		}
	}
	if index := decodeAs[api.Index](t, w.do(http.MethodGet, "/", "", "Authorization", "")); index.OpenAPI != "/openapi.yaml" || index.Documentation != "/docs" {
		t.Errorf("got %+v at the root", index)
	}
}

func TestBodiesAreTakenAsTheyAre(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/v2/tasks", "/v1.1/tasks", "/v1.0/tasks/"} {
		w.problem(w.do(http.MethodPost, path, "\x1f\x8b", "Content-Encoding", "gzip"), http.StatusUnsupportedMediaType, api.CodeMediaType)
	}
	// Without a Content-Length the bound holds while reading.
	req, err := http.NewRequest(http.MethodPost, w.url+"/v2/tasks", struct{ *strings.Reader }{strings.NewReader(`{"image":"` + strings.Repeat("x", 300<<10))})
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(alice, "a-secret")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("got %d for 300 KiB in chunks, want 413", resp.StatusCode)
	}
}

func TestLongPollOutlivesTheReadTimeout(t *testing.T) {
	s := newHandlerWorld(t)
	a, err := s.try(http.MethodPost, "/v2/tasks?wait=700ms", `{"image":"busybox:1"}`)
	if err != nil || a.status != http.StatusAccepted {
		t.Errorf("got %d %v, want 202 after a wait longer than the server's read timeout", a.status, err)
	}
}

// newHandlerWorld is a world whose server has a read timeout of 200 ms.
func newHandlerWorld(t *testing.T) *world {
	return newWorldOn(t, func(s *http.Server) { s.ReadTimeout, s.ReadHeaderTimeout = 200*time.Millisecond, 200*time.Millisecond })
}

func TestServerBoundsSlowClients(t *testing.T) {
	s := NewServer(http.NotFoundHandler())
	if s.ReadHeaderTimeout != 5*time.Second || s.ReadTimeout != 30*time.Second || s.IdleTimeout != time.Minute ||
		s.MaxHeaderBytes != 16<<10 || s.WriteTimeout != 0 || s.HTTP2.MaxConcurrentStreams != 100 {
		t.Errorf("got %+v", s)
	}
}

func TestPanicIsAnInternalError(t *testing.T) {
	w := newWorld(t)
	w.explain = func(context.Context) (string, int, error) { panic("out of order") }
	id := w.submitted(`{"image":"busybox:1"}`)
	w.problem(w.do(http.MethodGet, "/v2/tasks/"+string(id), ""), http.StatusInternalServerError, api.CodeInternal)
	if a := w.do(http.MethodGet, "/v2/tasks", ""); a.status != http.StatusOK {
		t.Errorf("got %d afterwards, want the node to live on", a.status)
	}
}

func TestBusyAuthenticatorIsNotAWrongSecret(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Auth = stuck{} })
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"/v2/tasks", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(alice, "x")
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Errorf("got %d from an authenticator that never answers", resp.StatusCode)
	}
}

type stuck struct{}

func (stuck) Holder(string) (access.Principal, string, bool) { return access.Principal{}, "", false }

func (stuck) Remembered(string, string) (access.Principal, bool) { return access.Principal{}, false }

func (stuck) Counts(access.Principal) bool { return true }

func (stuck) Changed() (<-chan struct{}, time.Duration) { return nil, 0 }

func (stuck) Authenticate(ctx context.Context, _ Attempt) (access.Principal, error) {
	<-ctx.Done()
	return access.Principal{}, ctx.Err()
}

func TestRetryAfterComesWithEveryPassingRefusal(t *testing.T) {
	h := &Handler{codes: codeTable()}
	for _, info := range api.Codes() {
		rec := newRecorder()
		h.problem(rec, newRequest(), &api.Problem{Code: info.Code})
		seconds, _ := strconv.Atoi(rec.Header().Get("Retry-After"))
		if rec.Code != info.Status || info.Retry != (seconds > 0) || info.Retry != (info.Status == http.StatusServiceUnavailable || info.Status == http.StatusTooManyRequests) {
			t.Errorf("%s: got %d with Retry-After %d, want %d and one exactly for 429 and 503", info.Code, rec.Code, seconds, info.Status)
		}
	}
}

// TestAnswersLastUnderHTTP2 follows output and waits through a server that
// speaks HTTP/2, where deadlines work differently.
func TestAnswersLastUnderHTTP2(t *testing.T) {
	w := newWorld(t)
	s := httptest.NewUnstartedServer(nil)
	s.Config = NewServer(w.handler)
	s.Config.ReadTimeout = 200 * time.Millisecond
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	id := w.submitted(hello)
	req, err := http.NewRequest(http.MethodGet, s.URL+"/v2/tasks/"+string(id)+"/output?follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(alice, "a-secret")
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	quiet := time.NewTimer(500 * time.Millisecond)
	defer quiet.Stop()
	<-quiet.C // longer than the read timeout: that is what is tested
	tok := w.start(id)
	w.print(id, api.Stdout, "late", true)
	w.finish(tok, exited(0))
	got, err := io.ReadAll(resp.Body)
	if err != nil || string(got) != "late" || resp.ProtoMajor != 2 || resp.Trailer.Get(api.HeaderBytes) != "4" {
		t.Errorf("got %q, %v over HTTP/%d with trailers %v, want it all", got, err, resp.ProtoMajor, resp.Trailer)
	}
}

// A flood of wrong secrets fills no disk: what is left out of the log is counted.
func TestStrangersAreSparedInTheLog(t *testing.T) {
	ring := telemetry.NewRing(io.Discard, 0)
	w := newWorld(t, func(c *Config) { c.Log = telemetry.NewLogger(ring, slog.LevelInfo) })
	for range refusedBurst + 20 {
		w.do(http.MethodPost, "/v2/tasks", hello, "Authorization", "")
	}
	w.submitted(hello) // who is known is always there
	log := string(bytes.Join(ring.Lines(""), []byte("\n")))
	lines := strings.Count(log, `"status":401`)
	if lines < refusedBurst || lines > refusedBurst+15 || !strings.Contains(log, `"status":202`) {
		t.Errorf("got %d lines of strangers, want about %d", lines, refusedBurst)
	}
}
