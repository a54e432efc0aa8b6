package api

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"ecs/internal/task"
	"ecs/proto/api"
)

const (
	maxSignals = 16 // that wait for the program
	// maxPieces is how many pieces an agent takes ahead of the program.
	maxPieces = 8
)

// typed is what a caller has sent for a program and the program has not taken:
// standard input in order, the terminal's size, signals.
type typed struct {
	news chan struct{} // one slot: state has changed
	poke chan struct{} // one slot: there is more to send

	mu        sync.Mutex
	base      int64 // offset of rest: everything below was taken
	rest      []byte
	end       bool // nothing follows rest
	endTaken  bool
	closed    bool // the program takes nothing
	size      *api.TerminalSize
	sizeMoved bool
	signals   []syscall.Signal
}

func newTyped(offset int64, open bool) *typed {
	return &typed{news: make(chan struct{}, 1), poke: make(chan struct{}, 1), base: offset, closed: !open}
}

// change runs f under the lock and wakes who waits.
func (t *typed) change(f func(), wake *chan struct{}) {
	t.mu.Lock()
	f()
	t.mu.Unlock()
	select {
	case *wake <- struct{}{}:
	default:
	}
}

// add reports false when the caller runs too far ahead.
func (t *typed) add(data []byte) (ok bool) {
	wake := t.poke
	t.change(func() {
		ok = len(data) <= api.AttachPiece && len(t.rest)+len(data) <= api.AttachWindow
		switch {
		case !ok || t.end:
		case t.closed:
			t.base += int64(len(data)) // thrown away
			wake = t.news
		default:
			t.rest = append(t.rest, data...)
		}
	}, &wake)
	return ok
}

func (t *typed) close() { t.change(func() { t.end = true }, &t.poke) }

func (t *typed) resize(s api.TerminalSize) {
	t.change(func() { t.size, t.sizeMoved = &s, true }, &t.poke)
}

func (t *typed) signal(s syscall.Signal) (ok bool) {
	t.change(func() {
		if ok = len(t.signals) < maxSignals; ok {
			t.signals = append(t.signals, s)
		}
	}, &t.poke)
	return ok
}

// taken notes what the program took.
func (t *typed) taken(offset int64, ended bool) {
	t.change(func() {
		n := min(max(0, offset-t.base), int64(len(t.rest)))
		t.rest = t.rest[n:]
		t.base += n
		t.endTaken = t.endTaken || ended
	}, &t.news)
}

// shut notes that the program takes nothing any more.
func (t *typed) shut() {
	t.change(func() {
		t.base += int64(len(t.rest))
		t.rest, t.closed = nil, true
	}, &t.news)
}

// again makes everything ready for the next attempt: its standard input is
// open, and has the end of the input yet to see.
func (t *typed) again(open bool) {
	t.change(func() { t.closed, t.endTaken = !open, false }, &t.news)
}

// state is what the caller is told.
func (t *typed) state() api.AttachStdin {
	t.mu.Lock()
	defer t.mu.Unlock()
	return api.AttachStdin{Taken: t.base, Ended: t.endTaken, Closed: t.closed}
}

// waits reports whether there is anything to send over a new connection.
func (t *typed) waits() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sizeMoved || len(t.signals) > 0 || !t.closed && (len(t.rest) > 0 || t.end && !t.endTaken)
}

// pump passes on what is typed, to whichever attempt runs, until ctx ends or
// the task has finished. It connects to the agent when there is something for it.
func (t *typed) pump(ctx context.Context, h *Handler, id task.ID, writer string) {
	attempt, failures := 0, 0
	for {
		now, changed := h.cfg.Reader.Snapshot().WatchTask(id)
		if now == nil || now.State == task.Finished {
			t.shut()
			return
		}
		if now.State == task.Running {
			if n := attemptOf(now); n != attempt {
				if attempt != 0 {
					t.again(now.Spec.OpenStdin)
				}
				attempt, failures = n, 0
			}
			if t.waits() {
				gave, err := t.give(ctx, h, now, writer)
				if ctx.Err() != nil {
					return
				}
				if errors.Is(err, ErrNoInput) {
					t.shut()
				} else {
					h.cfg.Log.DebugContext(ctx, "input not passed on", "task", id, "err", err)
				}
				if gave {
					failures = 0
				}
				pause := time.NewTimer(min(firstPause<<failures, maxPause))
				failures = min(failures+1, giveUpAfter+1)
				if pauseOrChange(ctx, pause, changed) != nil {
					return
				}
				continue
			}
		}
		select {
		case <-changed:
		case <-t.poke:
		case <-ctx.Done():
			return
		}
	}
}

// give passes input on over one connection until that breaks, and says whether
// it was of any use.
func (t *typed) give(ctx context.Context, h *Handler, now *task.Task, writer string) (gave bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := h.cfg.Inputs.Input(ctx, now, writer)
	if err != nil {
		return false, err
	}
	acks, ended := make(chan struct{}, maxPieces+1), make(chan error, 1)
	var taking sync.WaitGroup
	defer taking.Wait()
	defer in.Close()
	taking.Go(func() {
		for {
			offset, end, err := in.Taken()
			if err != nil {
				ended <- err
				return
			}
			t.taken(offset, end)
			select {
			case acks <- struct{}{}:
			case <-ctx.Done():
				ended <- ctx.Err()
				return
			}
		}
	})
	sending := sender{typed: t, in: in, resized: true}
	for {
		if err := sending.all(); err != nil {
			select { // the answer says why
			case err = <-ended:
			case <-ctx.Done():
			}
			return gave, err
		}
		select {
		case <-acks:
			sending.ahead--
			gave = true
		case <-t.poke:
		case err := <-ended:
			return gave, err
		case <-ctx.Done():
			return gave, ctx.Err()
		}
	}
}

// sender sends over one connection what has not been sent over it.
type sender struct {
	*typed
	in      Input
	resized bool  // the size has to be sent whether it moved or not
	sent    int64 // offset
	ended   bool  // the end was sent
	ahead   int   // pieces that are not acknowledged
}

// all sends whatever may be sent now.
func (s *sender) all() error {
	for {
		do := s.next()
		if do == nil {
			return nil
		}
		if err := do(); err != nil {
			return err
		}
	}
}

// next takes one thing that is to be sent, or nil.
func (s *sender) next() func() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size != nil && (s.sizeMoved || s.resized) {
		size := *s.size
		s.sizeMoved, s.resized = false, false
		return func() error { return s.in.Resize(size.Rows, size.Cols) }
	}
	if len(s.signals) > 0 {
		signal := s.signals[0]
		s.signals = s.signals[1:]
		return func() error { return s.in.Signal(signal) }
	}
	s.sent = max(s.sent, s.base)
	unsent := s.rest[s.sent-s.base:]
	if s.closed || s.ahead == maxPieces || len(unsent) == 0 && (!s.end || s.endTaken || s.ended) {
		return nil
	}
	piece := unsent[:min(len(unsent), api.AttachPiece)]
	offset, end := s.sent, s.end && len(piece) == len(unsent)
	s.sent += int64(len(piece))
	s.ended = s.ended || end
	s.ahead++
	return func() error { return s.in.Give(offset, piece, end) }
}
