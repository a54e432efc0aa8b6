package procs

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/daemon"
	"ecs/internal/task"
)

// TestMain makes the test's own binary the program.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "program" {
		if err := Run(os.Args[2]); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type world struct {
	*testing.T
	r       *Runtime
	dir     string
	witness string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, dir: t.TempDir(), witness: t.TempDir()}
	w.engine()
	return w
}

// engine is what an agent makes when it starts.
func (w *world) engine() {
	w.Helper()
	var err error
	if w.r, err = New(Config{Dir: w.dir, Node: "n", Program: []string{os.Args[0], "program"}, Witness: w.witness}); err != nil {
		w.Fatal(err)
	}
}

var tok = task.Token{Task: "t", Attempt: 1, Epoch: 7}

func (w *world) start(lease time.Duration, out *bytes.Buffer, command ...string) runtime.Container {
	w.Helper()
	end := daemon.Boottime() + lease
	c, err := w.r.Create(w.Context(), runtime.Order{Token: tok, Spec: task.Spec{Command: command}, Output: runtime.Sink{Stdout: out, Stderr: out},
		Deadline: func() time.Duration { return end }})
	if err == nil {
		err = c.Start(w.Context())
	}
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := c.Remove(context.Background()); err != nil {
			w.Error(err)
		}
	})
	return c
}

func (w *world) wait(c runtime.Container) runtime.Exit {
	w.Helper()
	e, err := c.Wait(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	return e
}

func TestAProgramTellsOfItsLifeAndItsEnd(t *testing.T) {
	w := newWorld(t)
	var out bytes.Buffer
	e := w.wait(w.start(time.Minute, &out, "beat", "200ms", "3", "1000"))
	if e.Code != 3 || e.Run < 200*time.Millisecond || !bytes.Equal(out.Bytes(), Output(1000)) {
		t.Errorf("got %+v and %d bytes", e, out.Len())
	}
	files, err := filepath.Glob(filepath.Join(w.witness, "t.1.n.*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("got lives %v (%v), want one", files, err)
	}
	if beats, err := os.ReadFile(files[0]); err != nil || bytes.Count(beats, []byte("\n")) < 3 {
		t.Errorf("got %q, %v, want some signs of life", beats, err)
	}
}

func TestAProgramEndsAheadOfItsLease(t *testing.T) {
	w := newWorld(t)
	began := daemon.Boottime()
	e := w.wait(w.start(task.FenceAhead+300*time.Millisecond, new(bytes.Buffer), "beat", "1m", "0", "0"))
	if took := daemon.Boottime() - began; !e.Lapsed || took > 2*time.Second {
		t.Errorf("got %+v after %s, want it to end by its lease", e, took)
	}
}

func TestAnotherAgentTakesTheProgramUp(t *testing.T) {
	w := newWorld(t)
	w.start(time.Minute, new(bytes.Buffer), "beat", "1s", "4", "10")
	w.engine()
	var out bytes.Buffer
	c, err := w.r.Adopt(t.Context(), runtime.Adoption{Token: tok, Output: runtime.Sink{Stdout: &out, Stderr: &out}, Stdout: 4})
	if err != nil {
		t.Fatal(err)
	}
	if e := w.wait(c); e.Code != 4 || !bytes.Equal(out.Bytes(), Output(10)[4:]) {
		t.Errorf("got %+v and %q", e, out.Bytes())
	}
	if _, err := w.r.Adopt(t.Context(), runtime.Adoption{Token: task.Token{Task: "other"}}); !errors.Is(err, runtime.ErrGone) {
		t.Errorf("got %v, want %v", err, runtime.ErrGone)
	}
}

func TestReapEndsWhatNobodyClaims(t *testing.T) {
	w := newWorld(t)
	c := w.start(time.Minute, new(bytes.Buffer), "beat", "1m", "0", "0")
	w.engine()
	if n, err := w.r.Reap(t.Context(), func(task.Token) bool { return true }); n != 0 || err != nil {
		t.Errorf("got %d, %v of what is claimed", n, err)
	}
	if n, err := w.r.Reap(t.Context(), func(task.Token) bool { return false }); n != 1 || err != nil {
		t.Errorf("got %d, %v of what is not", n, err)
	}
	w.wait(c) // it has ended
	if left, _ := filepath.Glob(filepath.Join(w.dir, "*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// A process that runs what another has run already leaves a life of its own.
func TestTwoProcessesOfOneAttemptAreTold(t *testing.T) {
	w := newWorld(t)
	var out bytes.Buffer
	for range 2 {
		w.wait(w.start(time.Minute, &out, "beat", "100ms", "0", "0"))
	}
	if files, err := filepath.Glob(filepath.Join(w.witness, "t.1.n.*")); err != nil || len(files) != 2 {
		t.Errorf("got lives %v (%v), want two", files, err)
	}
}
