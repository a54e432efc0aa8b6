package memnet

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

const (
	// window is how many bytes one direction of a stream holds between its
	// writer and its reader before writes block.
	window = 256 << 10
	// firstRetransmit is how long TCP takes to notice the first loss; the time
	// doubles with every further loss of the same bytes, up to mostRetransmits.
	firstRetransmit = 200 * time.Millisecond
	mostRetransmits = 8
)

// pipe is one direction of a stream. The Net's lock guards it.
type pipe struct {
	way      way
	segments []segment
	size     int // bytes in segments
	last     time.Time
	changed  signal // for its reader and its writer
}

// segment is what one write put on the way, or the end of the stream.
type segment struct {
	data []byte
	at   time.Time // arrives
	held bool      // the link is cut: arrives some time after it heals
	end  error     // io.EOF or a reset; nothing follows
}

func (s *segment) arrived(now time.Time) bool { return !s.held && !s.at.After(now) }

// send puts a segment on the way.
func (p *pipe) send(n *Net, s segment) {
	s.held = n.links[p.way].cut
	if s.held {
		n.dropped++
	}
	delay := n.transit(p.way)
	for again, tries := firstRetransmit, 0; n.lost(p.way) && tries < mostRetransmits; tries++ {
		delay += again
		again *= 2
	}
	s.at = p.inOrder(time.Now().Add(delay))
	p.segments = append(p.segments, s)
	p.size += len(s.data)
	p.changed.fire()
}

// inOrder gives the arrival time of something that would arrive at t, were it
// not for what was sent before it.
func (p *pipe) inOrder(t time.Time) time.Time {
	if t.Before(p.last) {
		return p.last
	}
	p.last = t
	return t
}

// hold stops what is still under way at a cut.
func (p *pipe) hold(now time.Time) {
	for i := range p.segments {
		if s := &p.segments[i]; !s.arrived(now) {
			s.held = true
		}
	}
}

// lose drops what will never be sent again, because its sender has no power.
func (p *pipe) lose() {
	for i := range p.segments {
		if p.segments[i].held {
			p.segments = p.segments[:i]
			return
		}
	}
}

// ended reports how the stream ended as far as its receiver can know at now,
// or when it will learn of it (zero: not in sight).
func (p *pipe) ended(now time.Time) (at time.Time, end error) {
	if len(p.segments) == 0 {
		return time.Time{}, nil
	}
	last := &p.segments[len(p.segments)-1]
	switch {
	case last.end == nil || last.held:
		return time.Time{}, nil
	case last.arrived(now):
		return time.Time{}, last.end
	}
	return last.at, nil
}

// read takes what has arrived. With nothing there it gives when to look again
// (zero: when changed).
func (p *pipe) read(b []byte, now time.Time) (n int, again time.Time, err error) {
	for len(p.segments) > 0 && n < len(b) {
		s := &p.segments[0]
		if !s.arrived(now) {
			if !s.held {
				again = s.at
			}
			break
		}
		if s.end != nil {
			if n == 0 {
				err = s.end
			}
			break
		}
		k := copy(b[n:], s.data)
		n += k
		p.size -= k
		if s.data = s.data[k:]; len(s.data) == 0 {
			p.segments[0] = segment{}
			p.segments = p.segments[1:]
		}
	}
	if n > 0 {
		p.changed.fire()
	}
	return n, again, err
}

// conn is one end of a stream.
type conn struct {
	net           *Net
	host          *Host
	local, remote addr
	peer          *conn
	in, out       *pipe

	// guarded by the Net's lock
	closed      bool
	broken      bool // its host crashed
	readBefore  time.Time
	writeBefore time.Time
}

// connect makes the two ends of a stream.
func connect(from *Host, fromAddr addr, to *Host, toAddr addr) (near, far *conn) {
	there := &pipe{way: way{from.name, to.name}}
	back := &pipe{way: way{to.name, from.name}}
	near = &conn{net: from.net, host: from, local: fromAddr, remote: toAddr, in: back, out: there}
	far = &conn{net: from.net, host: to, local: toAddr, remote: fromAddr, in: there, out: back}
	near.peer, far.peer = far, near
	from.conns[near] = struct{}{}
	to.conns[far] = struct{}{}
	return near, far
}

