package main

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

// errAgain: there is nothing to read now.
var errAgain = errors.New("nothing to read")

// link is the connection to the agent.
type link struct {
	fd      int // -1 without one
	watch   int // inotify on the agent's directory, or -1
	reader  *initwire.Reader
	writer  *initwire.Writer
	pending []byte // what did not fit into the socket
	buf     []byte // pending's memory
	resumed bool   // the agent has answered this connection's Hello
}

// watchDir sees the socket appear. It needs root, and can fail where the machine
// has no inotify instance left for its user: then dialling more often does.
func watchDir() int {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return -1
	}
	if _, err := unix.InotifyAddWatch(fd, initwire.Dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ATTRIB); err != nil {
		unix.Close(fd)
		return -1
	}
	return fd
}

// drainWatch forgets what was seen.
func (l *link) drainWatch() {
	var events [4096]byte
	for {
		if n, err := unix.Read(l.watch, events[:]); n <= 0 && err != unix.EINTR {
			return
		}
	}
}

// dial connects and says hello.
func (l *link) dial(hello initwire.Hello) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: initwire.Dir + "/" + initwire.Socket}); err != nil {
		unix.Close(fd)
		return false
	}
	l.fd, l.pending, l.resumed = fd, nil, false
	l.reader, l.writer = initwire.NewReader(l), initwire.NewWriter(l)
	if err := l.writer.Send(hello); err != nil {
		l.hangUp()
		return false
	}
	return true
}

func (l *link) hangUp() {
	if l.fd >= 0 {
		unix.Close(l.fd)
	}
	l.fd, l.pending, l.resumed = -1, nil, false
	l.reader, l.writer = nil, nil
}

// idle says that all that was sent is in the socket.
func (l *link) idle() bool { return l.fd >= 0 && len(l.pending) == 0 }

// Read reads without waiting.
func (l *link) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(l.fd, p)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return 0, errAgain
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write keeps what the socket does not take.
func (l *link) Write(p []byte) (int, error) {
	rest := p
	if len(l.pending) == 0 {
		var err error
		if rest, err = l.push(p); err != nil {
			return 0, err
		}
		l.buf = l.buf[:0]
	}
	if len(rest) > 0 {
		kept := len(l.buf) - len(l.pending)
		l.buf = append(l.buf, rest...)
		l.pending = l.buf[kept:]
	}
	return len(p), nil
}

// flush writes what was kept.
func (l *link) flush() (err error) {
	l.pending, err = l.push(l.pending)
	return err
}

// push writes what the socket takes and gives the rest.
func (l *link) push(p []byte) ([]byte, error) {
	for len(p) > 0 {
		n, err := unix.Write(l.fd, p)
		switch {
		case n > 0:
			p = p[n:]
		case err == unix.EAGAIN:
			return p, nil
		case err != unix.EINTR:
			return p, err
		}
	}
	return nil, nil
}
