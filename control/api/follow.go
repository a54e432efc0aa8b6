package api

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ecs/internal/task"
)

// position is how far a stream has been followed. Offsets count within one
// attempt: the next attempt's output begins at 0.
type position struct {
	attempt int
	offset  int64
}

// follower follows one stream of a task through all its attempts, until the
// task has finished.
type follower struct {
	h      *Handler
	id     task.ID
	stream string
	at     position
	// send gets pieces in order, each directly behind the one before or at 0
	// of a higher attempt. An error of it ends the following.
	send func(at position, data []byte) error

	ended   bool // the present attempt's stream has been read to its end
	passed  int  // attempts up to this one are over, and nothing of them is wanted any more
	cut     int  // an attempt that ran again before all of its output was here, 0: none
	quiet   *quiet
	failed  error // of send
	retries int   // readings in a row that brought nothing
}

const (
	// giveUpAfter is how many readings of a finished task's output may break
	// before it is taken for lost.
	giveUpAfter = 4
	// tailWithin is how long nothing may arrive of a live stream once the record
	// says that the task has finished, or runs again; then it is read again from
	// where it is kept.
	tailWithin = 2 * time.Second
	// A reading that broke is repeated after firstPause, then after twice as
	// long each time, up to maxPause.
	firstPause = 50 * time.Millisecond
	maxPause   = 2 * time.Second
)

// run returns nil when everything kept has been sent. A *task.Error with
// CodeOutputLost says that some of it is gone.
func (f *follower) run(ctx context.Context) error {
	f.passed = -1
	err := f.follow(ctx)
	if err == nil && f.cut > 0 {
		err = &task.Error{Code: task.CodeOutputLost, Message: fmt.Sprintf("not all %s of attempt %d could be had when the task ran again", f.stream, f.cut)}
	}
	return err
}

func (f *follower) follow(ctx context.Context) error {
	for {
		t, changed := f.h.cfg.Reader.Snapshot().WatchTask(f.id)
		if t == nil {
			return errNotFound()
		}
		if err := f.leftovers(ctx, t); err != nil {
			return err
		}
		n := attemptOf(t)
		if n != 0 && n != f.at.attempt {
			f.at, f.ended, f.retries = position{attempt: n}, false, 0
		}
		finished := t.State == task.Finished
		if finished && (n == 0 || f.complete(t)) {
			return nil
		}
		var pause *time.Timer
		if n != 0 && (finished || !f.ended) {
			err := f.read(ctx, t)
			switch {
			case f.failed != nil:
				return f.failed
			case ctx.Err() != nil:
				return ctx.Err()
			case finished && f.complete(t):
				return nil
			case finished && f.retries > giveUpAfter:
				return fmt.Errorf("follow %s of task %s: %w", f.stream, f.id, err)
			case f.ended && !finished:
				continue // look at the record again: it may have moved on
			}
			pause = time.NewTimer(min(firstPause<<f.retries, maxPause))
			f.retries = min(f.retries+1, giveUpAfter+1)
		}
		if err := pauseOrChange(ctx, pause, changed); err != nil {
			return err
		}
	}
}

