package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
)

// DefaultRingBytes is how much of its own log a process keeps in memory.
const DefaultRingBytes = 4 << 20

// Ring is a slog.Handler that passes records on and keeps the most recent ones
// as JSON lines, bounded by their bytes. Handlers derived from it by WithAttrs
// and WithGroup share the same lines. It is safe for concurrent use.
type Ring struct {
	next  slog.Handler
	json  slog.Handler
	lines *lines
}

// NewRing keeps up to limit bytes of what passes through to next; a limit of
// zero or less means DefaultRingBytes.
func NewRing(next slog.Handler, limit int) *Ring {
	if limit <= 0 {
		limit = DefaultRingBytes
	}
	kept := &lines{limit: limit}
	// next decides what is logged at all, so the inner handler takes everything.
	all := &slog.HandlerOptions{Level: slog.Level(-128)}
	return &Ring{next: next, json: withCID(slog.NewJSONHandler(kept, all)), lines: kept}
}

// Lines gives the kept lines, oldest first, that carry the correlation id, or
// all of them for an empty one. A line is one JSON object without a newline.
func (r *Ring) Lines(cid string) [][]byte {
	return r.lines.matching(member(cid))
}

// member is what a line that carries cid contains. A quote inside a JSON string
// is always escaped, so nothing but the member itself looks like it.
func member(cid string) []byte {
	if cid == "" {
		return nil
	}
	out := bytes.NewBufferString(`"` + CIDKey + `":`)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false) // as slog does
	_ = enc.Encode(cid)      // a string into a buffer
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// Enabled asks the handler behind the ring.
func (r *Ring) Enabled(ctx context.Context, l slog.Level) bool { return r.next.Enabled(ctx, l) }

// Handle keeps the record and passes it on.
func (r *Ring) Handle(ctx context.Context, rec slog.Record) error {
	return errors.Join(r.json.Handle(ctx, rec.Clone()), r.next.Handle(ctx, rec))
}

// WithAttrs gives a handler that shares the ring's lines.
func (r *Ring) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Ring{next: r.next.WithAttrs(attrs), json: r.json.WithAttrs(attrs), lines: r.lines}
}

// WithGroup gives a handler that shares the ring's lines.
func (r *Ring) WithGroup(name string) slog.Handler {
	return &Ring{next: r.next.WithGroup(name), json: r.json.WithGroup(name), lines: r.lines}
}

// lines is a queue of lines bounded by bytes; a JSON handler writes into it,
// one call a line.
type lines struct {
	limit int
	mu    struct {
		sync.Mutex
		kept  [][]byte
		bytes int
	}
}

func (l *lines) Write(p []byte) (int, error) {
	line := bytes.Clone(bytes.TrimSuffix(p, []byte("\n")))
	if len(line) > l.limit {
		return len(p), nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.kept = append(l.mu.kept, line)
	l.mu.bytes += len(line)
	for l.mu.bytes > l.limit {
		l.mu.bytes -= len(l.mu.kept[0])
		l.mu.kept[0] = nil // the array behind the slice lives on until it grows
		l.mu.kept = l.mu.kept[1:]
	}
	return len(p), nil
}

func (l *lines) matching(pattern []byte) [][]byte {
	l.mu.Lock()
	all := l.mu.kept[:len(l.mu.kept):len(l.mu.kept)]
	copied := make([][]byte, len(all))
	copy(copied, all)
	l.mu.Unlock()
	found := copied[:0]
	for _, line := range copied {
		if bytes.Contains(line, pattern) {
			found = append(found, line)
		}
	}
	return found
}
