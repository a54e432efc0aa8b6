package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"ecs/proto/api/attach"
)

// terminal gives the file descriptor of the terminal that is typed into, if
// there is one.
func (a *app) terminal() (int, bool) {
	file, ok := a.stdin.(*os.File)
	if !ok {
		return 0, false
	}
	fd := int(file.Fd())
	return fd, term.IsTerminal(fd)
}

// takeTerminal gives the program this terminal: its size, now and whenever it
// changes, and with raw every key. What it gives sets the terminal back. A
// signal that would end this process leaves first.
func (s *session) takeTerminal(ctx context.Context, parts *sync.WaitGroup, typing *attach.Session, raw bool, leave func()) (restore func() error, err error) {
	fd, ok := s.terminal()
	if !ok {
		return nil, errNoTerminal
	}
	restore = func() error { return nil }
	if raw {
		before, err := term.MakeRaw(fd)
		if err != nil {
			return nil, fmt.Errorf("make the terminal raw: %w", err)
		}
		s.raw.Store(true)
		// A reader of our output that leaves must not end us with the terminal raw.
		signal.Ignore(syscall.SIGPIPE)
		restore = func() error {
			s.raw.Store(false)
			return term.Restore(fd, before)
		}
	}
	resized, ended := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	signal.Notify(ended, syscall.SIGHUP, syscall.SIGQUIT)
	resize := func() {
		if cols, rows, err := term.GetSize(fd); err == nil && rows > 0 && cols > 0 {
			typing.Resize(uint16(rows), uint16(cols))
		}
	}
	resize()
	parts.Go(func() {
		defer signal.Stop(resized)
		defer signal.Stop(ended)
		for {
			select {
			case <-resized:
				resize()
			case <-ended:
				leave()
				return
			case <-ctx.Done():
				return
			}
		}
	})
	return restore, nil
}

// errStopped says that the reading was given up.
var errStopped = errors.New("reading was given up")

// input reads what is typed and can be told to stop: a read of a terminal ends
// with a key only.
type input struct {
	from io.Reader
	fd   int // -1: from never waits long
	// What is written to stop can be read from stopped, and ends the waiting.
	stopped, stop *os.File
}

func newInput(from io.Reader) (*input, error) {
	i := &input{from: from, fd: -1}
	file, ok := from.(*os.File)
	if !ok {
		return i, nil
	}
	i.fd = int(file.Fd())
	var err error
	if i.stopped, i.stop, err = os.Pipe(); err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	return i, nil
}

// read is io.Reader's Read, and gives errStopped when ctx ends.
func (i *input) read(ctx context.Context, p []byte) (int, error) {
	if i.fd < 0 {
		if ctx.Err() != nil {
			return 0, errStopped
		}
		return i.from.Read(p)
	}
	waiting := context.AfterFunc(ctx, func() { _, _ = i.stop.Write([]byte{0}) }) // one that is closed wakes nobody
	defer waiting()
	stopped := int32(i.stopped.Fd())
	for {
		wait := []unix.PollFd{{Fd: int32(i.fd), Events: unix.POLLIN}, {Fd: stopped, Events: unix.POLLIN}}
		_, err := unix.Poll(wait, -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("wait for input: %w", err)
		case wait[1].Revents != 0:
			return 0, errStopped
		}
		return i.from.Read(p)
	}
}

// close ends the use of the input, whose file stays open.
func (i *input) close() {
	if i.fd >= 0 {
		_ = i.stopped.Close()
		_ = i.stop.Close()
	}
}
