package runtimetest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

// park makes a container that waits for an attempt at s, under a lease that ends
// so much from now.
func park(t *testing.T, h Harness, s task.Spec, lease time.Duration) runtime.Parked {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	shape := s.Shape()
	shape.Image = h.Image.ID
	p, err := h.Runtime.Park(ctx, runtime.Parking{Shape: shape, Deadline: func() time.Duration { return h.Now() + lease }})
	if err != nil {
		t.Fatalf("park: %v", err)
	}
	return p
}

// bind makes an attempt at s of what is parked. The test removes it.
func bind(t *testing.T, h Harness, p runtime.Parked, s task.Spec) *attempt {
	t.Helper()
	a := prepare(t, h)
	if err := a.bind(p, s); err != nil {
		t.Fatalf("bind: %v", err)
	}
	return a
}

func (a *attempt) bind(p runtime.Parked, s task.Spec) error {
	ctx, cancel := context.WithTimeout(a.ctx, patience)
	defer cancel()
	c, err := p.Bind(ctx, runtime.Order{Token: a.tok, CID: "conformance", Spec: s, Image: a.h.Image,
		Output: runtime.Sink{Stdout: a.stdout, Stderr: a.stderr}, Deadline: a.deadline, May: a.may})
	a.spec = s
	if err == nil {
		a.c = c
	}
	return err
}

func gone(t *testing.T, p runtime.Parked) {
	t.Helper()
	select {
	case <-p.Gone():
	case <-time.After(patience):
		t.Fatal("it is not gone")
	}
}

// parkedRunsOne runs what takes longer than the container had been parked for,
// and ends in ways of its own.
func parkedRunsOne(t *testing.T, h Harness) {
	s := spec(h, "print", "out", ";", "eprint", "err", ";", "sleep", "300ms", ";", "exit", "3")
	s.Timeouts.Run = time.Second // it counts from the order
	p := park(t, h, s, time.Hour)
	time.Sleep(time.Second)
	a := bind(t, h, p, s).start()
	exit := a.exit()
	if exit.Code != 3 || exit.RunLimit || exit.Interrupted != "" || exit.Run < 300*time.Millisecond || exit.Run > 900*time.Millisecond {
		t.Errorf("got %+v, want code 3 after 300ms", exit)
	}
	if out, errs := a.stdout.kept.String(), a.stderr.kept.String(); out != "out" || errs != "err" {
		t.Errorf("got %q and %q", out, errs)
	}
	if n := h.Count(t); n != 1 {
		t.Errorf("containers: got %d, want one", n)
	}
	a.remove()

	a = bind(t, h, park(t, h, s, time.Hour), spec(h, "oom"))
	if exit := a.start().exit(); !exit.OOMKilled {
		t.Errorf("got %+v, want it killed for want of memory", exit)
	}
	a.remove()

	a = bind(t, h, park(t, h, s, time.Hour), task.Spec{Command: h.Missing, Resources: s.Resources}.WithDefaults(task.V2, true))
	err := a.c.Start(a.ctx)
	if err == nil {
		_, err = a.wait()
	}
	var failure *runtime.Failure
	if !errors.As(err, &failure) || failure.Outcome != task.StartFailed {
		t.Errorf("no such command: got %v, want start_failed", err)
	}
	a.kill()
	a.remove()
}

// parkedOutlivesABadOrder: what is wrong with an order uses up no container.
func parkedOutlivesABadOrder(t *testing.T, h Harness) {
	s := spec(h, "print", "x")
	p := park(t, h, s, time.Hour)
	bad := s
	bad.Command, bad.Entrypoint = nil, nil
	err := prepare(t, h).bind(p, bad)
	if f, ok := err.(*runtime.Failure); !ok || f.Outcome != task.StartFailed {
		t.Errorf("no command: got %v, want start_failed as it is", err)
	}
	select {
	case <-p.Gone():
		t.Error("it is gone")
	default:
	}
	a := bind(t, h, p, s).start()
	if exit := a.exit(); exit.Code != 0 || a.stdout.kept.String() != "x" {
		t.Errorf("got %+v and %q, want what was asked for", exit, a.stdout.kept.String())
	}
	a.remove()
}

