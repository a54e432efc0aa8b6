package runtimetest

import (
	"bytes"
	"errors"
	"slices"
	"syscall"
	"testing"

	"ecs/agent/runtime"
)

func inlineInput(t *testing.T, h Harness) {
	s := spec(h, "cat")
	s.Stdin = bytes.Repeat([]byte("all of it\n"), 10_000)
	a := create(t, h, s).start()
	if err := a.c.Input(a.ctx, []byte("more"), false); !errors.Is(err, runtime.ErrNoInput) {
		t.Errorf("more input: got %v, want ErrNoInput", err)
	}
	exit := a.exit()
	a.remove()
	if exit.Code != 0 || !bytes.Equal(a.stdout.kept.Bytes(), s.Stdin) {
		t.Errorf("got %+v and %d bytes, want code 0 and %d", exit, a.stdout.bytes, len(s.Stdin))
	}
}

func noInput(t *testing.T, h Harness) {
	a := create(t, h, spec(h, "cat", ";", "print", "end")).start()
	if err := a.c.Input(a.ctx, []byte("x"), false); !errors.Is(err, runtime.ErrNoInput) {
		t.Errorf("got %v, want ErrNoInput", err)
	}
	exit := a.exit()
	a.remove()
	if got := a.stdout.kept.String(); exit.Code != 0 || got != "end" {
		t.Errorf("got %+v and %q, want the end of the input at once", exit, got)
	}
}

// openInput gives more than anything on the way holds, to a program that writes
// all of it back.
func openInput(t *testing.T, h Harness) {
	s := spec(h, "cat", ";", "exit", "6")
	s.OpenStdin, s.Stdin = true, []byte("first ")
	a := create(t, h, s)
	a.stdout.cap = 1 << 30
	a.start()
	want := slices.Clone(s.Stdin)
	piece := bytes.Repeat([]byte("0123456789abcdef"), 10_000)
	for range 10 {
		want = append(want, piece...)
		if err := a.c.Input(a.ctx, piece, false); err != nil {
			t.Fatalf("input: %v", err)
		}
	}
	want = append(want, "last"...)
	if err := a.c.Input(a.ctx, []byte("last"), true); err != nil {
		t.Fatalf("input: %v", err)
	}
	if err := a.c.Input(a.ctx, []byte("x"), false); !errors.Is(err, runtime.ErrNoInput) {
		t.Errorf("after the end: got %v, want ErrNoInput", err)
	}
	exit := a.exit()
	a.remove()
	if exit.Code != 6 || !bytes.Equal(a.stdout.kept.Bytes(), want) {
		t.Errorf("got %+v and %d bytes, want code 6 and the %d that went in", exit, a.stdout.bytes, len(want))
	}
}

func openInputIsAdopted(t *testing.T, h Harness) {
	s := spec(h, "cat")
	s.OpenStdin = true
	a := create(t, h, s).start()
	if err := a.c.Input(a.ctx, []byte("before "), false); err != nil {
		t.Fatalf("input: %v", err)
	}
	a.until("before ")
	a, err := a.adopt(h.Restart(t))
	if err != nil {
		t.Fatalf("adopt: %v", err)
	}
	if err := a.c.Input(a.ctx, []byte("after"), true); err != nil {
		t.Fatalf("input: %v", err)
	}
	exit := a.exit()
	a.remove()
	if got := a.stdout.kept.String(); exit.Code != 0 || got != "before after" {
		t.Errorf("got %+v and %q, want both pieces", exit, got)
	}
}

func signals(t *testing.T, h Harness) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		a := create(t, h, spec(h, "print", "up", ";", "sleep", "1m")).start()
		a.until("up")
		if err := a.c.Signal(a.ctx, signal); err != nil {
			t.Errorf("signal: %v", err)
		}
		exit := a.exit()
		if err := a.c.Signal(a.ctx, signal); err != nil {
			t.Errorf("signal after the end: %v", err)
		}
		a.remove()
		if exit.Code != 128+int(signal) || exit.Interrupted != "" || exit.OOMKilled {
			t.Errorf("%v: got %+v, want its code and no interruption: we sent it", signal, exit)
		}
	}
}

func resizeIsHarmless(t *testing.T, h Harness) {
	for _, tty := range []bool{false, true} {
		s := spec(h, "print", "x", ";", "sleep", "100ms", ";", "eprint", "y", ";", "exit", "2")
		s.TTY = tty
		a := create(t, h, s).start()
		for range 3 {
			if err := a.c.Resize(a.ctx, 50, 132); err != nil {
				t.Errorf("resize: %v", err)
			}
		}
		exit := a.exit()
		if err := a.c.Resize(a.ctx, 1, 1); err != nil {
			t.Errorf("resize after the end: %v", err)
		}
		a.remove()
		out, err := "x", "y"
		if tty {
			out, err = "xy", "" // all of it goes to the terminal
		}
		if exit.Code != 2 || a.stdout.kept.String() != out || a.stderr.kept.String() != err {
			t.Errorf("terminal: %v: got %+v, %q and %q", tty, exit, a.stdout.kept.String(), a.stderr.kept.String())
		}
	}
}
