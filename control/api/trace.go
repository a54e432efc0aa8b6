package api

import (
	"net/http"
	"strings"
	"time"

	"ecs/internal/telemetry"
	"ecs/proto/api"
)

// tracing is a request's place in a trace.
type tracing struct {
	parent string // W3C traceparent of what the request leads to; empty: no trace
	part   func(name string, from, to time.Time)
	end    func(name, cid string, status int)
}

// trace takes a caller's trace context. Where spans are exported the request
// gets its own, which the caller is told.
func (h *Handler) trace(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	x.trace = tracing{part: func(string, time.Time, time.Time) {}, end: func(string, string, int) {}}
	if h.cfg.Traces != nil && strings.HasPrefix(r.URL.Path, "/v") {
		x.trace.parent, x.trace.part, x.trace.end = h.cfg.Traces.Request(r.Header, x.start)
		w.Header().Set(api.HeaderTrace, x.trace.parent)
		return
	}
	if values := r.Header.Values("Traceparent"); len(values) == 1 && telemetry.SaneTrace(values[0]) {
		x.trace.parent = values[0][:55] // what later versions add is not understood here
	}
}
