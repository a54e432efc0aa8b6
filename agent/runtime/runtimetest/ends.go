package runtimetest

import (
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

func exitCodes(t *testing.T, h Harness) {
	for _, code := range []int{0, 1, 125, 126, 127, 137, 255} {
		_, exit := run(t, h, "exit", strconv.Itoa(code))
		if exit.Code != code || exit.Signal != "" || exit.OOMKilled || exit.Interrupted != "" {
			t.Errorf("exit %d: got %+v, want the code and nothing else", code, exit)
		}
	}
}

func signalEnded(t *testing.T, h Harness) {
	for name, number := range map[string]int{"SIGTERM": 15, "SIGKILL": 9} {
		_, exit := run(t, h, "signal", name)
		if exit.Code != 128+number || exit.OOMKilled || exit.Interrupted != "" {
			t.Errorf("%s: got %+v, want code %d and no interruption", name, exit, 128+number)
		}
		if exit.Signal != "" && exit.Signal != name {
			t.Errorf("%s: got signal %q, want its name or none", name, exit.Signal)
		}
	}
}

// cannotStart checks that a spec fails as the caller's fault, at whichever step
// the engine notices.
func cannotStart(t *testing.T, h Harness, s task.Spec) {
	t.Helper()
	a := prepare(t, h)
	err := a.create(s, a.stdout)
	if err == nil {
		defer a.remove()
		if err = a.c.Start(t.Context()); err == nil {
			_, err = a.wait()
		}
	}
	var f *runtime.Failure
	if !errors.As(err, &f) || f.Outcome != task.StartFailed || f.Reason == "" {
		t.Errorf("got %v, want a Failure start_failed with a reason", err)
	}
}

func noSuchCommand(t *testing.T, h Harness) {
	s := spec(h)
	s.Command = h.Missing
	cannotStart(t, h, s)
}

func badUser(t *testing.T, h Harness) {
	for _, user := range []string{"nosuchuser", "root:nosuchgroup"} {
		s := spec(h, "exit", "0")
		s.User = user
		cannotStart(t, h, s)
	}
}

func outOfMemory(t *testing.T, h Harness) {
	a, exit := run(t, h, "print", "before", ";", "oom")
	if !exit.OOMKilled || exit.Code != 137 || exit.Interrupted != "" {
		t.Errorf("got %+v, want out of memory with code 137", exit)
	}
	if got := a.stdout.kept.String(); got != "before" {
		t.Errorf("output before the end: got %q, want %q", got, "before")
	}
}

func times(t *testing.T, h Harness) {
	const naps = 400 * time.Millisecond
	before := time.Now()
	a := create(t, h, spec(h, "sleep", naps.String())).start()
	exit := a.exit()
	after := time.Now()
	a.remove()
	if exit.Run < naps || exit.Run > after.Sub(before) {
		t.Errorf("run: got %s, want between %s and %s", exit.Run, naps, after.Sub(before))
	}
	if exit.StartedAt.Before(before) || exit.StartedAt.After(after.Add(-naps)) {
		t.Errorf("started: got %s, want between %s and %s", exit.StartedAt, before, after.Add(-naps))
	}
	if exit.Output < 0 || exit.Output > after.Sub(before)-naps {
		t.Errorf("output: got %s, want at most %s", exit.Output, after.Sub(before)-naps)
	}
}

// fastExits runs many programs that are over before their start is answered.
func fastExits(t *testing.T, h Harness) {
	const workers, each = 4, 50
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for range each {
				a := create(t, h, spec(h, "print", "x", ";", "exit", "7"))
				if err := a.c.Start(a.ctx); err != nil {
					t.Errorf("start: %v", err)
				} else if exit, err := a.wait(); err != nil || exit.Code != 7 || exit.Interrupted != "" {
					t.Errorf("got %+v, %v; want code 7", exit, err)
				} else if got := a.stdout.kept.String(); got != "x" {
					t.Errorf("output: got %q, want %q", got, "x")
				}
				a.remove()
				if t.Failed() {
					return
				}
			}
		})
	}
	all.Wait()
}

func killedFromOutside(t *testing.T, h Harness) {
	a := create(t, h, spec(h, "print", "up", ";", "sleep", "1m"))
	up := make(chan struct{})
	a.stdout.onByte = sync.OnceFunc(func() { close(up) })
	a.start()
	<-up
	h.Strike(t, a.tok, KillIt)
	exit := a.exit()
	a.remove()
	if exit.Interrupted == "" || exit.OOMKilled {
		t.Errorf("got %+v, want interrupted", exit)
	}
	if got := a.stdout.kept.String(); got != "up" {
		t.Errorf("output so far: got %q, want %q", got, "up")
	}
}

func removedFromOutside(t *testing.T, h Harness) {
	a := create(t, h, spec(h, "sleep", "1m")).start()
	h.Strike(t, a.tok, RemoveIt)
	if exit := a.exit(); exit.Interrupted == "" {
		t.Errorf("got %+v, want interrupted", exit)
	}
	a.kill()
	a.remove()
}
