package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// gate is a writer that takes nothing while it is held.
type gate struct {
	held   chan struct{} // nil: it is open
	text   bytes.Buffer
	writes int
	err    error
}

func (g *gate) Write(p []byte) (int, error) {
	if g.held != nil {
		<-g.held
	}
	g.writes++
	g.text.Write(p)
	return len(p), g.err
}

// behind runs f inside a bubble with a Behind at work.
func behind(t *testing.T, f func(b *Behind, g *gate)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := new(gate)
		b := NewBehind(g)
		var run sync.WaitGroup
		run.Go(b.Run)
		f(b, g)
		b.Close()
		run.Wait()
		if n, err := b.Write([]byte("late\n")); n != 0 || err == nil {
			t.Errorf("got %d, %v for a line after Close, want an error", n, err)
		}
	})
}

func TestLinesAreWrittenBehindInOrder(t *testing.T) {
	var want strings.Builder
	var got *gate
	behind(t, func(b *Behind, g *gate) {
		got, g.held = g, make(chan struct{})
		for i := range 1000 {
			line := fmt.Sprintf("line %d\n", i)
			want.WriteString(line)
			if n, err := b.Write([]byte(line)); n != len(line) || err != nil {
				t.Fatalf("got %d, %v", n, err)
			}
		}
		close(g.held)
	})
	if got.text.String() != want.String() {
		t.Errorf("got %d bytes that are not the %d in their order", got.text.Len(), want.Len())
	}
	if got.writes > 2 {
		t.Errorf("got %d writes, want what had gathered in one", got.writes)
	}
}

func TestWhoLogsWaitsForAFullLog(t *testing.T) {
	behind(t, func(b *Behind, g *gate) {
		g.held = make(chan struct{})
		line := bytes.Repeat([]byte("x"), mostBehind/4)
		written := 0
		go func() {
			for range 12 {
				_, _ = b.Write(line)
				written++
			}
		}()
		synctest.Wait()
		if written > 8 {
			t.Errorf("got %d quarters taken, want four that wait and what is under way at most", written)
		}
		close(g.held)
		synctest.Wait()
		if written != 12 || g.text.Len() != 12*len(line) {
			t.Errorf("got %d lines and %d bytes, want all 12", written, g.text.Len())
		}
	})
}

func TestTroubleIsWrittenAtOnce(t *testing.T) {
	behind(t, func(b *Behind, g *gate) {
		log := NewLogger(NewRing(b, 0), slog.LevelInfo).With("node", "a").WithGroup("g")
		log.Info("calm")
		log.Warn("trouble")
		text := g.text.String()
		if !strings.Contains(text, `"calm"`) || !strings.HasSuffix(text, "}\n") || !strings.Contains(text, `"trouble"`) {
			t.Errorf("got %q when the call has returned, want both lines", text)
		}
	})
}

func TestAFailedWriteIsToldOnce(t *testing.T) {
	behind(t, func(b *Behind, g *gate) {
		full := errors.New("full")
		g.err = full
		_, _ = b.Write([]byte("a\n"))
		b.Flush()
		g.err = nil
		if _, err := b.Write([]byte("b\n")); !errors.Is(err, full) {
			t.Errorf("got %v, want that the line before was lost", err)
		}
		b.Flush()
		if _, err := b.Write([]byte("c\n")); err != nil {
			t.Errorf("got %v, want nothing", err)
		}
	})
}

// talkative logs another line during each write, so many times.
type talkative struct {
	b     *Behind
	times atomic.Int64
}

func (w *talkative) Write(p []byte) (int, error) {
	if w.times.Add(1) < 100_000 {
		_, _ = w.b.Write([]byte("more\n")) // it can't be closed yet
	}
	return len(p), nil
}

// Whoever tells of trouble must not wait for what others log meanwhile: there may
// never be a moment without any.
func TestFlushWaitsForNothingThatCameLater(t *testing.T) {
	w := new(talkative)
	w.b = NewBehind(w)
	var run sync.WaitGroup
	run.Go(w.b.Run)
	if _, err := w.b.Write([]byte("first\n")); err != nil {
		t.Fatal(err)
	}
	w.b.Flush()
	if n := w.times.Load(); n >= 100_000 {
		t.Errorf("it returned after %d writes", n)
	}
	w.b.Close()
	run.Wait()
}
