package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

const (
	testNonce = "a nonce"
	patience  = 30 * time.Second
)

// container is one under test, and the agent's side of it.
type container struct {
	t      testing.TB
	dir    string
	socket string
	l      *net.UnixListener
	cmd    *exec.Cmd
	exited chan error
	stderr bytes.Buffer
}

type option func(*exec.Cmd)

// keeping gives the container capabilities that the program may keep.
func keeping(names ...string) option {
	return func(c *exec.Cmd) { c.Env = append(c.Env, capsEnv+"="+strconv.FormatUint(capsOf(names...), 10)) }
}

func capsOf(names ...string) uint64 {
	set, err := initwire.CapSet(append(names, initwire.OwnCaps...))
	if err != nil {
		panic(err)
	}
	return set
}

// start makes a container whose init waits for an order.
func start(t testing.TB, options ...option) *container {
	t.Helper()
	dir, err := os.MkdirTemp(built.dir, "c")
	if err != nil {
		t.Fatal(err)
	}
	c := &container{t: t, dir: dir, socket: filepath.Join(dir, "ecs", initwire.Socket), exited: make(chan error, 1)}
	for name, mode := range map[string]os.FileMode{"": 0o755, "ecs": 0o711, "root": 0o755} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(path, mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	target := filepath.Join(dir, "ecs", initwire.Binary)
	if err := errors.Join(os.Link(built.init, target), os.Chmod(target, 0o711)); err != nil {
		t.Fatal(err)
	}
	c.listen()
	c.cmd = exec.Command("/proc/self/exe")
	c.cmd.Env = []string{setupEnv + "=" + dir}
	keeping()(c.cmd)
	for _, o := range options {
		o(c.cmd)
	}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC}
	c.cmd.Stderr = &c.stderr
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { c.exited <- c.cmd.Wait() }()
	t.Cleanup(func() {
		c.l.Close()
		_ = c.cmd.Process.Kill()
		<-c.exited
		if text := c.stderr.String(); text != "" {
			t.Errorf("init said: %s", text)
		}
		os.RemoveAll(dir)
	})
	return c
}

func (c *container) listen() {
	c.t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.socket})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.Chmod(c.socket, 0o666); err != nil {
		c.t.Fatal(err)
	}
	c.l = l
}

// session is one connection.
type session struct {
	t     testing.TB
	conn  *net.UnixConn
	r     *initwire.Reader
	w     *initwire.Writer
	hello initwire.Hello

	ack            bool // acknowledge what arrives
	have           initwire.Position
	stdout, stderr bytes.Buffer
	started        *initwire.Started
	failed         *initwire.Failed
	exit           *initwire.Exit
	exitAt         time.Duration
	taken          initwire.StdinTaken
}

// accept takes the next connection, checks its Hello and says from where to go on.
func (c *container) accept(from initwire.Position) *session {
	c.t.Helper()
	s := c.greet()
	s.have = from
	s.send(initwire.Resume(from))
	return s
}

// greet takes the next connection and checks its Hello, which stays unanswered.
func (c *container) greet() *session {
	c.t.Helper()
	if err := c.l.SetDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	conn, err := c.l.AcceptUnix()
	if err != nil {
		c.t.Fatalf("init does not connect: %v; it said %q", err, c.stderr.String())
	}
	s := &session{t: c.t, conn: conn, r: initwire.NewReader(conn), w: initwire.NewWriter(conn), ack: true}
	c.t.Cleanup(func() { conn.Close() })
	s.hello = s.message().(initwire.Hello)
	if s.hello.Nonce != testNonce || s.hello.Version != initwire.Version {
		c.t.Fatalf("got hello %+v", s.hello)
	}
	return s
}

// cut ends a session and the listener, as a dying agent does.
func (c *container) cut(s *session) {
	c.l.Close()
	s.conn.Close()
}

func (s *session) send(m initwire.Message) {
	s.t.Helper()
	if err := s.w.Send(m); err != nil {
		s.t.Fatal(err)
	}
}

func (s *session) next() (initwire.Frame, error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	return s.r.Next()
}

func (s *session) message() initwire.Message {
	s.t.Helper()
	f, err := s.next()
	if err != nil {
		s.t.Fatal(err)
	}
	m, err := f.Message()
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// step reads one frame. It fails the test at a gap.
func (s *session) step() {
	s.t.Helper()
	f, err := s.next()
	if err != nil {
		s.t.Fatalf("read from init: %v", err)
	}
	if f.Kind == initwire.KindStdout || f.Kind == initwire.KindStderr {
		s.output(f)
		return
	}
	m, err := f.Message()
	if err != nil {
		s.t.Fatal(err)
	}
	switch m := m.(type) {
	case initwire.Started:
		s.started = &m
	case initwire.Failed:
		s.failed = &m
	case initwire.Exit:
		s.exit, s.exitAt = &m, boottime()
	case initwire.StdinTaken:
		s.taken = m
	default:
		s.t.Fatalf("got %#v", m)
	}
}

func (s *session) output(f initwire.Frame) {
	s.t.Helper()
	offset, data, err := f.Data()
	if err != nil {
		s.t.Fatal(err)
	}
	at, into := &s.have.Stdout, &s.stdout
	if f.Kind == initwire.KindStderr {
		at, into = &s.have.Stderr, &s.stderr
	}
	if offset != *at {
		s.t.Fatalf("kind %d goes on at %d, want %d", f.Kind, offset, *at)
	}
	*at += int64(len(data))
	into.Write(data)
	if s.ack {
		if err := s.w.Ack(s.have); err != nil && !errors.Is(err, syscall.EPIPE) {
			s.t.Fatal(err)
		}
	}
}

// until reads until something holds.
func (s *session) until(holds func() bool) {
	s.t.Helper()
	for !holds() {
		s.step()
	}
}

func (s *session) finish() *session {
	s.t.Helper()
	s.until(func() bool { return s.exit != nil || s.failed != nil })
	return s
}

// done tells init that it may end, and checks that it does.
func (c *container) done(s *session) {
	c.t.Helper()
	s.send(initwire.Done{})
	c.ends(exitDone)
	if _, err := s.next(); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
		c.t.Errorf("after Done: got %v, want the end of the connection", err)
	}
}

func (c *container) ends(code int) {
	c.t.Helper()
	select {
	case err := <-c.exited:
		c.exited <- err
		if got := c.cmd.ProcessState.ExitCode(); got != code {
			c.t.Errorf("init ended with %d, want %d", got, code)
		}
	case <-time.After(patience):
		c.t.Error("init does not end")
	}
}

func order(argv ...string) initwire.Order {
	return initwire.Order{Argv: argv, Lease: boottime() + time.Minute, Umask: 0o022}
}

func shell(script string) initwire.Order { return order("sh", "-c", script) }

// run gives a new container an order and reads until it is over.
func run(t testing.TB, o initwire.Order, options ...option) *session {
	t.Helper()
	c := start(t, options...)
	s := c.accept(initwire.Position{})
	s.send(o)
	s.finish()
	c.done(s)
	return s
}
