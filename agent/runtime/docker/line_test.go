package docker

import (
	"bytes"
	"net"
	"path/filepath"
	"testing"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/initwire"
)

// connect gives both ends of a connection.
func connect(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if ours, err = net.DialUnix("unix", nil, listener.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	if theirs, err = listener.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// initEnd is an init's end of a connection.
type initEnd struct {
	t    *testing.T
	conn *net.UnixConn
	in   *initwire.Reader
	out  *initwire.Writer
	line *line
	gone chan error
}

// takenUp has an agent take up an attempt of whose output it has so much, and has
// acknowledged so much.
func takenUp(t *testing.T, c *attempt, have, acked initwire.Position) *initEnd {
	t.Helper()
	ours, theirs := connect(t)
	if err := theirs.SetDeadline(time.Now().Add(writePatience)); err != nil {
		t.Fatal(err)
	}
	e := &initEnd{t: t, conn: theirs, in: initwire.NewReader(theirs), out: initwire.NewWriter(theirs),
		line: newLine(ours), gone: make(chan error, 1)}
	if err := c.takeUp(e.line, have, acked); err != nil {
		t.Fatal(err)
	}
	go func() { e.gone <- c.listen(e.line) }()
	return e
}

// says waits for a position that the agent sends.
func (e *initEnd) says(kind initwire.Kind, want initwire.Position) {
	e.t.Helper()
	f, err := e.in.Next()
	if err != nil || f.Kind != kind {
		e.t.Fatalf("got a frame of kind %d, %v, want %d", f.Kind, err, kind)
	}
	if got, err := f.Position(); err != nil || got != want {
		e.t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func (e *initEnd) send(kind initwire.Kind, from int64, data []byte) {
	e.t.Helper()
	if err := e.out.Data(kind, from, data, nil); err != nil {
		e.t.Fatal(err)
	}
}

// hangUp ends the connection once the agent has all that was sent.
func (e *initEnd) hangUp() {
	e.t.Helper()
	e.conn.CloseWrite()
	if err := <-e.gone; err == nil {
		e.t.Error("got an end of the program")
	}
	e.line.close()
	if f, err := e.in.Next(); err == nil {
		e.t.Errorf("got a frame of kind %d, want nothing more", f.Kind)
	}
}

// What the agent has is asked for again after a break as far as it is not
// acknowledged, and taken once. Little is not acknowledged at all.
func TestABrokenConnectionLosesAndDoublesNothing(t *testing.T) {
	var stdout, stderr bytes.Buffer
	c := newAttempt(&Runtime{life: t.Context()}, "", home{})
	c.sink = runtime.Sink{Stdout: &stdout, Stderr: &stderr}
	out, errs := make([]byte, ackAfter+7232), []byte("err")
	for i := range out {
		out[i] = byte(i % 251)
	}
	const first = 20_000

	e := takenUp(t, c, initwire.Position{}, initwire.Position{})
	e.says(initwire.KindResume, initwire.Position{})
	e.send(initwire.KindStdout, 0, out[:first])
	e.send(initwire.KindStderr, 0, errs)
	e.hangUp()

	e = takenUp(t, c, e.line.have, e.line.acked)
	e.says(initwire.KindResume, initwire.Position{})
	e.send(initwire.KindStdout, 0, out[:first/2])
	e.send(initwire.KindStdout, first/2, out[first/2:30_000]) // some of it is known
	e.send(initwire.KindStderr, 0, errs)
	e.send(initwire.KindStdout, 30_000, out[30_000:])
	all := initwire.Position{Stdout: int64(len(out))} // of stderr nothing
	e.says(initwire.KindAck, all)
	e.hangUp()

	e = takenUp(t, c, e.line.have, e.line.acked)
	e.says(initwire.KindResume, all)
	e.hangUp()
	if !bytes.Equal(stdout.Bytes(), out) || stderr.String() != "err" {
		t.Errorf("got %d bytes and %q, want %d and each once", stdout.Len(), stderr.String(), len(out))
	}
}
