package telemetry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
)

// mostBehind bounds, in bytes, what of a log waits to be written. Beyond it
// whoever logs waits.
const mostBehind = 1 << 20

// Behind writes a log's lines without those who log waiting for it: a write to
// a file can wait for the disk, and everybody who logs for that write. What
// comes while one is under way is the next, in one piece. It is safe for
// concurrent use.
type Behind struct {
	next io.Writer

	mu struct {
		sync.Mutex
		waiting []byte
		closed  bool
		err     error // of the last write

		given, written int64 // bytes since the start; what could not be written, too
	}
	changed sync.Cond // any of the above
}

// NewBehind writes to next, once Run runs.
func NewBehind(next io.Writer) *Behind {
	b := &Behind{next: next}
	b.changed.L = &b.mu
	return b
}

var errClosed = errors.New("the log is closed")

// Write implements io.Writer: it takes the lines and lets Run write them. The
// error is that of an earlier write.
func (b *Behind) Write(lines []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.mu.waiting) > 0 && len(b.mu.waiting)+len(lines) > mostBehind && !b.mu.closed {
		b.changed.Wait()
	}
	if b.mu.closed {
		return 0, errClosed
	}
	b.mu.waiting = append(b.mu.waiting, lines...)
	b.mu.given += int64(len(lines))
	b.changed.Broadcast()
	err := b.mu.err
	b.mu.err = nil
	return len(lines), err
}

// Flush returns once all that was given to Write before is written, or could
// not be. What comes meanwhile it does not wait for.
func (b *Behind) Flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for given := b.mu.given; b.mu.written < given; {
		b.changed.Wait()
	}
}

// Close makes Run return once everything is written. Later lines are lost.
func (b *Behind) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.closed = true
	b.changed.Broadcast()
}

// Run writes until Close.
func (b *Behind) Run() {
	var spare []byte
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		for len(b.mu.waiting) == 0 && !b.mu.closed {
			b.changed.Wait()
		}
		if len(b.mu.waiting) == 0 {
			return
		}
		lines := b.mu.waiting
		b.mu.waiting = spare[:0]
		b.mu.Unlock()
		_, err := b.next.Write(lines)
		b.mu.Lock()
		b.mu.err = err
		b.mu.written += int64(len(lines))
		spare = lines
		b.changed.Broadcast()
	}
}

// flusher is a writer that has lines of its own for a while.
type flusher interface{ Flush() }

// prompt has lines that tell of trouble written before the call that logs them
// returns: the process may be about to end.
type prompt struct {
	slog.Handler
	to flusher
}

func (h prompt) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		h.to.Flush()
	}
	return err
}

func (h prompt) WithAttrs(attrs []slog.Attr) slog.Handler {
	return prompt{h.Handler.WithAttrs(attrs), h.to}
}

func (h prompt) WithGroup(name string) slog.Handler { return prompt{h.Handler.WithGroup(name), h.to} }