// usable gives why the end can't be used any more, or the deadline's passing.
func (c *conn) usable(before, now time.Time) error {
	switch {
	case c.closed:
		return net.ErrClosed
	case c.broken:
		return syscall.ENETDOWN
	case !before.IsZero() && !before.After(now):
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (c *conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: c.local.network, Source: c.local, Addr: c.remote, Err: err}
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	for {
		n, wake, err := c.tryRead(b)
		switch {
		case err == io.EOF:
			return 0, err
		case err != nil:
			return 0, c.opError("read", err)
		case wake == nil:
			return n, nil
		}
		wake.sleep()
	}
}

// tryRead reads, or gives what to wait for.
func (c *conn) tryRead(b []byte) (int, *wake, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	now := time.Now()
	if err := c.usable(c.readBefore, now); err != nil {
		return 0, nil, err
	}
	n, again, err := c.in.read(b, now)
	if n > 0 || err != nil || len(b) == 0 {
		return n, nil, err
	}
	return 0, &wake{a: c.in.changed.wait(), at: earlier(again, c.readBefore)}, nil
}

// Write implements net.Conn. It blocks once the window is full.
func (c *conn) Write(b []byte) (n int, err error) {
	for {
		k, wake, err := c.tryWrite(b[n:])
		n += k
		switch {
		case err != nil:
			return n, c.opError("write", err)
		case wake == nil:
			return n, nil
		}
		wake.sleep()
	}
}

// tryWrite writes what there is room for; if that is not all of b, it gives
// what to wait for.
func (c *conn) tryWrite(b []byte) (int, *wake, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	now := time.Now()
	if err := c.usable(c.writeBefore, now); err != nil {
		return 0, nil, err
	}
	again, end := c.in.ended(now)
	if end != nil {
		return 0, nil, syscall.EPIPE
	}
	n := min(len(b), window-c.out.size)
	if n > 0 {
		c.out.send(c.net, segment{data: append([]byte(nil), b[:n]...)})
		c.meetRestarted()
	}
	if n == len(b) {
		return n, nil, nil
	}
	// Either room appears, or the other end closes.
	return n, &wake{c.out.changed.wait(), c.in.changed.wait(), earlier(again, c.writeBefore)}, nil
}

// meetRestarted answers bytes sent to a machine that has forgotten the stream
// with a reset, as its kernel would.
func (c *conn) meetRestarted() {
	if !c.peer.broken || c.peer.host.dark || c.net.links[c.out.way].cut {
		return
	}
	if n := len(c.in.segments); n == 0 || c.in.segments[n-1].end == nil {
		c.in.send(c.net, segment{end: syscall.ECONNRESET})
	}
}

// Close implements net.Conn. What was written before still arrives.
func (c *conn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.closed = true
	delete(c.host.conns, c)
	if !c.broken {
		c.out.send(c.net, segment{end: io.EOF})
	}
	c.in.changed.fire()
	c.out.changed.fire()
	return nil
}

// breakOff ends a stream whose host crashed: by its kernel, which says so, or
// in silence. The Net's lock is held.
func (c *conn) breakOff(silent bool) {
	c.broken = true
	if silent {
		c.out.lose()
	} else {
		c.out.send(c.net, segment{end: syscall.ECONNRESET})
	}
	c.in.changed.fire()
	c.out.changed.fire()
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error { return c.setDeadlines(&t, &t) }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(&t, nil) }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(nil, &t) }

func (c *conn) setDeadlines(read, write *time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	if read != nil {
		c.readBefore = *read
		c.in.changed.fire()
	}
	if write != nil {
		c.writeBefore = *write
		c.out.changed.fire()
	}
	return nil
}
