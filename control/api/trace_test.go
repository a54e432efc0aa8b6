package api

import (
	"net/http"
	"testing"
	"time"

	"ecs/internal/task"
	"ecs/proto/api"
)

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestACallersTraceReachesTheRecord(t *testing.T) {
	w := newWorld(t)
	a := w.do(http.MethodPost, "/v2/tasks", `{"image":"busybox:1"}`, "Traceparent", traceparent)
	got := w.task(a)
	if rec := w.store.Snapshot().Task(task.ID(got.ID)); rec.Trace != traceparent || got.TraceID != traceparent[3:35] || a.header.Get(api.HeaderTrace) != "" {
		t.Errorf("got trace %q in the record, id %q in the answer", rec.Trace, got.TraceID)
	}
	got = w.task(w.do(http.MethodPost, "/v2/tasks", `{"image":"busybox:1"}`, "Traceparent", "00-nonsense"))
	if rec := w.store.Snapshot().Task(task.ID(got.ID)); rec.Trace != "" || got.TraceID != "" {
		t.Errorf("got trace %q from nonsense", rec.Trace)
	}
}

// spans plays what exports.
type spans struct{ parts, ended chan string }

func (s spans) Request(http.Header, time.Time) (string, func(string, time.Time, time.Time), func(string, string, int)) {
	return traceparent, func(name string, _, _ time.Time) { s.parts <- name }, func(name, _ string, _ int) { s.ended <- name }
}

func TestARequestsSpanIsToldToTheCaller(t *testing.T) {
	s := spans{make(chan string, 8), make(chan string, 8)}
	w := newWorld(t, func(c *Config) { c.Traces = s })
	a := w.do(http.MethodPost, "/v2/tasks", `{"image":"busybox:1"}`)
	if a.header.Get(api.HeaderTrace) != traceparent || w.task(a).TraceID != traceparent[3:35] {
		t.Errorf("got %s %q", a.body, a.header)
	}
	if part, ended := <-s.parts, <-s.ended; part != "committed" || ended != "POST /v2/tasks" {
		t.Errorf("got part %q and span %q", part, ended)
	}
	w.do(http.MethodGet, "/openapi.yaml", "")
	if len(s.ended) != 0 {
		t.Errorf("got a span of %q", <-s.ended)
	}
}
