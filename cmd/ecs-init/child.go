package main

import (
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

// stageFD is the second stage's end of the stage socket.
const stageFD = 3

// stage is PID 1's end of the socket to the second stage. Down goes the Order
// frame; up come the terminal, if there is one, Started just before the program
// is executed, and Failed if it could not be.
type stage struct {
	fd       int // -1 once the program was executed or never will be
	reader   *initwire.Reader
	terminal int // what came with a frame, or -1
	started  *initwire.Started
	failed   *initwire.Failed
}

// pipes are the ends that PID 1 keeps of the program's standard streams.
type pipes struct{ stdin, stdout, stderr int }

// launch starts the second stage with all of PID 1's capabilities.
func launch(caps uint64) (pid int, s *stage, ends pipes, err error) {
	var ours, theirs [4]int
	for i := range 3 {
		if ours[i], theirs[i], err = openPipe(i == 0); err != nil {
			return 0, nil, pipes{}, err
		}
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, pipes{}, fmt.Errorf("make a socket for the second stage: %w", err)
	}
	ours[3], theirs[stageFD] = pair[0], pair[1]
	attr := &syscall.ProcAttr{
		Dir: "/",
		// One thread is enough, and nothing is worth collecting.
		Env: []string{"GOMAXPROCS=1", "GOGC=off"},
		Sys: &syscall.SysProcAttr{},
	}
	for _, fd := range theirs {
		attr.Files = append(attr.Files, uintptr(fd))
		defer unix.Close(fd)
	}
	for number := range 64 {
		if caps&(1<<number) != 0 {
			attr.Sys.AmbientCaps = append(attr.Sys.AmbientCaps, uintptr(number))
		}
	}
	if pid, err = syscall.ForkExec(initwire.Path, []string{initwire.Path, secondStage}, attr); err != nil {
		return 0, nil, pipes{}, fmt.Errorf("start the second stage: %w", err)
	}
	s = &stage{fd: ours[3], terminal: -1}
	s.reader = initwire.NewReader(s)
	return pid, s, pipes{ours[0], ours[1], ours[2]}, nil
}

// openPipe makes a pipe whose other end the program gets. Whoever the program
// runs as may open it again, as /dev/stderr.
func openPipe(input bool) (ours, theirs int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return 0, 0, fmt.Errorf("make a pipe: %w", err)
	}
	ours, theirs = p[0], p[1]
	if input {
		ours, theirs = p[1], p[0]
	}
	if err := unix.Fchmod(ours, 0o666); err != nil {
		return 0, 0, fmt.Errorf("open a pipe to everybody: %w", err)
	}
	// The program's end stays blocking, as programs expect it.
	if err := unix.SetNonblock(ours, true); err != nil {
		return 0, 0, fmt.Errorf("make a pipe not block: %w", err)
	}
	return ours, theirs, nil
}

// order tells the second stage what to run.
func (s *stage) order(o initwire.Order) error {
	return initwire.NewWriter(s).Send(o)
}

// Write writes all. The second stage does nothing but read it.
func (s *stage) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n, err := unix.Write(s.fd, rest)
		if err != nil && err != unix.EINTR {
			return 0, err
		}
		rest = rest[max(n, 0):]
	}
	return len(p), nil
}

// Read reads without waiting, and takes a file descriptor that comes along.
func (s *stage) Read(p []byte) (int, error) {
	var control [64]byte
	n, oob, _, _, err := unix.Recvmsg(s.fd, p, control[:], unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return 0, errAgain
	case err != nil:
		return 0, err
	}
	if fd, ok := passedFD(control[:oob]); ok {
		s.terminal = fd
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func passedFD(control []byte) (int, bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) != 1 {
		return -1, false
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, false
	}
	return fds[0], true
}

// listen takes what the second stage says. Its socket closes when the program
// is executed, or with the second stage.
func (s *stage) listen() {
	for s.fd >= 0 {
		f, err := s.reader.Next()
		if err == errAgain {
			return
		}
		if err != nil {
			unix.Close(s.fd)
			s.fd, s.reader = -1, nil
			return
		}
		switch m, _ := f.Message(); m := m.(type) {
		case initwire.Started:
			s.started = &m
		case initwire.Failed:
			s.failed = &m
		}
	}
}
