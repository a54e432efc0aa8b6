// Package telemetry carries what a process tells about itself: structured logs,
// metrics, the correlation id that ties the lines of one request together, and
// a ring of the most recent log lines.
//
// It starts no goroutine: a Behind is set to work by its owner. Only NewMetrics
// touches anything global: it makes its result the default of go-metrics, so that
// what raft and memberlist emit lands in the same registry.
package telemetry

import (
	"context"
	"io"
	"log/slog"
)

// CIDKey is the log attribute and CIDMetadata the gRPC metadata key of the
// correlation id. OwnerKey and TaskKey are the attributes that say whose a line
// is; a line that has neither is the operator's.
const (
	CIDKey      = "cid"
	CIDMetadata = "ecs-cid"
	OwnerKey    = "owner"
	TaskKey     = "task"
)

// NewLogger logs JSON lines to w from level upwards, each with attrs and, where
// the context of the call carries them, with the correlation id and the owner.
// What is named like a secret is not written; see Redacted. Where w is a Behind, or
// a Ring before one, warnings and errors are written when the call returns.
func NewLogger(w io.Writer, level slog.Level, attrs ...slog.Attr) *slog.Logger {
	var to slog.Handler = slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: redact})
	if f, ok := w.(flusher); ok {
		to = prompt{to, f}
	}
	return slog.New(withContext(to).WithAttrs(attrs))
}

// NewLoggerWithRing is NewLogger whose lines are also kept in a Ring of
// DefaultRingBytes.
func NewLoggerWithRing(w io.Writer, level slog.Level, attrs ...slog.Attr) (*slog.Logger, *Ring) {
	ring := NewRing(w, DefaultRingBytes)
	return NewLogger(ring, level, attrs...), ring
}

type (
	cidContext   struct{}
	ownerContext struct{}
)

// WithCID gives ctx the correlation id of the request it serves.
func WithCID(ctx context.Context, cid string) context.Context {
	return context.WithValue(ctx, cidContext{}, cid)
}

// CID is the correlation id of ctx, or empty.
func CID(ctx context.Context) string {
	cid, _ := ctx.Value(cidContext{}).(string)
	return cid
}

// WithOwner gives ctx the owner whose request it serves.
func WithOwner(ctx context.Context, owner string) context.Context {
	return context.WithValue(ctx, ownerContext{}, owner)
}

// contextHandler adds what the context says to a record that does not have it.
type contextHandler struct {
	next slog.Handler
	// cid and owner: an attribute of the logger carries it already; grouped: an
	// attribute added here would land inside a group, where nobody looks.
	cid, owner, grouped bool
}

func withContext(next slog.Handler) slog.Handler { return contextHandler{next: next} }

func (h contextHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.next.Enabled(ctx, l)
}

func (h contextHandler) Handle(ctx context.Context, r slog.Record) error {
	cid := CID(ctx)
	owner, _ := ctx.Value(ownerContext{}).(string)
	addCID, addOwner := cid != "" && !h.cid, owner != "" && !h.owner
	if h.grouped || !addCID && !addOwner {
		return h.next.Handle(ctx, r)
	}
	r.Attrs(func(a slog.Attr) bool {
		addCID = addCID && a.Key != CIDKey
		addOwner = addOwner && a.Key != OwnerKey
		return addCID || addOwner
	})
	r = r.Clone()
	if addCID {
		r.AddAttrs(slog.String(CIDKey, cid))
	}
	if addOwner {
		r.AddAttrs(slog.String(OwnerKey, owner))
	}
	return h.next.Handle(ctx, r)
}

func (h contextHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.next = h.next.WithAttrs(attrs)
	for _, a := range attrs {
		h.cid = h.cid || a.Key == CIDKey && !h.grouped
		h.owner = h.owner || a.Key == OwnerKey && !h.grouped
	}
	return h
}

func (h contextHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	h.next, h.grouped = h.next.WithGroup(name), true
	return h
}