func parkedIsBoundOnce(t *testing.T, h Harness) {
	s := spec(h, "exit", "0")
	p := park(t, h, s, time.Hour)
	var all sync.WaitGroup
	var won atomic.Int64
	tries := make([]*attempt, 8)
	for i := range tries {
		tries[i] = prepare(t, h)
		all.Go(func() {
			switch err := tries[i].bind(p, s); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, runtime.ErrSpent):
				t.Errorf("bind: got %v, want ErrSpent", err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("bound %d times, want once", won.Load())
	}
	gone(t, p)
	if err := p.Remove(t.Context()); err != nil { // it is the attempt's
		t.Error(err)
	}
	for _, a := range tries {
		if a.c != nil {
			a.start().exit()
			a.remove()
		}
	}
	if err := prepare(t, h).bind(p, s); !errors.Is(err, runtime.ErrSpent) {
		t.Errorf("bind what was used: got %v, want ErrSpent", err)
	}
}

// parkedThatEnded is killed while it waits for an attempt, and for its start.
func parkedThatEnded(t *testing.T, h Harness) {
	s := spec(h, "print", "x")
	p := park(t, h, s, time.Hour)
	h.StrikeParked(t)
	gone(t, p)
	if err := prepare(t, h).bind(p, s); !errors.Is(err, runtime.ErrSpent) {
		t.Errorf("bind: got %v, want ErrSpent", err)
	}
	if err := p.Remove(t.Context()); err != nil {
		t.Error(err)
	}

	a := bind(t, h, park(t, h, s, time.Hour), s)
	h.StrikeParked(t)
	if err := a.c.Start(t.Context()); !errors.Is(err, runtime.ErrSpent) {
		t.Errorf("start: got %v, want ErrSpent", err)
	}
	a.remove()
	if a.stdout.bytes != 0 {
		t.Error("it ran")
	}

	// Between the last question and the order.
	a = prepare(t, h)
	a.may = func() error { h.StrikeParked(t); return nil }
	if err := a.bind(park(t, h, s, time.Hour), s); err != nil {
		t.Fatal(err)
	}
	if err := a.c.Start(t.Context()); !errors.Is(err, runtime.ErrSpent) {
		t.Errorf("start: got %v, want ErrSpent", err)
	}
	a.remove()
}

func parkedEndsWithItsLease(t *testing.T, h Harness) {
	s := spec(h, "print", "x")
	short := park(t, h, s, task.FenceAhead+2*time.Second)
	renewed := park(t, h, s, task.FenceAhead+2*time.Second)
	renewed.Renew(h.Now() + time.Hour)
	began := time.Now()
	gone(t, short)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it ended after %s, want 2s", took)
	}
	select {
	case <-renewed.Gone():
		t.Error("the renewed one is gone, too")
	default:
	}
	a := bind(t, h, renewed, s).start()
	a.exit()
	a.remove()
	if err := prepare(t, h).bind(short, s); !errors.Is(err, runtime.ErrSpent) {
		t.Errorf("bind: got %v, want ErrSpent", err)
	}
	if err := short.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func nobodys(task.Token) bool { return false }

func parkedAfterRestart(t *testing.T, h Harness) {
	p := park(t, h, spec(h, "exit", "0"), time.Hour)
	if gone, err := h.Runtime.Reap(t.Context(), nobodys); err != nil || gone != 0 {
		t.Errorf("while it is parked: got %d, %v; want none removed", gone, err)
	}
	if gone, err := h.Other.Reap(t.Context(), nobodys); err != nil || gone != 0 {
		t.Errorf("by another agent: got %d, %v; want none removed", gone, err)
	}
	select {
	case <-p.Gone():
		t.Error("it is gone")
	default:
	}
	next := h.Restart(t)
	if gone, err := next.Reap(t.Context(), nobodys); err != nil || gone != 1 {
		t.Errorf("by the next process: got %d, %v; want 1", gone, err)
	}
}

// boundIsItsAttempts reaps around, restarts and adopts what was parked.
func boundIsItsAttempts(t *testing.T, h Harness) {
	s := spec(h, "print", "a", ";", "sleep", "2s", ";", "print", "b")
	a := bind(t, h, park(t, h, s, time.Hour), s).start()
	a.until("a")
	keep := func(tok task.Token) bool { return tok == a.tok }
	next := h.Restart(t)
	if gone, err := next.Reap(t.Context(), keep); err != nil || gone != 0 {
		t.Errorf("claimed: got %d, %v; want none removed", gone, err)
	}
	a, err := a.adopt(next)
	if err != nil {
		t.Fatalf("adopt: %v", err)
	}
	if gone, err := next.Reap(t.Context(), keep); err != nil || gone != 0 {
		t.Errorf("claimed and adopted: got %d, %v; want none removed", gone, err)
	}
	if exit := a.exit(); exit.Code != 0 || exit.Interrupted != "" {
		t.Errorf("got %+v, want code 0", exit)
	}
	if got := a.stdout.kept.String(); got != "ab" {
		t.Errorf("output: got %q, want ab", got)
	}
	a.remove()

	h.Runtime = next
	a = bind(t, h, park(t, h, s, time.Hour), s).start()
	if gone, err := next.Reap(t.Context(), nobodys); err != nil || gone != 1 {
		t.Errorf("unclaimed: got %d, %v; want 1", gone, err)
	}
	a.kill()
	a.remove()
}

func boundIsKilledBeforeStart(t *testing.T, h Harness) {
	s := spec(h, "print", "x")
	a := bind(t, h, park(t, h, s, time.Hour), s)
	a.kill()
	if err := a.c.Start(t.Context()); err == nil {
		t.Error("start after kill: got none, want an error")
	}
	a.remove()
	a.remove()
	a.kill()
	if a.stdout.bytes != 0 {
		t.Error("it ran")
	}
}

func boundStartAsks(t *testing.T, h Harness) {
	no := errors.New("the lease is lost")
	s := spec(h, "print", "x")
	a := prepare(t, h)
	a.may = func() error { return no }
	if err := a.bind(park(t, h, s, time.Hour), s); err != nil {
		t.Fatal(err)
	}
	if err := a.c.Start(t.Context()); !errors.Is(err, no) {
		t.Errorf("start: got %v, want %v", err, no)
	}
	a.kill()
	a.remove()
	if a.stdout.bytes != 0 {
		t.Error("it ran")
	}
}

func parkedIsRemoved(t *testing.T, h Harness) {
	s := spec(h, "print", "x")
	p := park(t, h, s, time.Hour)
	for range 2 {
		if err := p.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
	gone(t, p)
	if err := prepare(t, h).bind(p, s); !errors.Is(err, runtime.ErrSpent) {
		t.Errorf("bind: got %v, want ErrSpent", err)
	}
}
