package docker

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"ecs/internal/initwire"
	"ecs/internal/task"
)

const (
	// writePatience is how long the other end may take nothing: it reads
	// whenever it runs at all.
	writePatience = 10 * time.Second
	// ackAfter is how many bytes of a stream are open before they are
	// acknowledged.
	ackAfter = initwire.AckEvery / 2
	// maxWaiting is how many messages may wait to be written.
	maxWaiting = 64
)

var errHungUp = errors.New("the connection to the container is broken")

// What is acknowledged the sink has for good, see runtime.Sink.
const _ = uint(ackAfter - task.HeadBytes - 1)

// line is one connection to an init. One goroutine reads; whoever writes only
// says what there is to write.
type line struct {
	conn  *net.UnixConn
	hello initwire.Hello
	in    *initwire.Reader
	out   *initwire.Writer
	have  initwire.Position // up to where the sink has it; the reader's
	acked initwire.Position // the reader's

	mu struct {
		sync.Mutex
		ack     initwire.Position
		acks    bool          // ack is to be written
		lease   time.Duration // to be written; 0: none
		waiting []outgoing
		closed  bool
		cut     bool // what is written now is to end
	}
	wake chan struct{} // one slot
	done chan struct{} // closed when nobody writes any more
}

// outgoing is a message, or input.
type outgoing struct {
	message initwire.Message // nil: input
	offset  int64
	input   []byte
}

func newLine(conn *net.UnixConn) *line {
	return &line{conn: conn, in: initwire.NewReader(conn), out: initwire.NewWriter(conn),
		wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// begin answers the Hello as resume does, and has what is sent from now on written.
func (l *line) begin(ctx context.Context, from initwire.Position, then ...initwire.Message) error {
	if err := l.resume(ctx, from, then...); err != nil {
		close(l.done) // nobody else writes
		return err
	}
	go l.write()
	return nil
}

// resume answers the Hello, and says more with it: each time that an init wakes up
// takes time. An init is silent until then. After an error it has not got all of it and
// never will: the connection is closed.
func (l *line) resume(ctx context.Context, from initwire.Position, then ...initwire.Message) error {
	l.have, l.acked = from, from
	if err := l.conn.SetWriteDeadline(time.Now().Add(writePatience)); err != nil {
		return err
	}
	cut := make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.mu.cut = true
		_ = l.conn.SetWriteDeadline(time.Unix(1, 0)) // a closed one does not block
		close(cut)
	})
	err := l.out.Send(append([]initwire.Message{initwire.Resume(from)}, then...)...)
	if !unwatch() {
		<-cut // or it would cut what is written next
	}
	if err != nil {
		l.conn.Close() // nothing may complete an order that was cut
		return err
	}
	l.mu.Lock()
	l.mu.cut = false
	l.mu.Unlock()
	return nil
}

// took notes what the sink has, and acknowledges a stream of which much is open.
// Little is not worth waking an init for, and up to task.HeadBytes of a stream the
// sink may not have for good yet.
func (l *line) took() {
	switch {
	case l.have.Stdout-l.acked.Stdout >= ackAfter:
		l.acked.Stdout = l.have.Stdout
	case l.have.Stderr-l.acked.Stderr >= ackAfter:
		l.acked.Stderr = l.have.Stderr
	default:
		return
	}
	l.mu.Lock()
	l.mu.ack, l.mu.acks = l.acked, true
	l.mu.Unlock()
	poke(l.wake)
}

// renew sends the end of the lease; the latest counts.
func (l *line) renew(end time.Duration) {
	l.mu.Lock()
	l.mu.lease = max(l.mu.lease, end)
	l.mu.Unlock()
	poke(l.wake)
}

// send has a message written, soon.
func (l *line) send(m initwire.Message) error { return l.queue(outgoing{message: m}) }

// input has bytes of the standard input written. They must not change.
func (l *line) input(offset int64, p []byte) error {
	return l.queue(outgoing{offset: offset, input: p})
}

func (l *line) queue(o outgoing) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return errHungUp
	}
	if len(l.mu.waiting) >= maxWaiting {
		return errors.New("the container takes no messages now")
	}
	l.mu.waiting = append(l.mu.waiting, o)
	poke(l.wake)
	return nil
}

// write writes until the line is closed. A failure closes it, which the reader
// notices.
func (l *line) write() {
	defer close(l.done)
	for range l.wake {
		l.mu.Lock()
		ack, acks, lease, waiting, closed := l.mu.ack, l.mu.acks, l.mu.lease, l.mu.waiting, l.mu.closed
		l.mu.acks, l.mu.lease, l.mu.waiting = false, 0, nil
		err := errHungUp
		if !l.mu.cut {
			err = l.conn.SetWriteDeadline(time.Now().Add(writePatience))
		}
		l.mu.Unlock()
		for _, o := range waiting {
			if err == nil {
				err = l.put(o)
			}
		}
		if err == nil && lease > 0 {
			err = l.out.Send(initwire.Lease{Deadline: lease})
		}
		if err == nil && acks {
			err = l.out.Ack(ack)
		}
		if err != nil || closed {
			l.conn.Close()
			return
		}
	}
}

func (l *line) put(o outgoing) error {
	if o.message != nil {
		return l.out.Send(o.message)
	}
	return l.out.Data(initwire.KindStdin, o.offset, o.input, nil)
}

// close writes what was sent, if the other end takes it, and hangs up.
func (l *line) close() {
	l.mu.Lock()
	l.mu.closed = true
	l.mu.Unlock()
	poke(l.wake)
	<-l.done
}

// poke fills a channel of one slot.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
