package tracing

import (
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"ecs/internal/task"
	"ecs/internal/telemetry"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// collected runs f with a Tracer that exports to a collector, and gives the
// spans that arrived.
func collected(t *testing.T, f func(*Tracer)) []*otlp.Span {
	t.Helper()
	var mu sync.Mutex
	var spans []*otlp.Span
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &req); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("got %s with %v", r.URL.Path, err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, rs := range req.GetResourceSpans() {
			for _, ss := range rs.GetScopeSpans() {
				spans = append(spans, ss.GetSpans()...)
			}
		}
	}))
	defer s.Close()
	tr, err := New(context.Background(), Config{Endpoint: s.URL + "/v1/traces", Service: "ecs-control", Node: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	f(tr)
	if err := tr.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	return spans
}

func named(t *testing.T, spans []*otlp.Span, name string) *otlp.Span {
	t.Helper()
	var found *otlp.Span
	for _, s := range spans {
		if s.GetName() == name {
			if found != nil {
				t.Fatalf("two spans %q", name)
			}
			found = s
		}
	}
	if found == nil {
		t.Fatalf("no span %q among %d", name, len(spans))
	}
	return found
}

func TestARequestContinuesItsCallersTrace(t *testing.T) {
	var given string
	spans := collected(t, func(tr *Tracer) {
		now := time.Now()
		p, part, end := tr.Request(http.Header{"Traceparent": {parent}}, now)
		part("committed", now, now.Add(time.Millisecond))
		end("POST /v2/tasks", "c-1", 202)
		given = p
	})
	request, committed := named(t, spans, "POST /v2/tasks"), named(t, spans, "committed")
	if telemetry.TraceID(given) != telemetry.TraceID(parent) || given == parent {
		t.Errorf("got traceparent %s, want a new span of the caller's trace", given)
	}
	if hexed(request.GetParentSpanId()) != parent[36:52] || hexed(committed.GetParentSpanId()) != hexed(request.GetSpanId()) {
		t.Errorf("got parents %x and %x", request.GetParentSpanId(), committed.GetParentSpanId())
	}
}

func TestATasksLifeIsOneTrace(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	done := &task.Task{ID: "t1", CID: "c", Trace: parent, SubmittedAt: at, FinishedAt: at.Add(ms(1000)), State: task.Finished,
		Attempts: []task.Attempt{{Number: 1, Node: "a1", PlacedAt: at, EndedAt: at.Add(ms(100)), Outcome: task.NodeLost},
			{Number: 2, Node: "a2", PlacedAt: at.Add(ms(200)), EndedAt: at.Add(ms(1000)), Outcome: task.Exited}},
		Result: &task.Result{Outcome: task.Exited, HasExit: true, ImageDigest: "sha256:1"},
		Bill: task.Bill{Accepted: ms(1), Queued: ms(5), Placed: ms(2), Assigned: ms(3), Image: ms(4), Create: ms(20), Start: ms(170), Run: ms(500),
			Output: ms(6), Reported: ms(7)}}
	spans := collected(t, func(tr *Tracer) {
		tr.Task(done, at.Add(ms(1010)))
		unsampled := *done
		unsampled.Trace = parent[:53] + "00"
		tr.Task(&unsampled, at)
		unsampled.Trace = ""
		tr.Task(&unsampled, at)
	})
	whole, second := named(t, spans, "task"), named(t, spans, "attempt 2")
	if hexed(whole.GetParentSpanId()) != parent[36:52] || hexed(whole.GetTraceId()) != telemetry.TraceID(parent) {
		t.Errorf("got parent %x in trace %x, want the request's", whole.GetParentSpanId(), whole.GetTraceId())
	}
	for name, want := range map[string]struct {
		under      *otlp.Span
		from, took int
	}{"accepted": {whole, -1, 1}, "queued": {whole, 0, 5}, "placed": {whole, 5, 2}, "attempt 1": {whole, 0, 100}, "attempt 2": {whole, 200, 800},
		"assigned": {second, 200, 3}, "image": {second, 203, 4}, "create": {second, 207, 20}, "start": {second, 227, 170}, "run": {second, 397, 500},
		"output": {second, 897, 6}, "reported": {second, 903, 7}, "recorded": {whole, 1000, 10}} {
		s := named(t, spans, name)
		from, took := time.Unix(0, int64(s.GetStartTimeUnixNano())).Sub(at), time.Duration(s.GetEndTimeUnixNano()-s.GetStartTimeUnixNano())
		if from != ms(want.from) || took != ms(want.took) || hexed(s.GetParentSpanId()) != hexed(want.under.GetSpanId()) {
			t.Errorf("%s: got %v for %v under %x, want %d ms for %d ms", name, from, took, s.GetParentSpanId(), want.from, want.took)
		}
	}
	if got := named(t, spans, "attempt 1").GetStatus().GetCode(); got != otlp.Status_STATUS_CODE_ERROR {
		t.Errorf("got status %v of the lost attempt, want an error", got)
	}
}

func TestTracesAreWantedOnlyWhenConfigured(t *testing.T) {
	for _, tt := range []struct {
		endpoint string
		env      map[string]string
		want     bool
		fault    bool
	}{
		{"", nil, false, false},
		{"http://h:4318/v1/traces", nil, true, false},
		{"h:4317", nil, false, true},
		{"", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318"}, true, false},
		{"", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h:4318"}, true, false},
		{"http://h", map[string]string{"OTEL_SDK_DISABLED": "true"}, false, false},
		{"http://h", map[string]string{"OTEL_TRACES_EXPORTER": "none"}, false, false},
		{"http://h", map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, false, true},
	} {
		got, err := Wanted(tt.endpoint, func(name string) string { return tt.env[name] })
		if got != tt.want || (err != nil) != tt.fault {
			t.Errorf("%q %v: got %v, %v, want %v and fault %v", tt.endpoint, tt.env, got, err, tt.want, tt.fault)
		}
	}
}

func TestNoTracerDoesNothing(t *testing.T) {
	var none *Tracer
	none.Task(&task.Task{Trace: parent}, time.Now())
	if err := none.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func hexed(id []byte) string { return hex.EncodeToString(id) }
