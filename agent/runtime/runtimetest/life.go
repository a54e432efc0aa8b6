package runtimetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"ecs/internal/task"
)

func killIsIdempotent(t *testing.T, h Harness) {
	a := create(t, h, spec(h, "sleep", "1m")).start()
	a.kill()
	a.kill()
	exit := a.exit()
	if exit.Code != 137 || exit.Interrupted != "" || exit.OOMKilled {
		t.Errorf("got %+v, want code 137 and no interruption: we killed it", exit)
	}
	a.kill()
	a.remove()
	a.kill() // nothing is left, so there is nothing to complain of

	// One that waits already sees the same.
	a = create(t, h, spec(h, "sleep", "1m")).start()
	killed := make(chan struct{})
	go func() { defer close(killed); a.kill() }()
	if exit := a.exit(); exit.Code != 137 || exit.Interrupted != "" {
		t.Errorf("got %+v, want code 137 and no interruption", exit)
	}
	<-killed
	a.remove()
}

func killedBeforeStart(t *testing.T, h Harness) {
	a := create(t, h, spec(h, "exit", "0"))
	a.kill()
	if err := a.c.Start(t.Context()); err == nil {
		t.Error("start after kill: got none, want an error")
	}
	a.remove()

	// Whichever comes first, nothing runs when both are over.
	a = create(t, h, spec(h, "sleep", "1m"))
	started := make(chan error)
	go func() { started <- a.c.Start(t.Context()) }()
	a.kill()
	if err := <-started; err == nil {
		if exit := a.exit(); exit.Code != 137 {
			t.Errorf("got %+v, want code 137", exit)
		}
	}
	a.remove()
}

func startAsks(t *testing.T, h Harness) {
	for _, no := range []error{errors.New("the lease is lost"), nil} {
		a := prepare(t, h)
		asked := 0
		a.may = func() error { asked++; return no }
		if err := a.create(spec(h, "print", "hi"), a.stdout); err != nil {
			t.Fatal(err)
		}
		if asked != 0 {
			t.Errorf("create: asked %d times, want none", asked)
		}
		if err := a.c.Start(t.Context()); !errors.Is(err, no) {
			t.Errorf("start: got %v, want %v", err, no)
		}
		if asked != 1 {
			t.Errorf("start: asked %d times, want once", asked)
		}
		if no == nil {
			a.exit()
		} else {
			a.kill()
		}
		a.remove()
		if ran := a.stdout.bytes > 0; ran != (no == nil) {
			t.Errorf("answer %v: ran is %v", no, ran)
		}
	}
}

func waitEndsWithContext(t *testing.T, h Harness) {
	a := create(t, h, spec(h, "sleep", "1m")).start()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := a.c.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
	a.remove()
}

func removeAnyState(t *testing.T, h Harness) {
	onlyCreated := create(t, h, spec(h, "exit", "0"))
	onlyCreated.remove()
	onlyCreated.remove()

	ended := create(t, h, spec(h, "exit", "0")).start()
	ended.exit()
	ended.remove()
	ended.remove()

	// One that nobody waited for, and one that runs.
	over := create(t, h, spec(h, "print", "x")).start()
	over.remove()
	runs := create(t, h, spec(h, "sleep", "1m")).start()
	runs.remove()
	runs.remove()
	if err := runs.c.Start(t.Context()); err == nil {
		t.Error("start after remove: got none, want an error")
	}
}

// createReplaces is what happens after a create whose answer was lost.
func createReplaces(t *testing.T, h Harness) {
	lost := create(t, h, spec(h, "print", "lost", ";", "sleep", "1m")).start()
	again := prepare(t, h)
	again.tok = lost.tok
	if err := again.create(spec(h, "print", "again"), again.stdout); err != nil {
		t.Fatalf("create again: %v", err)
	}
	if n := h.Count(t); n != 1 {
		t.Errorf("containers of one attempt: got %d, want 1", n)
	}
	again.start()
	again.exit()
	again.remove()
	lost.remove()
	if got := again.stdout.kept.String(); got != "again" {
		t.Errorf("output: got %q, want %q", got, "again")
	}
}

func reap(t *testing.T, h Harness) {
	kept := create(t, h, spec(h, "sleep", "1m")).start()
	create(t, h, spec(h, "exit", "0")) // created, never started
	create(t, h, spec(h, "sleep", "1m")).start()
	ended := create(t, h, spec(h, "exit", "0")).start()
	ended.exit()

	other := h
	other.Runtime = h.Other
	foreign := create(t, other, spec(h, "sleep", "1m")).start()

	gone, err := h.Runtime.Reap(t.Context(), func(tok task.Token) bool { return tok == kept.tok })
	if err != nil || gone != 3 {
		t.Errorf("got %d, %v; want 3 removed", gone, err)
	}
	if n := h.Count(t); n != 1 {
		t.Errorf("after the reaping: got %d containers, want the claimed one", n)
	}
	kept.kill()
	if exit := kept.exit(); exit.Code != 137 || exit.Interrupted != "" {
		t.Errorf("the claimed one: got %+v, want it to run until we killed it", exit)
	}
	if gone, err := h.Runtime.Reap(t.Context(), func(task.Token) bool { return false }); err != nil || gone != 1 {
		t.Errorf("nothing claimed: got %d, %v; want 1", gone, err)
	}
	if gone, err := h.Other.Reap(t.Context(), func(task.Token) bool { return false }); err != nil || gone != 1 {
		t.Errorf("the other agent's own: got %d, %v; want 1", gone, err)
	}
	kept.remove()
	foreign.remove()
}

func probe(t *testing.T, h Harness) {
	e, err := h.Runtime.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if e.Description == "" || e.MilliCPU <= 0 || e.Memory <= 0 {
		t.Errorf("got %+v, want a description and a size", e)
	}
	if e.Egress == (e.EgressWhy != "") {
		t.Errorf("egress: got %v because %q, want a reason exactly when there is none", e.Egress, e.EgressWhy)
	}
}
