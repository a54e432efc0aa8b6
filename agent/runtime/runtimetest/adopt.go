package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

// adopt takes an attempt up as the next process of its agent does. What the
// first one's sink has is taken for dealt with.
func (a *attempt) adopt(r runtime.Runtime) (*attempt, error) {
	next := *a
	next.h.Runtime = r
	ctx, cancel := context.WithTimeout(a.ctx, patience)
	defer cancel()
	c, err := r.Adopt(ctx, runtime.Adoption{Token: a.tok, Spec: a.spec, Deadline: a.deadline,
		Output: runtime.Sink{Stdout: next.stdout, Stderr: next.stderr}, Stdout: next.stdout.bytes, Stderr: next.stderr.bytes})
	next.c = c
	return &next, err
}

// adoptLosesNothing has several processes in a row take up a program that never
// stops writing.
func adoptLosesNothing(t *testing.T, h Harness) {
	const lines, restarts = 200, 4
	var script []string
	var want strings.Builder
	for i := range lines {
		script = append(script, "echo", strconv.Itoa(i), ";", "sleep", "10ms", ";")
		fmt.Fprintln(&want, i)
	}
	a := create(t, h, spec(h, append(script, "exit", "9")...)).start()
	var err error
	for range restarts {
		time.Sleep(300 * time.Millisecond) // somewhere in the middle of it
		if a, err = a.adopt(h.Restart(t)); err != nil {
			t.Fatalf("adopt: %v", err)
		}
	}
	exit := a.exit()
	a.remove()
	if exit.Code != 9 || exit.Interrupted != "" || exit.Lapsed {
		t.Errorf("got %+v, want code 9", exit)
	}
	if exit.Run < lines*10*time.Millisecond {
		t.Errorf("run: got %s, want all of it", exit.Run)
	}
	if got := a.stdout.kept.String(); got != want.String() {
		t.Errorf("output: got %d bytes, want %d: every line once\n%s", len(got), want.Len(), got)
	}
}

// adoptAfterTheEnd also has a process take up what an earlier one has waited for
// already: it may have died before it could write that down.
func adoptAfterTheEnd(t *testing.T, h Harness) {
	for _, waited := range []bool{false, true} {
		a := create(t, h, spec(h, "print", "out", ";", "eprint", "err", ";", "sleep", "200ms", ";", "print", "put", ";", "exit", "3"))
		a.start()
		if waited {
			a.exit()
		}
		next := h.Restart(t)
		h.Runtime = next
		time.Sleep(500 * time.Millisecond) // it ends while nobody is there
		a, err := a.adopt(next)
		if err != nil {
			t.Fatalf("adopt: %v", err)
		}
		exit := a.exit()
		a.kill()
		a.remove()
		if exit.Code != 3 || exit.Interrupted != "" || exit.StartedAt.IsZero() || exit.Run < 200*time.Millisecond {
			t.Errorf("waited before: %v: got %+v, want code 3 after 200ms", waited, exit)
		}
		if out, err := a.stdout.kept.String(), a.stderr.kept.String(); out != "output" || err != "err" {
			t.Errorf("waited before: %v: got %q and %q, want the rest of it", waited, out, err)
		}
	}
}

// aShortStreamIsThereAgain has two processes in a row take up what an earlier one
// had all of, in its memory alone.
func aShortStreamIsThereAgain(t *testing.T, h Harness) {
	long := strings.Repeat("x", task.HeadBytes-len("put"))
	for _, ended := range []bool{false, true} {
		a := create(t, h, spec(h, "print", long, ";", "eprint", "err", ";", "sleep", "500ms", ";", "print", "put", ";", "exit", "3"))
		a.start()
		a.until(long)
		if ended {
			a.exit() // and dies before it can write that down
		}
		var err error
		for range 2 {
			next := h.Restart(t)
			h.Runtime = next
			a.stdout, a.stderr = newCapture(a.stdout.cap), newCapture(a.stderr.cap)
			if a, err = a.adopt(next); err != nil {
				t.Fatalf("adopt: %v", err)
			}
			a.until(long)
		}
		exit := a.exit()
		a.remove()
		if exit.Code != 3 || exit.Interrupted != "" {
			t.Errorf("ended before: %t: got %+v, want code 3", ended, exit)
		}
		if out, err := a.stdout.kept.String(), a.stderr.kept.String(); out != long+"put" || err != "err" {
			t.Errorf("ended before: %t: got %d bytes and %q, want all of it from the first byte on", ended, len(out), err)
		}
	}
}

