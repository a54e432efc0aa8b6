package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

// leaderCalls stands for the leader: it notes what each call carries and
// answers once it is told to.
type leaderCalls struct {
	mu    sync.Mutex
	sizes []int
	free  chan struct{}
}

func (l *leaderCalls) call(ctx context.Context, commands []*ecsv1.Command) ([]*ecsv1.Forwarded, error) {
	l.mu.Lock()
	l.sizes = append(l.sizes, len(commands))
	l.mu.Unlock()
	select {
	case <-l.free:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	fates := make([]*ecsv1.Forwarded, len(commands))
	for i, c := range commands {
		fates[i] = &ecsv1.Forwarded{Index: 7, Made: &ecsv1.Task{Id: c.GetSubmit().GetTask().GetId(), Seq: 7 << 12}}
	}
	return fates, nil
}

func startForwarder(ctx context.Context, l *leaderCalls) (f *forwarder, ended <-chan error) {
	f = newForwarder(l.call)
	done := make(chan error, 1)
	go func() { done <- f.run(ctx) }()
	return f, done
}

func submission(i int) state.Submit {
	return state.Submit{Task: &task.Task{ID: task.ID(fmt.Sprint("t", i)), Spec: task.Spec{Image: fmt.Sprint("image:", i)}}}
}

func TestWhatComesDuringACallSharesTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := &leaderCalls{free: make(chan struct{})}
		f, ended := startForwarder(ctx, l)
		var callers sync.WaitGroup
		const commands = 200
		for i := range commands {
			callers.Go(func() {
				d, err := f.forward(ctx, submission(i))
				if err != nil || d.Task == nil || d.Task.ID != submission(i).Task.ID || d.Task.Spec.Image != submission(i).Task.Spec.Image {
					t.Errorf("command %d: got %+v, %v", i, d.Task, err)
				}
			})
			synctest.Wait() // one by one, so that the first calls carry one each
		}
		close(l.free)
		callers.Wait()
		total := 0
		for _, n := range l.sizes {
			total += n
		}
		if total != commands || len(l.sizes) != forwardsAtOnce+1 {
			t.Errorf("%d commands went in calls of %v, want %d in %d calls", total, l.sizes, commands, forwardsAtOnce+1)
		}
		cancel()
		<-ended
	})
}

func TestNobodyWaitsForAForwarderThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := &leaderCalls{free: make(chan struct{})}
		f, ended := startForwarder(ctx, l)
		var callers sync.WaitGroup
		for i := range 10 {
			callers.Go(func() {
				if _, err := f.forward(t.Context(), submission(i)); err == nil {
					t.Errorf("command %d was answered without a leader", i)
				}
			})
			synctest.Wait()
		}
		start := time.Now()
		cancel()
		<-ended
		callers.Wait()
		if _, err := f.forward(t.Context(), submission(0)); !errors.Is(err, errNoLeader) {
			t.Errorf("after the end: got %v, want %v", err, errNoLeader)
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("they waited for %v", took)
		}
	})
}

func TestALeaderThatHangsIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f, ended := startForwarder(ctx, &leaderCalls{free: make(chan struct{})})
		start := time.Now()
		if _, err := f.forward(ctx, submission(0)); err == nil || errors.Is(err, errNoLeader) {
			t.Errorf("got %v: whether it was written is not known", err)
		}
		if took := time.Since(start); took != forwardWithin {
			t.Errorf("left after %v, want %v", took, forwardWithin)
		}
		cancel()
		<-ended
	})
}

func TestWhatNobodyWaitsForIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := &leaderCalls{free: make(chan struct{})}
		f, ended := startForwarder(ctx, l)
		var callers sync.WaitGroup
		forward := func(ctx context.Context, i int) {
			callers.Go(func() { _, _ = f.forward(ctx, submission(i)) }) // only what is sent matters here
			synctest.Wait()
		}
		for i := range forwardsAtOnce + 1 { // the last one is taken and waits for a call to end
			forward(ctx, i)
		}
		gone, leave := context.WithCancel(ctx)
		forward(gone, 8)
		forward(ctx, 9)
		leave()
		synctest.Wait()
		close(l.free)
		callers.Wait()
		total := 0
		for _, n := range l.sizes {
			total += n
		}
		if want := forwardsAtOnce + 2; total != want {
			t.Errorf("%d commands were sent in calls of %v, want %d", total, l.sizes, want)
		}
		cancel()
		<-ended
	})
}

func TestACallEndsWhenAnotherLeads(t *testing.T) {
	leaderAlone(t, func(t *testing.T, s *Server) {
		held, stop := s.underLeader(t.Context(), "c1")
		synctest.Wait()
		if held.Err() != nil {
			t.Error("a call to the node that leads was ended")
		}
		stop()
		other, stop := s.underLeader(t.Context(), "c2")
		synctest.Wait()
		if other.Err() == nil {
			t.Error("a call to a node that does not lead goes on")
		}
		stop()
	})
}

// A decision stands: nothing that follows may lead to another submission.
func TestATaskThatWasForgottenIsNotAskedForAgain(t *testing.T) {
	leaderAlone(t, func(t *testing.T, s *Server) {
		d, err := s.recorded(t.Context(), decision{elsewhere: "gone"})
		var refusal *task.Error
		if err != nil || !errors.As(d.Err, &refusal) || refusal.Code != task.CodeNotFound {
			t.Errorf("got %v and %v, want a refusal %q as the decision", d.Err, err, task.CodeNotFound)
		}
	})
}
