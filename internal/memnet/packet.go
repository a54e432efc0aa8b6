package memnet

import (
	"net"
	"os"
	"slices"
	"syscall"
	"time"
)

// mostDatagram is the largest payload of a UDP datagram.
const mostDatagram = 65507

// Packets opens a port for datagrams; port 0 chooses a free one. Datagrams are
// dropped without a word when the link is cut or lossy, nobody listens, or the
// reader is 256 KiB behind.
func (h *Host) Packets(port int) (net.PacketConn, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	port, err := h.freePort(port, func(p int) bool { return h.packets[p] != nil })
	a := addr{"udp", h.name, port}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: a.network, Addr: a, Err: err}
	}
	p := &packetConn{host: h, addr: a}
	h.packets[port] = p
	return p, nil
}

type packetConn struct {
	host *Host
	addr addr

	// guarded by the Net's lock
	queue       []packet // by arrival
	size        int
	closed      bool
	readBefore  time.Time
	writeBefore time.Time
	changed     signal
}

type packet struct {
	data []byte
	from addr
	at   time.Time
}

// ReadFrom implements net.PacketConn. What does not fit into b is lost.
func (p *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		p.host.net.mu.Lock()
		now := time.Now()
		if err := p.usable(p.readBefore, now); err != nil {
			p.host.net.mu.Unlock()
			return 0, nil, p.opError("read", err)
		}
		var again time.Time
		if len(p.queue) > 0 {
			head := p.queue[0]
			if !head.at.After(now) {
				p.queue = p.queue[1:]
				p.size -= len(head.data)
				p.host.net.mu.Unlock()
				return copy(b, head.data), head.from, nil
			}
			again = head.at
		}
		wake := wake{a: p.changed.wait(), at: earlier(again, p.readBefore)}
		p.host.net.mu.Unlock()
		wake.sleep()
	}
}

// WriteTo implements net.PacketConn.
func (p *packetConn) WriteTo(b []byte, a net.Addr) (int, error) {
	to, err := parseAddr("udp", a.String())
	if err != nil {
		return 0, p.opError("write", err)
	}
	if len(b) > mostDatagram {
		return 0, p.opError("write", syscall.EMSGSIZE)
	}
	n := p.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := p.usable(p.writeBefore, time.Now()); err != nil {
		return 0, p.opError("write", err)
	}
	w := way{p.host.name, to.host}
	at := time.Now().Add(n.transit(w))
	if n.links[w].cut || n.lost(w) || !n.deliver(to, packet{append([]byte(nil), b...), p.addr, at}) {
		n.dropped++
	}
	return len(b), nil
}

func (n *Net) deliver(to addr, d packet) bool {
	host := n.hosts[to.host]
	if host == nil {
		return false
	}
	p := host.packets[to.port]
	if p == nil || p.size+len(d.data) > window {
		return false
	}
	i := len(p.queue)
	for i > 0 && p.queue[i-1].at.After(d.at) {
		i--
	}
	p.queue = slices.Insert(p.queue, i, d)
	p.size += len(d.data)
	p.changed.fire()
	return true
}

// forget drops what is under way from a host.
func (p *packetConn) forget(from string, now time.Time) int {
	before := len(p.queue)
	p.queue = slices.DeleteFunc(p.queue, func(d packet) bool {
		gone := d.from.host == from && d.at.After(now)
		if gone {
			p.size -= len(d.data)
		}
		return gone
	})
	return before - len(p.queue)
}

func (p *packetConn) usable(before, now time.Time) error {
	switch {
	case p.closed:
		return net.ErrClosed
	case !before.IsZero() && !before.After(now):
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (p *packetConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: p.addr.network, Source: p.addr, Err: err}
}

// Close implements net.PacketConn.
func (p *packetConn) Close() error {
	p.host.net.mu.Lock()
	defer p.host.net.mu.Unlock()
	if p.closed {
		return p.opError("close", net.ErrClosed)
	}
	p.shut()
	return nil
}

func (p *packetConn) shut() {
	p.closed = true
	p.queue, p.size = nil, 0
	delete(p.host.packets, p.addr.port)
	p.changed.fire()
}

// LocalAddr implements net.PacketConn.
func (p *packetConn) LocalAddr() net.Addr { return p.addr }

// SetDeadline implements net.PacketConn.
func (p *packetConn) SetDeadline(t time.Time) error { return p.setDeadlines(&t, &t) }

// SetReadDeadline implements net.PacketConn.
func (p *packetConn) SetReadDeadline(t time.Time) error { return p.setDeadlines(&t, nil) }

// SetWriteDeadline implements net.PacketConn.
func (p *packetConn) SetWriteDeadline(t time.Time) error { return p.setDeadlines(nil, &t) }

func (p *packetConn) setDeadlines(read, write *time.Time) error {
	p.host.net.mu.Lock()
	defer p.host.net.mu.Unlock()
	if p.closed {
		return p.opError("set", net.ErrClosed)
	}
	if read != nil {
		p.readBefore = *read
	}
	if write != nil {
		p.writeBefore = *write
	}
	p.changed.fire()
	return nil
}
