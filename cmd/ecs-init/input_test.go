package main

import (
	"bytes"
	"strings"
	"testing"

	"ecs/internal/initwire"
)

func TestInlineInput(t *testing.T) {
	o := order("cat")
	o.Stdin, o.Input = initwire.StdinInline, bytes.Repeat([]byte("0123456789"), 30_000) // more than a pipe holds
	if s := run(t, o); !bytes.Equal(s.stdout.Bytes(), o.Input) || s.exit.Code != 0 {
		t.Errorf("got %d bytes, want %d, or they differ", s.stdout.Len(), len(o.Input))
	}
}

// TestStreamedInput sends much more than the window, over two connections, and
// sends some of it twice.
func TestStreamedInput(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	o := order("cat")
	o.Stdin, o.Input = initwire.StdinStream, []byte("first ")
	s.send(o)
	content := append([]byte("first "), bytes.Repeat([]byte("abcdefg\n"), 100_000)...)
	var stdout []byte
	feed := func(from, to int64) {
		if s.taken.Offset < from {
			s.taken.Offset = from
		}
		for from < to {
			n := min(to-from, 10_000, s.taken.Offset+initwire.Window-from)
			if n <= 0 { // what it had taken of the order came late
				s.step()
				continue
			}
			if err := s.w.Data(initwire.KindStdin, from, content[from:from+n], nil); err != nil {
				t.Fatal(err)
			}
			from += n
		}
	}
	feed(6, 300_000)
	s.until(func() bool { return s.have.Stdout == 300_000 })
	stdout = append(stdout, s.stdout.Bytes()...)
	c.cut(s)
	c.listen()
	s = c.accept(s.have)
	if s.hello.Stdin != 300_000 {
		t.Fatalf("got hello %+v", s.hello)
	}
	feed(299_000, int64(len(content)))
	s.send(initwire.StdinClose{})
	s.finish()
	if stdout = append(stdout, s.stdout.Bytes()...); !bytes.Equal(stdout, content) || s.exit.Code != 0 {
		t.Errorf("got %d bytes, want %d, or they differ", len(stdout), len(content))
	}
	c.done(s)
}

// TestClosedInputIsDropped feeds a program that has stopped reading for good, and
// then can still be killed.
func TestClosedInputIsDropped(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	o := order("prog", "swallow")
	o.Stdin = initwire.StdinStream
	s.send(o)
	if err := s.w.Data(initwire.KindStdin, 0, []byte("0123456789"), nil); err != nil {
		t.Fatal(err)
	}
	s.until(func() bool { return strings.Contains(s.stdout.String(), "closed") })
	for at := int64(10); at < 200_000; at += 50_000 {
		if err := s.w.Data(initwire.KindStdin, at, make([]byte, 50_000), nil); err != nil {
			t.Fatal(err)
		}
		s.until(func() bool { return s.taken.Closed && s.taken.Offset == at+50_000 })
	}
	s.send(initwire.Kill{})
	c.done(s.finish())
}

// TestUnreadInputDoesNotHoldUpOthers fills the window and then kills.
func TestUnreadInputDoesNotHoldUpOthers(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	o := order("sleep", "1000")
	o.Stdin, o.Input = initwire.StdinStream, make([]byte, 100_000)
	s.send(o)
	if err := s.w.Data(initwire.KindStdin, 100_000, make([]byte, initwire.Window), nil); err != nil {
		t.Fatal(err)
	}
	s.send(initwire.Kill{})
	c.done(s.finish())
}
