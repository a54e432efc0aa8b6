package main

import (
	"strings"
	"testing"

	"ecs/internal/initwire"
)

func terminal(o initwire.Order) initwire.Order {
	o.TTY, o.Stdin = &initwire.Size{Rows: 24, Cols: 80}, initwire.StdinStream
	return o
}

func TestTerminal(t *testing.T) {
	for _, user := range []string{"", "app"} {
		o := terminal(shell("test -t 0 && test -t 1 && test -t 2 && echo yes; tty; stty size; echo $TERM; busybox stat -c %u $(tty); echo e >&2; echo x >/dev/tty; echo y >/dev/stderr"))
		o.User = user
		uid := map[string]string{"": "0", "app": "1000"}[user]
		s := run(t, o)
		want := "yes\n/dev/pts/0\n24 80\nxterm\n" + uid + "\ne\nx\ny\n"
		if s.failed != nil || strings.ReplaceAll(s.stdout.String(), "\r", "") != want || s.stderr.Len() > 0 {
			t.Errorf("user %q: got %q and %q, %+v, want %q", user, s.stdout.String(), s.stderr.String(), s.failed, want)
		}
	}
}

func TestResize(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	s.send(terminal(order("prog", "winsize")))
	s.until(func() bool { return strings.Contains(s.stdout.String(), "24x80") })
	s.send(initwire.Resize{Rows: 30, Cols: 100})
	s.until(func() bool { return strings.Contains(s.stdout.String(), "30x100") })
	s.send(initwire.Resize{Rows: 50, Cols: 120})
	if s.finish(); !strings.HasSuffix(s.stdout.String(), "50x120\r\n") {
		t.Errorf("got %q", s.stdout.String())
	}
	c.done(s)
}

func TestControlC(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	s.send(terminal(order("cat")))
	typed(t, s, 0, "hello\n")
	s.until(func() bool { return strings.Count(s.stdout.String(), "hello") == 2 }) // echo and cat
	typed(t, s, 6, "\x03")
	if s.finish(); s.exit.Signal != 2 || s.exit.Code != 130 {
		t.Errorf("got %+v, want SIGINT", s.exit)
	}
	c.done(s)
}

func typed(t *testing.T, s *session, at int64, text string) {
	t.Helper()
	if err := s.w.Data(initwire.KindStdin, at, []byte(text), nil); err != nil {
		t.Fatal(err)
	}
}

// TestTerminalInputEnds: the end of input is an end-of-file to the program.
func TestTerminalInputEnds(t *testing.T) {
	for _, input := range []string{"", "line\n", "no end"} {
		o := terminal(order("cat"))
		o.Stdin, o.Input = initwire.StdinInline, []byte(input)
		s := run(t, o)
		if s.exit == nil || s.exit.Code != 0 || input != "" && strings.Count(s.stdout.String(), strings.TrimSpace(input)) < 2 {
			t.Errorf("after %q: got %+v and %q", input, s.exit, s.stdout.String())
		}
	}
}

// TestTerminalOutput writes more than any buffer through a terminal.
func TestTerminalOutput(t *testing.T) {
	s := run(t, terminal(shell("stty -opost; seq 1 100000")))
	if got := strings.Count(s.stdout.String(), "\n"); got != 100000 || !strings.HasSuffix(s.stdout.String(), "\n100000\n") {
		t.Errorf("got %d lines, want 100000", got)
	}
}
