package api

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"sync"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
	"ecs/proto/api"
)

// buffer is one stream's bytes as its agent keeps them.
type buffer struct {
	data    []byte
	ended   bool
	err     error // of reading it
	breaks  int   // readings that break off in the middle
	changed chan struct{}
	reads   int
}

// stream is the agent's buffer of one stream of the present attempt.
func (w *world) stream(id task.ID, name string) *buffer {
	return w.streamOf(w.Snapshot().Task(id), name)
}

func (w *world) streamOf(t *task.Task, name string) *buffer {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := fmt.Sprintf("%s/%d/%s", t.ID, attemptOf(t), name)
	if w.output[key] == nil {
		w.output[key] = &buffer{changed: make(chan struct{})}
	}
	return w.output[key]
}

// print adds output of a live program; end ends the stream.
func (w *world) print(id task.ID, name, text string, end bool) {
	b := w.stream(id, name)
	w.mu.Lock()
	defer w.mu.Unlock()
	b.data, b.ended = append(b.data, text...), end
	close(b.changed)
	b.changed = make(chan struct{})
}

// Output is the agent's, whose chunks are small so that there are many.
func (w *world) Output(ctx context.Context, t *task.Task, name string, offset, limit int64, follow bool, send func(OutputChunk) error) error {
	const chunk = 10_000
	b := w.streamOf(t, name)
	w.mu.Lock()
	b.reads++
	breaks := b.breaks > 0
	if breaks {
		b.breaks--
	}
	w.mu.Unlock()
	end := int64(1) << 60
	if limit > 0 {
		end = offset + limit
	}
	for {
		w.mu.Lock()
		data, ended, err, changed := b.data, b.ended, b.err, b.changed
		w.mu.Unlock()
		if err != nil {
			return err
		}
		n := min(int64(len(data)), end)
		for offset < n {
			piece := data[offset:min(offset+chunk, n)]
			if err := send(OutputChunk{Offset: offset, Data: piece}); err != nil {
				return err
			}
			offset += int64(len(piece))
			if breaks {
				return fmt.Errorf("connection reset")
			}
		}
		if ended || !follow || offset >= end {
			return send(OutputChunk{Offset: offset, End: ended, Bytes: int64(len(data))})
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// start places a pending task and lets its program run.
func (w *world) start(id task.ID) task.Token {
	w.t.Helper()
	t := w.Snapshot().Task(id)
	node := w.Snapshot().Node("a1")
	out := w.apply(state.Place{Decisions: []state.Decision{{Task: id, Attempt: len(t.Attempts) + 1, Node: "a1", Epoch: node.Epoch, Queued: 5 * time.Millisecond}}})
	if len(out.Placed) != 1 {
		w.t.Fatalf("task %s was not placed", id)
	}
	tok := w.Snapshot().Task(id).Live().Token(id)
	if out := w.apply(state.Progress{Token: tok, StartedAt: time.Now()}); out.Err != nil {
		w.t.Fatal(out.Err)
	}
	return tok
}

// finish ends a running task with a result whose streams are what was printed,
// cut at max_output.
func (w *world) finish(tok task.Token, r task.Result) {
	w.t.Helper()
	t := w.Snapshot().Task(tok.Task)
	r.Attempt, r.Node, r.OutputAddr = tok.Attempt, "a1", "a1:1"
	r.Stdout, r.Stderr = w.kept(tok.Task, api.Stdout, t.Spec.MaxOutput), w.kept(tok.Task, api.Stderr, t.Spec.MaxOutput)
	out := w.apply(state.Finish{Token: tok, Result: r, Bill: task.Bill{Run: 30 * time.Millisecond, Start: time.Millisecond}})
	if out.Err != nil {
		w.t.Fatal(out.Err)
	}
	if out.Task.BackingOff && r.Outcome.Infrastructure() {
		w.resume(tok.Task) // no leader is here to wait for it
	}
}

func (w *world) kept(id task.ID, name string, most int64) task.Stream {
	b := w.stream(id, name)
	w.print(id, name, "", true)
	w.mu.Lock()
	defer w.mu.Unlock()
	st := task.Stream{Bytes: int64(len(b.data))}
	b.data = b.data[:min(int64(len(b.data)), most)]
	st.Kept, st.Truncated = int64(len(b.data)), st.Bytes > int64(len(b.data))
	st.Head, st.SHA256 = b.data[:min(len(b.data), task.HeadBytes)], sha256.Sum256(b.data)
	return st
}

// exited is the result of a program that ended by itself.
func exited(code int) task.Result {
	return task.Result{Outcome: task.Exited, HasExit: true, ExitCode: code}
}

// runs plays the agent for every task that comes, until the test ends.
func (w *world) runs(play func(id task.ID) task.Result) {
	stop := make(chan struct{})
	var playing sync.WaitGroup
	playing.Go(func() {
		for {
			changed := w.Snapshot().WatchPending()
			for t := range w.Snapshot().Pending() {
				tok := w.start(t.ID)
				w.finish(tok, play(t.ID))
			}
			select {
			case <-changed:
			case <-stop:
				return
			}
		}
	})
	w.t.Cleanup(func() { close(stop); playing.Wait() })
}

// answerV1 is the answer to a v1 caller whose task ended with the result.
func (w *world) answerV1(r task.Result, creds bool) answer {
	w.t.Helper()
	body := v1("")
	if creds {
		body = v1(`,"creds":{"username":"u","password":"p"}`)
	}
	const key = "once"
	done := make(chan answer, 1)
	go func() {
		a, err := w.try(http.MethodPost, "/v1.1/tasks", body, api.HeaderIdempotencyKey, key)
		if err != nil {
			w.t.Error(err)
		}
		done <- a
	}()
	eventually(w.t, "the task is there", func() bool { return w.Snapshot().ByKey(alice, key) != nil })
	id := w.Snapshot().ByKey(alice, key).ID
	switch {
	case r.Outcome == task.QueueExpired:
		w.apply(state.Expire{Tasks: []task.ID{id}})
	case r.Outcome == task.Cancelled:
		w.apply(state.Stop{Task: id, Outcome: task.Cancelled})
	case r.Outcome.Infrastructure():
		for w.Snapshot().Task(id).State != task.Finished {
			w.finish(w.start(id), r)
		}
	default:
		w.finish(w.start(id), r)
	}
	return <-done
}
