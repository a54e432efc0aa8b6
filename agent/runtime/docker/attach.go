package docker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"

	"ecs/agent/runtime"
)

const (
	// attachBuffer is read at once from the engine.
	attachBuffer = 64 << 10
	// sniffed is how much of stderr is kept to recognise docker-init's line,
	// beside the command that the line names.
	sniffed = 8 << 10
	// frameHeader is before every piece of output on the wire.
	frameHeader = 8
)

// attach opens the stream of a container's output. The client's own attach
// has no deadline once the connection stands, and an engine that hangs there
// would hold the caller for ever.
func (r *Runtime) attach(ctx context.Context, id string) (net.Conn, io.Reader, error) {
	conn, err := r.client.Dialer()(ctx)
	if err != nil {
		return nil, nil, err
	}
	unwatch := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	in, err := r.upgrade(ctx, conn, id)
	if !unwatch() {
		err = errors.Join(context.Cause(ctx), err) // the deadline is set and stays
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, in, nil
}

// upgrade turns the connection into the container's output stream.
func (r *Runtime) upgrade(ctx context.Context, conn net.Conn, id string) (io.Reader, error) {
	url := "http://" + client.DummyHost + "/v" + r.client.ClientVersion() + "/containers/" + id + "/attach?stream=1&stdout=1&stderr=1"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "tcp")
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	in := bufio.NewReaderSize(conn, attachBuffer)
	answer, err := http.ReadResponse(in, req)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
		answer.Body.Close()
		return nil, fmt.Errorf("attach: %s: %s", answer.Status, text)
	}
	return in, nil
}

// pump moves one container's output into its sink, from start to end. Its
// reading waits for nothing but the engine, as far as the queue has room: the
// engine drops the tail of what is not read within 2 s of the program's end,
// and a program whose output is not read stands still.
type pump struct {
	conn   net.Conn
	in     io.Reader
	queue  *queue
	stdout drain
	stderr drain
	over   chan struct{} // closed when the stream has ended
	done   chan struct{} // closed later, when the last byte is in the sink

	reads  atomic.Int64 // begun and ended calls of Read: odd while one waits
	raw    int64        // what they gave
	gaveUp atomic.Bool  // we closed the stream, not the engine

	err   error     // valid after over: nil when the engine closed the stream in good order
	ended time.Time // valid after done: when that was
}

// startPump begins to read. sniff is how much of stderr is kept.
func startPump(conn net.Conn, in io.Reader, to runtime.Sink, sniff int) *pump {
	p := &pump{conn: conn, in: in, queue: newQueue(), over: make(chan struct{}), done: make(chan struct{})}
	p.stdout.to, p.stderr.to = to.Stdout, to.Stderr
	p.stdout.queue, p.stderr.queue = p.queue, p.queue
	p.stderr.keep = sniff
	go func() {
		_, p.err = stdcopy.StdCopy(&p.stdout, &p.stderr, readerFunc(p.read))
		if p.err == nil && p.raw != p.stdout.framed+p.stderr.framed {
			p.err = io.ErrUnexpectedEOF // StdCopy takes half a frame for an end
		}
		conn.Close()
		close(p.over)
		p.queue.close()
	}()
	go func() {
		defer close(p.done)
		p.queue.drainAll()
		<-p.over
		p.ended = time.Now()
	}()
	return p
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func (p *pump) read(b []byte) (int, error) {
	p.reads.Add(1)
	defer p.reads.Add(1)
	n, err := p.in.Read(b)
	p.raw += int64(n)
	return n, err
}

// bytes is how much has come so far.
func (p *pump) bytes() int64 { return p.stdout.bytes.Load() + p.stderr.bytes.Load() }

// close ends the pump and waits for it. It is idempotent.
func (p *pump) close() {
	p.conn.Close()
	<-p.done
}

// closed reports whether the stream has ended.
func (p *pump) closed() bool {
	select {
	case <-p.over:
		return true
	default:
		return false
	}
}

// settle waits until the stream has ended and is in the sink. It ends the
// stream when the engine is silent for patience: it can hold it open for ever
// after the exit. A sink that is slow is waited for until ctx ends.
func (p *pump) settle(ctx context.Context, patience time.Duration) error {
	for {
		seen := p.reads.Load()
		t := time.NewTimer(patience)
		select {
		case <-p.done:
			t.Stop()
			return nil
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
		// Only a Read that lasted all the while is the engine's silence.
		if seen%2 == 1 && p.reads.Load() == seen {
			p.gaveUp.Store(true)
			p.conn.Close()
		}
	}
}

// broken says why output may be missing, or nothing. Valid after over.
func (p *pump) broken() string {
	switch {
	case p.err == nil:
		return ""
	case p.gaveUp.Load():
		return "its output stream did not end with the program: the last of it may be missing"
	}
	return "its output stream broke: " + p.err.Error()
}

// drain is one of the two streams. It counts its bytes and never fails, so that
// nothing behind it can stop the reading.
type drain struct {
	queue  *queue
	bytes  atomic.Int64
	framed int64 // bytes with their frames; the reader's
	keep   int
	head   []byte // the first keep bytes; valid after the stream's end

	to  io.Writer
	err error // the first error of to; valid after the pump's end
}

// Write takes one frame.
func (d *drain) Write(b []byte) (int, error) {
	d.bytes.Add(int64(len(b)))
	d.framed += frameHeader + int64(len(b))
	if room := d.keep - len(d.head); room > 0 {
		d.head = append(d.head, b[:min(room, len(b))]...)
	}
	d.queue.put(d, b)
	return len(b), nil
}

// pass gives bytes to the sink.
func (d *drain) pass(b []byte) {
	if _, err := d.to.Write(b); err != nil && d.err == nil {
		d.err = err
	}
}