func adoptedIsKilled(t *testing.T, h Harness) {
	a := create(t, h, spec(h, "sleep", "1m")).start()
	a, err := a.adopt(h.Restart(t))
	if err != nil {
		t.Fatalf("adopt: %v", err)
	}
	a.kill()
	if exit := a.exit(); exit.Code != 137 || exit.Interrupted != "" {
		t.Errorf("got %+v, want code 137 and no interruption: we killed it", exit)
	}
	a.remove()
}

func nothingToAdopt(t *testing.T, h Harness) {
	never := prepare(t, h)
	if _, err := never.adopt(h.Runtime); !errors.Is(err, runtime.ErrGone) {
		t.Errorf("one that never was: got %v, want ErrGone", err)
	}
	onlyCreated := create(t, h, spec(h, "exit", "0"))
	over := create(t, h, spec(h, "exit", "0")).start()
	over.exit()
	over.remove()
	next := h.Restart(t)
	for name, a := range map[string]*attempt{"one that never began": onlyCreated, "one that was removed": over} {
		if _, err := a.adopt(next); !errors.Is(err, runtime.ErrGone) {
			t.Errorf("%s: got %v, want ErrGone", name, err)
		}
	}
	if _, err := next.Reap(t.Context(), func(task.Token) bool { return false }); err != nil {
		t.Error(err)
	}
}

// endsIn is a lease that ends the program from inside d after the runtime first
// asks for it, which is right before the program begins: what it took to come to
// that is not of the lease.
func endsIn(h Harness, d time.Duration) func() time.Duration {
	return sync.OnceValue(func() time.Duration { return h.Now() + d + task.FenceAhead })
}

// leaseEnds has programs whose lease nobody renews, with and without an agent.
func leaseEnds(t *testing.T, h Harness) {
	for _, alone := range []bool{false, true} {
		a := prepare(t, h)
		a.deadline = endsIn(h, 1500*time.Millisecond)
		if err := a.create(spec(h, "sleep", "1m"), a.stdout); err != nil {
			t.Fatal(err)
		}
		a.start()
		if alone {
			next := h.Restart(t)
			h.Runtime = next
			time.Sleep(a.deadline() - task.FenceAhead - h.Now() + 500*time.Millisecond) // all is over by itself
			var err error
			if a, err = a.adopt(next); err != nil {
				t.Fatalf("adopt: %v", err)
			}
		}
		exit := a.exit()
		if late := h.Now() - (a.deadline() - task.OuterFenceAhead); late > 0 {
			t.Errorf("alone: %v: known %s after the outer fence's deadline", alone, late)
		}
		a.remove()
		if !exit.Lapsed || exit.Interrupted != "" || exit.Run > 2*time.Second {
			t.Errorf("alone: %v: got %+v, want lapsed", alone, exit)
		}
	}
}

func renewedLease(t *testing.T, h Harness) {
	a := prepare(t, h)
	a.deadline = endsIn(h, 2*time.Second)
	if err := a.create(spec(h, "sleep", "3s", ";", "exit", "4"), a.stdout); err != nil {
		t.Fatal(err)
	}
	a.start()
	a.c.Renew(a.deadline() + time.Minute)
	a.c.Renew(a.deadline()) // an earlier end does not count
	exit := a.exit()
	a.remove()
	if exit.Code != 4 || exit.Lapsed {
		t.Errorf("got %+v, want code 4", exit)
	}
}

// A start may take as long as a lease: what is renewed before it counts.
func renewedBeforeStart(t *testing.T, h Harness) {
	a := prepare(t, h)
	a.deadline = endsIn(h, 2*time.Second)
	if err := a.create(spec(h, "sleep", "3s", ";", "exit", "4"), a.stdout); err != nil {
		t.Fatal(err)
	}
	a.c.Renew(a.deadline() + time.Minute)
	a.start()
	exit := a.exit()
	a.remove()
	if exit.Code != 4 || exit.Lapsed {
		t.Errorf("got %+v, want code 4", exit)
	}
}

func runLimit(t *testing.T, h Harness) {
	s := spec(h, "print", "x", ";", "sleep", "1m")
	s.Timeouts.Run = time.Second
	a := create(t, h, s).start()
	exit := a.exit()
	a.remove()
	if !exit.RunLimit || exit.Code != 137 || exit.Interrupted != "" || exit.OOMKilled {
		t.Errorf("got %+v, want ended at the run limit", exit)
	}
	if exit.Run < s.Timeouts.Run || exit.Run > s.Timeouts.Run+time.Second {
		t.Errorf("run: got %s, want about %s", exit.Run, s.Timeouts.Run)
	}
	if got := a.stdout.kept.String(); got != "x" {
		t.Errorf("output: got %q, want %q", got, "x")
	}
}
