package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
	"ecs/proto/api"
)

const retried = `{"image":"busybox:1","command":["false"],"retry":{"program":2,"backoff":"1ms"}}`

// following is a follower's reader.
type following struct {
	*world
	mu   sync.Mutex
	got  []string // what was sent of each attempt
	done chan error
}

func (w *world) following(id task.ID) *following {
	r := &following{world: w, got: make([]string, 4), done: make(chan error, 1)}
	f := &follower{h: w.handler, id: id, stream: api.Stdout, send: func(at position, data []byte) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got[at.attempt] += string(data)
		return nil
	}}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.done <- f.run(ctx) })
	w.t.Cleanup(func() { cancel(); running.Wait() })
	return r
}

func (r *following) has(attempt int, want string) {
	eventually(r.t, fmt.Sprintf("attempt %d sent %q", attempt, want), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.got[attempt] == want
	})
}

// fail ends a running attempt, which the task's retries let run again.
func (w *world) fail(tok task.Token) {
	w.t.Helper()
	if out := w.apply(state.Finish{Token: tok, Result: exited(1)}); out.Err != nil || !out.Task.BackingOff {
		w.t.Fatalf("got %+v, want it to back off", out)
	}
}

func (w *world) resume(id task.ID) {
	w.t.Helper()
	n := len(w.Snapshot().Task(id).Attempts)
	if out := w.apply(state.Resume{Waited: []state.Waited{{Task: id, Attempt: n}}}); len(out.Ended) != 1 {
		w.t.Fatalf("got %+v, want it back in the queue", out)
	}
}

// add adds output to a buffer that need not be the present attempt's.
func (w *world) add(b *buffer, text string, end bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b.data, b.ended = append(b.data, text...), end
	close(b.changed)
	b.changed = make(chan struct{})
}

// The record may say that an attempt has failed before its last output is here.
func TestTheTailOfAFailedAttemptIsFollowed(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(retried)
	tok := w.start(id)
	first := w.stream(id, api.Stdout)
	r := w.following(id)
	w.add(first, "begin", false)
	r.has(1, "begin")
	w.fail(tok)
	w.add(first, " and end", true)
	r.has(1, "begin and end")
	w.resume(id)
	tok = w.start(id)
	w.print(id, api.Stdout, "again", true)
	w.finish(tok, exited(0))
	r.has(2, "again")
	if err := <-r.done; err != nil {
		t.Errorf("got %v, want a good end", err)
	}
}

// An attempt may be over before its follower has seen that it ran.
func TestAFailedAttemptThatNobodySawIsReadByItsToken(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(retried)
	tok := w.start(id)
	w.print(id, api.Stdout, "of the first", true)
	w.fail(tok)
	w.resume(id)
	early := w.following(id) // the first was over before: it is not followed
	tok = w.start(id)
	late := &follower{h: w.handler, id: id, stream: api.Stdout, passed: 0, send: func(position, []byte) error { return nil }}
	w.print(id, api.Stdout, "of the second", true)
	early.has(2, "of the second")
	w.fail(tok)
	w.resume(id)
	tok = w.start(id)
	var sent []string
	late.send = func(at position, data []byte) error {
		sent = append(sent, fmt.Sprint(at.attempt, " ", string(data)))
		return nil
	}
	if err := late.leftovers(t.Context(), w.Snapshot().Task(id)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"1 of the first", "2 of the second"}; !slices.Equal(sent, want) {
		t.Errorf("got %q, want %q", sent, want)
	}
	if err := late.leftovers(t.Context(), w.Snapshot().Task(id)); err != nil || len(sent) != 2 {
		t.Errorf("got %q, %v a second time, want nothing more", sent, err)
	}
	w.print(id, api.Stdout, "of the third", true)
	w.finish(tok, exited(0))
	early.has(3, "of the third")
	early.has(1, "")
	if err := <-early.done; err != nil {
		t.Errorf("got %v, want a good end", err)
	}
	if a := w.do(http.MethodGet, "/v2/tasks/"+string(id)+"/output", ""); string(a.body) != "of the third" {
		t.Errorf("got %q, want the last attempt's output", a.body)
	}
}

// trickle gives pieces of an attempt's output a second apart, then nothing more, and
// ends only if it is to.
type trickle struct {
	Outputs
	pieces int
	ends   bool
}

func (o trickle) Output(ctx context.Context, _ *task.Task, _ string, from, _ int64, _ bool, send func(OutputChunk) error) error {
	for i := from; i < int64(o.pieces); i++ {
		time.Sleep(time.Second)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := send(OutputChunk{Offset: i, Data: []byte("x"), End: o.ends && i == int64(o.pieces)-1}); err != nil {
			return err
		}
	}
	if !o.ends {
		<-ctx.Done()
	}
	return ctx.Err()
}

// Of an attempt that failed all is told, however slow its reader; where that can't be,
// the reader is told so.
func TestOutputOfASupersededAttemptIsWholeOrSaidNotToBe(t *testing.T) {
	for _, ends := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			const pieces = 10
			failed := task.Attempt{Number: 1, Outcome: task.Exited, StartedAt: time.Now()}
			over := &task.Task{ID: "t1", State: task.Pending, Attempts: []task.Attempt{failed}}
			sent := 0
			f := &follower{h: &Handler{cfg: Config{Outputs: trickle{pieces: pieces, ends: ends}}}, id: "t1", stream: api.Stdout,
				send: func(position, []byte) error { sent++; time.Sleep(3 * tailWithin); return nil }}
			if err := f.leftovers(t.Context(), over); err != nil {
				t.Fatal(err)
			}
			if sent != pieces {
				t.Errorf("got %d pieces, want %d: the reader is slow, not the output", sent, pieces)
			}
			if (f.cut == 1) == ends {
				t.Errorf("got attempt %d said to be cut when the output ends: %v", f.cut, ends)
			}
		})
	}
}