// pauseOrChange waits for the record to change and, when pause is not nil, no
// longer than that.
func pauseOrChange(ctx context.Context, pause *time.Timer, changed <-chan struct{}) error {
	var over <-chan time.Time
	if pause != nil {
		defer pause.Stop()
		over = pause.C
	}
	select {
	case <-changed:
		return nil
	case <-over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// complete reports whether everything that a finished task's record says is
// kept has been sent.
func (f *follower) complete(t *task.Task) bool {
	return f.at.offset >= streamOf(t.Result, f.stream).Kept
}

// read takes the attempt's output from where it was left. It returns when the
// stream ends, breaks, or another attempt has taken its place.
func (f *follower) read(ctx context.Context, t *task.Task) error {
	ctx, cancel := context.WithCancel(ctx)
	f.quiet = &quiet{end: cancel}
	defer f.quiet.stop()
	var watching sync.WaitGroup
	if t.State != task.Finished {
		watching.Go(func() {
			defer cancel()
			f.whileCurrent(ctx)
		})
	}
	defer watching.Wait()
	defer cancel()
	return f.h.cfg.Outputs.Output(ctx, t, f.stream, f.at.offset, 0, t.State != task.Finished, f.take)
}

// take sends on what is new of a piece.
func (f *follower) take(c OutputChunk) error {
	skip := f.at.offset - c.Offset
	if skip < 0 {
		return fmt.Errorf("a piece at %d does not follow %d", c.Offset, f.at.offset)
	}
	f.quiet.begin()
	defer f.quiet.done()
	if skip < int64(len(c.Data)) {
		data := c.Data[skip:]
		f.failed = f.send(f.at, data)
		if f.failed != nil {
			return f.failed
		}
		f.at.offset += int64(len(data))
		f.retries = 0
	}
	f.ended = f.ended || c.End
	return nil
}

// leftovers reads, once each and for as long as something comes, what has not been sent of attempts that were over
// before they could be read, and after which the task runs again. Attempts from
// before the following are none of its business.
func (f *follower) leftovers(ctx context.Context, t *task.Task) error {
	over := len(t.Attempts)
	if t.State != task.Pending {
		over = attemptOf(t) - 1
	}
	if f.passed < 0 {
		f.passed = over
		if f.at.attempt > 0 {
			f.passed = min(over, f.at.attempt-1)
		}
	}
	for f.passed < over {
		f.passed++
		if f.passed < f.at.attempt || f.passed == f.at.attempt && f.ended || t.Attempts[f.passed-1].Outcome == task.NodeLost {
			continue
		}
		if f.passed > f.at.attempt {
			f.at, f.ended, f.retries = position{attempt: f.passed}, false, 0
		}
		within, cancel := context.WithCancel(ctx)
		f.quiet = &quiet{end: cancel}
		f.quiet.arm()
		// What can't be had now is not to hold up the attempt that runs.
		_ = f.h.cfg.Outputs.Output(within, whileLive(t, f.passed), f.stream, f.at.offset, 0, false, f.take)
		f.quiet.stop()
		cancel()
		if began := !t.Attempts[f.passed-1].StartedAt.IsZero(); began && !f.ended {
			f.cut = f.passed
		}
		f.ended = true
		if f.failed != nil {
			return f.failed
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// whileLive is the task as it was while one of its attempts ran.
func whileLive(t *task.Task, attempt int) *task.Task {
	past := *t
	past.State, past.Result, past.Attempts = task.Running, nil, t.Attempts[:attempt:attempt]
	return &past
}

// whileCurrent returns when the attempt that is read is over for good: an agent
// that vanished would keep its reader waiting. One that has ended, of a task that
// has finished or runs again, has as long as something is still on its way.
func (f *follower) whileCurrent(ctx context.Context) {
	attempt := f.at.attempt
	for {
		t, changed := f.h.cfg.Reader.Snapshot().WatchTask(f.id)
		if t == nil || len(t.Attempts) < attempt || t.Attempts[attempt-1].Outcome == task.NodeLost {
			return
		}
		if t.State == task.Finished || attemptOf(t) != attempt {
			f.quiet.arm()
			changed = nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// quiet ends a reading, once it is armed, when nothing has come for tailWithin. The
// time that a slow reader takes for a piece does not count.
type quiet struct {
	end func()

	mu    sync.Mutex
	armed bool
	busy  bool
	timer *time.Timer
}

func (q *quiet) arm() { q.set(func() { q.armed = true }) }

// begin says that a piece is here, done that it has been passed on.
func (q *quiet) begin() { q.set(func() { q.busy = true }) }
func (q *quiet) done()  { q.set(func() { q.busy = false }) }

// stop disarms it.
func (q *quiet) stop() { q.set(func() { q.armed = false }) }

func (q *quiet) set(change func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	change()
	if q.timer != nil {
		q.timer.Stop()
	}
	if q.armed && !q.busy {
		q.timer = time.AfterFunc(tailWithin, q.end)
	}
}

// attemptOf is the number of the attempt that runs or whose result stands, 0
// when there is none.
func attemptOf(t *task.Task) int {
	switch t.State {
	case task.Pending:
		return 0
	case task.Finished:
		return t.Result.Attempt
	}
	return t.Live().Number
}

// isLost reports whether following ended because output is gone, and not
// because its reader is.
func isLost(err error) bool {
	return errors.Is(err, &task.Error{Code: task.CodeOutputLost})
}
