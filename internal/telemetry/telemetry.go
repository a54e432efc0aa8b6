// Package telemetry carries what a process tells about itself: structured logs,
// metrics, the correlation id that ties the lines of one request together, and
// a ring of the most recent log lines.
//
// It starts no goroutine. Only NewMetrics touches anything global: it makes its
// result the default of go-metrics, so that what raft and memberlist emit lands
// in the same registry.
package telemetry

import (
	"context"
	"io"
	"log/slog"
)

// CIDKey is the log attribute and CIDMetadata the gRPC metadata key of the
// correlation id.
const (
	CIDKey      = "cid"
	CIDMetadata = "ecs-cid"
)

// NewLogger logs JSON lines to w from level upwards, each with attrs and, where
// the context of the call carries one, with the correlation id.
func NewLogger(w io.Writer, level slog.Level, attrs ...slog.Attr) *slog.Logger {
	json := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})
	return slog.New(withCID(json).WithAttrs(attrs))
}

// NewLoggerWithRing is NewLogger whose lines are also kept in a Ring of
// DefaultRingBytes.
func NewLoggerWithRing(w io.Writer, level slog.Level, attrs ...slog.Attr) (*slog.Logger, *Ring) {
	ring := NewRing(w, DefaultRingBytes)
	return NewLogger(ring, level, attrs...), ring
}

type cidContext struct{}

// WithCID gives ctx the correlation id of the request it serves.
func WithCID(ctx context.Context, cid string) context.Context {
	return context.WithValue(ctx, cidContext{}, cid)
}

// CID is the correlation id of ctx, or empty.
func CID(ctx context.Context) string {
	cid, _ := ctx.Value(cidContext{}).(string)
	return cid
}

// cidHandler adds the context's correlation id to a record that has none.
type cidHandler struct {
	next slog.Handler
	// has: an attribute of the logger carries it already; grouped: an
	// attribute added here would land inside a group, where nobody looks.
	has, grouped bool
}

func withCID(next slog.Handler) slog.Handler { return cidHandler{next: next} }

func (h cidHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

func (h cidHandler) Handle(ctx context.Context, r slog.Record) error {
	cid := CID(ctx)
	if cid == "" || h.has || h.grouped || recordHasCID(r) {
		return h.next.Handle(ctx, r)
	}
	r = r.Clone()
	r.AddAttrs(slog.String(CIDKey, cid))
	return h.next.Handle(ctx, r)
}

func (h cidHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.next = h.next.WithAttrs(attrs)
	for _, a := range attrs {
		h.has = h.has || a.Key == CIDKey && !h.grouped
	}
	return h
}

func (h cidHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	h.next, h.grouped = h.next.WithGroup(name), true
	return h
}

func recordHasCID(r slog.Record) bool {
	found := false
	r.Attrs(func(a slog.Attr) bool {
		found = a.Key == CIDKey
		return !found
	})
	return found
}
