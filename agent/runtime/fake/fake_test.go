package fake_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ecs/agent/images"
	"ecs/agent/runtime"
	"ecs/agent/runtime/fake"
	"ecs/agent/runtime/runtimetest"
	"ecs/internal/task"
)

func TestConformance(t *testing.T) {
	runtimetest.Run(t, func(t *testing.T) runtimetest.Harness {
		e := fake.NewEngine()
		return runtimetest.Harness{
			Runtime: e.For("one"),
			Other:   e.For("other"),
			Image:   runtime.Image{ID: "sha256:00"},
			Program: func(script ...string) []string { return script },
			Leave: func(sleep string, files ...runtimetest.File) (runtime.Image, []string) {
				return runtime.Image{ID: "sha256:00"}, leave(sleep, files)
			},
			Missing: []string{"/no/such/command"},
			Strike: func(t *testing.T, tok task.Token, how runtimetest.Strike) {
				strike := e.KillFromOutside
				if how == runtimetest.RemoveIt {
					strike = e.RemoveFromOutside
				}
				if !strike(tok) {
					t.Errorf("%s: there was nothing to strike", how)
				}
			},
			StrikeParked: func(*testing.T) { e.StrikeParked("one") },

			Count:   func(*testing.T) int { return len(e.Containers("one")) },
			Restart: func(*testing.T) runtime.Runtime { e.Orphan("one"); return e.For("one") },
			Now:     e.Now,
		}
	})
}

// leave is the script that leaves files.
func leave(sleep string, files []runtimetest.File) []string {
	var script []string
	for _, f := range files {
		switch {
		case f.Link != "":
			script = append(script, "link", f.Path, f.Link, ";")
		case f.Content != "":
			script = append(script, "write", f.Path, f.Content, ";")
		default:
			script = append(script, "mkdir", f.Path, ";")
		}
	}
	return append(script, "print", "left", ";", "sleep", sleep)
}

func order(id string, attempt int, script ...string) runtime.Order {
	return runtime.Order{Token: task.Token{Task: task.ID(id), Attempt: attempt, Epoch: 1},
		Spec: task.Spec{Command: script}, Output: runtime.Sink{Stdout: io.Discard, Stderr: io.Discard}}
}

func start(t *testing.T, e runtime.Runtime, o runtime.Order) runtime.Container {
	t.Helper()
	c, err := e.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCrashEndsEverythingAndTellsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fake.NewEngine()
		began := time.Now()
		c := start(t, e, order("t1", 1, "sleep", "1h"))
		over := start(t, e, order("t2", 1, "exit", "0"))
		if _, err := over.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		e.Crash()
		if left := e.Containers(""); len(left) != 0 {
			t.Errorf("left: got %v, want none", left)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := c.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait: got %v, want silence", err)
		}
		runs := e.History()
		if len(runs) != 2 || !runs[0].StartedAt.Equal(began) || !runs[0].EndedAt.Equal(began.Add(time.Second)) || !runs[1].EndedAt.Equal(began) {
			t.Errorf("history: got %+v, want both runs, the long one until the crash", runs)
		}
		// What the agent does before it is gone too does no harm.
		if err := c.Kill(t.Context()); err != nil {
			t.Errorf("kill: %v", err)
		}
		if err := c.Remove(t.Context()); err != nil {
			t.Errorf("remove: %v", err)
		}
		again := start(t, e, order("t1", 1, "exit", "3"))
		if exit, err := again.Wait(t.Context()); err != nil || exit.Code != 3 {
			t.Errorf("after the crash: got %+v, %v; want code 3", exit, err)
		}
	})
}

func TestHistoryTellsWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fake.NewEngine()
		c := start(t, e, order("t1", 1, "sleep", "1m"))
		if runs := e.History(); len(runs) != 1 || !runs[0].EndedAt.IsZero() || runs[0].Token.Task != "t1" {
			t.Errorf("while it runs: got %+v, want one without an end", runs)
		}
		if exit, err := c.Wait(t.Context()); err != nil || exit.Run != time.Minute {
			t.Errorf("got %+v, %v; want a minute", exit, err)
		}
		if runs := e.History(); runs[0].EndedAt.Sub(runs[0].StartedAt) != time.Minute {
			t.Errorf("afterwards: got %+v, want a minute", runs)
		}
	})
}

func TestSlowKillLetsTheProgramGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fake.NewEngine()
		e.SlowKill(10*time.Second, 1)
		longest := time.Duration(0)
		for range 20 {
			c := start(t, e, order("t1", 1, "sleep", "1h"))
			began := time.Now()
			if err := c.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
			runs := e.History()
			if got, want := runs[len(runs)-1].EndedAt, time.Now(); !got.Equal(want) {
				t.Errorf("ended: got %s, want when kill returned, %s", got, want)
			}
			longest = max(longest, time.Since(began))
			if err := c.Remove(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if longest < time.Second || longest > 10*time.Second {
			t.Errorf("longest kill: got %s, want some seconds", longest)
		}
	})
}

func TestDownEngineFailsEveryCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fake.NewEngine()
		c := start(t, e, order("t1", 1, "sleep", "1m"))
		down := errors.New("down")
		e.SetDown(down)
		_, probe := e.Probe(t.Context())
		_, create := e.Create(t.Context(), order("t2", 1, "exit", "0"))
		_, reap := e.Reap(t.Context(), func(task.Token) bool { return false })
		for call, err := range map[string]error{"probe": probe, "create": create, "reap": reap,
			"kill": c.Kill(t.Context()), "remove": c.Remove(t.Context())} {
			if !errors.Is(err, down) {
				t.Errorf("%s: got %v, want %v", call, err, down)
			}
		}
		e.SetDown(nil)
		if err := c.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestSlowCallsEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fake.NewEngine()
		e.Slow(time.Minute, time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := e.Create(ctx, order("t1", 1, "exit", "0")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("create: got %v, want the context's error", err)
		}
		if left := e.Containers(""); len(left) != 0 {
			t.Errorf("left: got %v, want none", left)
		}
	})
}

func TestImagesDoWhatTheirNamesSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := fake.NewEngine().Images()
		for _, tt := range []struct {
			ref  string
			auth *task.RegistryAuth
			want task.Outcome
		}{
			{"docker.io/library/missing:1", nil, task.ImageNotFound},
			{"r.example/x/denied:1", &task.RegistryAuth{Username: "u"}, task.ImageDenied},
			{"r.example/x/denied:1", nil, task.ImageNotFound},
			{"unavailable:1", nil, task.ImageUnavailable},
			{"invalid@sha256:00", nil, task.ImageInvalid},
			{"hang:1", nil, task.PullTimedOut},
			{"slow:1", nil, task.PullTimedOut},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			_, err := i.Ensure(ctx, images.Request{Ref: tt.ref, Auth: tt.auth})
			cancel()
			var f *runtime.Failure
			if !errors.As(err, &f) || f.Outcome != tt.want {
				t.Errorf("%s: got %v, want %s", tt.ref, err, tt.want)
			}
		}
		for _, ref := range []string{"slow:1", "busybox:1"} {
			got, err := i.Ensure(t.Context(), images.Request{Ref: ref})
			if err != nil || !strings.HasPrefix(got.ID, "sha256:") {
				t.Errorf("%s: got %+v, %v; want an image", ref, got, err)
			}
		}
		if got := i.Present(t.Context()); !slices.Equal(got, []string{"busybox:1", "slow:1"}) {
			t.Errorf("present: got %v, want what came", got)
		}
	})
}

// A program that ends while its start is under way ran under its lease all the same.
func TestAProgramThatEndsAtOnceRanUnderItsLease(t *testing.T) {
	e := fake.NewEngine()
	one := e.For("one")
	for i := range 2000 {
		o := order("t", i+1, "exit", "0")
		o.Deadline = func() time.Duration { return e.Now() + time.Minute }
		start(t, one, o)
	}
	for _, r := range e.History() {
		if left := time.Until(r.Lease); left < 50*time.Second || left > time.Minute {
			t.Fatalf("attempt %d ran under a lease that ends in %s, want a minute", r.Token.Attempt, left)
		}
	}
}
