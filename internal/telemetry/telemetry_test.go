package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/armon/go-metrics"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

func decode(t *testing.T, line []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(line, &m); err != nil {
		t.Fatalf("log line %q is not JSON: %v", line, err)
	}
	return m
}

func TestLinesCarryTheContextsCorrelationIDOnce(t *testing.T) {
	for _, tc := range []struct {
		name string
		log  func(ctx context.Context, l *slog.Logger)
		want any
	}{
		{"from the context", func(ctx context.Context, l *slog.Logger) { l.InfoContext(ctx, "m") }, "ctx"},
		{"the call's own wins", func(ctx context.Context, l *slog.Logger) { l.InfoContext(ctx, "m", CIDKey, "own") }, "own"},
		{"the logger's own wins", func(ctx context.Context, l *slog.Logger) { l.With(CIDKey, "own").InfoContext(ctx, "m") }, "own"},
		{"without a context", func(_ context.Context, l *slog.Logger) { l.Info("m") }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			l := NewLogger(&out, slog.LevelInfo, slog.String("node", "c1"))
			tc.log(WithCID(context.Background(), "ctx"), l)
			m := decode(t, out.Bytes())
			if m[CIDKey] != tc.want || m["node"] != "c1" {
				t.Errorf("got cid %v and node %v, want %v and c1", m[CIDKey], m["node"], tc.want)
			}
			if n := strings.Count(out.String(), `"cid"`); n > 1 {
				t.Errorf("got %d cid members in %s, want one", n, out.String())
			}
		})
	}
}

func TestLinesBelowTheLevelAreNeitherWrittenNorKept(t *testing.T) {
	var out bytes.Buffer
	l, ring := NewLoggerWithRing(&out, slog.LevelWarn)
	l.Info("quiet")
	l.Warn("loud")
	if got := strings.Count(out.String(), "\n"); got != 1 || !strings.Contains(out.String(), "loud") {
		t.Errorf("got %q written, want only the warning", out.String())
	}
	if got := ring.Lines(""); len(got) != 1 || decode(t, got[0])["msg"] != "loud" {
		t.Errorf("got %q kept, want only the warning", got)
	}
}

func TestRingFindsTheLinesOfOneRequest(t *testing.T) {
	var out bytes.Buffer
	l, ring := NewLoggerWithRing(&out, slog.LevelInfo, slog.String("node", "c1"))
	one, two := WithCID(context.Background(), `a<"1`), WithCID(context.Background(), "a2")
	l.InfoContext(one, "first")
	l.InfoContext(two, "other", "text", `"cid":"a<\"1"`)
	l.With("task", "t").InfoContext(one, "second")
	got := ring.Lines(`a<"1`)
	if len(got) != 2 {
		t.Fatalf("got %d lines %q, want 2", len(got), got)
	}
	for i, want := range []string{"first", "second"} {
		if m := decode(t, got[i]); m["msg"] != want || m["node"] != "c1" {
			t.Errorf("line %d: got %v, want message %q with the logger's own attributes", i, m, want)
		}
	}
}

func TestRingIsBoundedByBytesAndDropsTheOldest(t *testing.T) {
	const limit = 4096
	ring := NewRing(io.Discard, limit)
	l := NewLogger(ring, slog.LevelInfo)
	l.Info(strings.Repeat("x", limit)) // alone too large: never kept
	for i := range 1000 {
		l.Info("line", "i", i)
	}
	lines := ring.Lines("")
	total := 0
	for _, line := range lines {
		total += len(line)
	}
	if total > limit || total < limit/2 {
		t.Errorf("got %d bytes kept, want just under %d", total, limit)
	}
	if last := decode(t, lines[len(lines)-1])["i"]; last != 999.0 {
		t.Errorf("got newest line %v, want 999", last)
	}
	if first := decode(t, lines[0])["i"]; first != float64(1000-len(lines)) {
		t.Errorf("got oldest line %v, want %d", first, 1000-len(lines))
	}
}

func TestRingIsSafeForConcurrentUse(t *testing.T) {
	ring := NewRing(io.Discard, 2048)
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			l := NewLogger(ring, slog.LevelInfo).With("w", w)
			for range 200 {
				l.ErrorContext(WithCID(context.Background(), fmt.Sprint(w)), "m")
				ring.Lines("1")
			}
		})
	}
	all.Wait()
}

func TestMetricsOfLibrariesLandInTheSameRegistry(t *testing.T) {
	m, handler := NewMetrics("ecs-test")
	m.IncrCounter([]string{"own"}, 3)
	metrics.IncrCounter([]string{"raft", "apply"}, 2)
	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{"ecs_test_own 3", "ecs_test_raft_apply 2", "go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(rec.Body.String(), want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
}

func TestDiscardTakesEverything(t *testing.T) {
	m := Discard()
	m.IncrCounter([]string{"x"}, 1)
	m.AddSample([]string{"y"}, 1)
}

func TestCorrelationIDTravelsOverGRPC(t *testing.T) {
	for _, tc := range []struct{ sent, want string }{
		{"abc-1", "abc-1"}, {"", ""}, {"bad\nid", ""},
	} {
		ctx := WithCID(context.Background(), tc.sent)
		var arrived context.Context
		invoke := func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
			md, _ := metadata.FromOutgoingContext(ctx)
			arrived = metadata.NewIncomingContext(context.Background(), md)
			return nil
		}
		if err := UnaryClientCID()(ctx, "/m", nil, nil, nil, invoke); err != nil {
			t.Fatal(err)
		}
		got, _ := UnaryServerCID()(arrived, nil, nil, func(ctx context.Context, _ any) (any, error) { return CID(ctx), nil })
		if got != tc.want {
			t.Errorf("sent %q over a call: got %q, want %q", tc.sent, got, tc.want)
		}
		stream := func(ctx context.Context, _ *grpc.StreamDesc, _ *grpc.ClientConn, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
			md, _ := metadata.FromOutgoingContext(ctx)
			arrived = metadata.NewIncomingContext(context.Background(), md)
			return nil, nil
		}
		if _, err := StreamClientCID()(ctx, nil, nil, "/m", stream); err != nil {
			t.Fatal(err)
		}
		err := StreamServerCID()(nil, serverStream{ctx: arrived}, nil, func(_ any, s grpc.ServerStream) error {
			got = CID(s.Context())
			return nil
		})
		if err != nil || got != tc.want {
			t.Errorf("sent %q over a stream: got %q, %v, want %q", tc.sent, got, err, tc.want)
		}
	}
}

type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s serverStream) Context() context.Context { return s.ctx }
