package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"ecs/proto/api"
	"ecs/proto/api/attach"
)

// session stays with one task until it has finished: its output comes out as it
// appears, signals cancel it.
type session struct {
	*app
	client   *api.Client
	leave    context.CancelFunc
	accepted chan string // the task's id, once it is known
	asked    atomic.Bool // to cancel
	left     atomic.Bool // by a second signal
	// passOn: the first Ctrl-C is for the program, whose terminal is not ours.
	passOn bool
	typing atomic.Pointer[attach.Session]

	shown  map[string]int64 // bytes per stream of the present attempt
	number int              // of the present attempt
	stderr tail             // of what the program wrote, for hints
	state  atomic.Value     // string; the last one heard of
	waits  string           // why the task waits, as it was last said
}

// refused is the error of a task that was not accepted.
func (s *session) refused(err error) error {
	if s.left.Load() {
		return &exitError{exitCancelled, errors.New("left before it was known whether the task was accepted")}
	}
	return &exitError{exitService, err}
}

// obey turns signals into a cancelled task: the first asks for it, the second
// does not wait for it.
func (s *session) obey(ctx context.Context) {
	for asked := false; !asked; {
		select {
		case signal := <-s.signals:
			asked = !s.pass(signal)
		case <-ctx.Done():
			return
		}
	}
	s.asked.Store(true)
	s.say("cancelling; once more leaves without waiting")
	var asking sync.WaitGroup
	defer asking.Wait()
	asking.Go(func() {
		select {
		case id := <-s.accepted:
			s.cancel(ctx, id)
		case <-ctx.Done():
		}
	})
	for first := time.Now(); ; {
		select {
		case <-s.signals:
			if time.Since(first) > sameSignal {
				s.left.Store(true)
				s.leave()
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (s *session) cancel(ctx context.Context, id string) {
	if _, err := s.client.Cancel(ctx, id); err != nil && ctx.Err() == nil {
		s.say("the task could not be cancelled: %s", printable(err.Error()))
	}
}

// pass gives the program a Ctrl-C that is its own, the first time.
func (s *session) pass(signal os.Signal) bool {
	typing := s.typing.Load()
	if !s.passOn || signal != os.Interrupt || typing == nil {
		return false
	}
	s.passOn = false
	typing.Signal("INT")
	s.say("passed on to the program; once more cancels the task")
	return true
}

// sameSignal is how soon a second signal is the same as the first: timeout(1)
// and the like send theirs to the process and to its group.
const sameSignal = 250 * time.Millisecond

// follow shows what happens to the task until it has finished.
func (s *session) follow(ctx context.Context, id string) error {
	watch, stop := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	waiting.Go(func() { s.explain(watch, id) })
	defer waiting.Wait()
	defer stop()
	for e, err := range s.client.Events(ctx, id, "") {
		if err != nil {
			return s.lostSight(id, err)
		}
		if e.Type == api.EventOutput {
			if err := s.show(e.Output); err != nil {
				return &exitError{exitService, err}
			}
			continue
		}
		s.state.Store(e.Task.State)
		if e.Task.Finished() {
			stop()
			waiting.Wait() // so that nothing is said after the end
			return s.finish(ctx, id)
		}
	}
	return s.lostSight(id, errors.New("its events ended before it did"))
}

func (s *session) lostSight(id string, err error) error {
	if s.left.Load() {
		return &exitError{exitCancelled, fmt.Errorf("left; task %s is being cancelled", id)}
	}
	return &exitError{exitService, fmt.Errorf("lost sight of task %s, which goes on (see: ecsctl tasks show %s): %w", id, id, err)}
}

// show passes a piece of output on. What was shown already, of a connection
// that broke and was taken up again, is left out.
func (s *session) show(o *api.OutputEvent) error {
	data, err := o.Content()
	if err != nil {
		return err
	}
	if o.Attempt < s.number {
		return nil
	}
	s.begin(o.Attempt)
	if skip := s.shown[o.Stream] - o.Offset; skip > 0 {
		data = data[min(skip, int64(len(data))):]
	}
	s.shown[o.Stream] = max(s.shown[o.Stream], o.Offset) + int64(len(data))
	return s.write(o.Stream, data)
}

// begin says when another attempt's output follows.
func (s *session) begin(attempt int) {
	if attempt <= s.number {
		return
	}
	if s.number > 0 && len(s.shown) > 0 {
		s.say("attempt %d is over; what follows is attempt %d, from the beginning", s.number, attempt)
	}
	s.number = attempt
	clear(s.shown)
}

func (s *session) write(stream string, data []byte) error {
	to := s.stdout
	if stream == api.Stderr {
		to = s.app.stderr
		s.stderr.add(data)
	}
	_, err := to.Write(data)
	return err
}

// explain says, now and then, why a task that waits does so.
func (s *session) explain(ctx context.Context, id string) {
	said := ""
	for pause := time.NewTimer(explainAfter); ; pause.Reset(explainEvery) {
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
		if state, _ := s.state.Load().(string); state != api.StatePending {
			continue
		}
		task, err := s.client.Get(ctx, id)
		if err == nil && task.WaitingBecause != "" && task.WaitingBecause != said {
			said = task.WaitingBecause
			s.say("task %s waits: %s", id, printable(said))
		}
	}
}

const (
	explainAfter = 2 * time.Second
	explainEvery = 10 * time.Second
)

// finish shows what is still missing of the output and turns the task's end
// into an exit status.
func (s *session) finish(ctx context.Context, id string) error {
	task, err := s.client.Get(ctx, id)
	if err != nil {
		return s.lostSight(id, err)
	}
	for stream, kept := range map[string]*api.Stream{api.Stdout: task.Stdout, api.Stderr: task.Stderr} {
		if kept == nil {
			continue
		}
		if err := s.rest(ctx, id, stream, kept.Kept); err != nil {
			s.say("%s is incomplete: %s", stream, printable(err.Error()))
		}
		if kept.Truncated {
			s.say("%s was cut: %s of %s are kept; --max-output keeps more, at most 64MiB", stream, bytesText(kept.Kept), bytesText(kept.Bytes))
		}
	}
	for _, line := range verdict(task, s.stderr.String()) {
		s.say("%s", printable(line))
	}
	if status := exitStatus(task); status != exitOK {
		return &exitError{status: status}
	}
	return nil
}

// rest fetches what the events did not bring of a stream.
func (s *session) rest(ctx context.Context, id, stream string, kept int64) error {
	if s.shown[stream] >= kept {
		return nil
	}
	r, err := s.client.Output(ctx, id, stream, api.OutputOptions{Offset: s.shown[stream]})
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(streamWriter{s, stream}, r)
	return err
}

type streamWriter struct {
	*session
	stream string
}

func (w streamWriter) Write(p []byte) (int, error) { return len(p), w.write(w.stream, p) }

// tail keeps the end of what is added.
type tail struct{ kept []byte }

const tailBytes = 4 << 10

func (t *tail) add(p []byte) {
	t.kept = append(t.kept, p[max(0, len(p)-tailBytes):]...)
	t.kept = t.kept[max(0, len(t.kept)-tailBytes):]
}

func (t *tail) String() string { return string(t.kept) }

// bytesText gives a number of bytes as people read it.
func bytesText(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	f, unit := float64(n), 0
	for f >= 1024 && unit < len(units)-1 {
		f, unit = f/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[unit])
}
