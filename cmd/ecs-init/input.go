package main

import (
	"errors"

	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

// input is the program's standard input.
type input struct {
	fd    int    // -1: none, or none yet
	open  bool   // the program may still read
	first []byte // what the order brought
	ring         // what came after; base is up to where the program has it
	eof   bool   // nothing will come after
	tty   bool
	last  byte // what was written last
	news  bool // the agent does not know base or closed yet
}

var errInput = errors.New("input that is out of order, or more than the window")

// begin takes what the order says.
func (in *input) begin(o initwire.Order) {
	in.open, in.first, in.tty, in.last = true, o.Input, o.TTY != nil, '\n'
	switch o.Stdin {
	case initwire.StdinStream:
		in.buf = make([]byte, initwire.Window)
		in.base, in.end = int64(len(o.Input)), int64(len(o.Input))
	case initwire.StdinInline:
		in.eof = true
	case initwire.StdinNone:
		in.first = nil
		if !in.tty {
			in.close()
		}
	}
}

// receive takes a frame. What is there already is skipped.
func (in *input) receive(offset int64, p []byte) error {
	skip := in.end - offset
	if skip < 0 {
		return errInput
	}
	if skip >= int64(len(p)) {
		return nil
	}
	p = p[skip:]
	if !in.open || in.buf == nil || in.eof {
		in.end += int64(len(p))
		in.drop(in.end)
		in.news = true
		return nil
	}
	if in.put(p) < len(p) {
		return errInput
	}
	return nil
}

// waiting says whether there is something to write.
func (in *input) waiting() bool {
	return in.fd >= 0 && (len(in.first) > 0 || in.base < in.end || in.eof)
}

// write gives the program what it takes.
func (in *input) write() {
	for in.waiting() {
		next, _ := in.slice(in.base, initwire.Window)
		switch {
		case len(in.first) > 0:
			next = in.first
		case len(next) == 0:
			in.finish()
			return
		}
		n, err := unix.Write(in.fd, next)
		switch {
		case n > 0:
			in.took(n, next[n-1])
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return
		default: // nobody reads any more
			in.close()
		}
	}
}

func (in *input) took(n int, last byte) {
	in.last = last
	if len(in.first) > 0 {
		in.first = in.first[n:]
		return
	}
	in.drop(in.base + int64(n))
	in.news = true
}

// finish ends the input: a pipe is closed, a terminal gets its end-of-file
// character, twice where a line was begun.
func (in *input) finish() {
	if !in.tty {
		in.close()
		return
	}
	end := []byte{4, 4}
	if in.last == '\n' || in.last == '\r' {
		end = end[:1]
	}
	if n, err := unix.Write(in.fd, end); n == len(end) || err != unix.EAGAIN {
		in.close()
	}
}

func (in *input) close() {
	if in.fd >= 0 {
		unix.Close(in.fd)
	}
	in.fd, in.open, in.first, in.news = -1, false, nil, true
	in.drop(in.end)
}
