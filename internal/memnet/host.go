package memnet

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

const (
	firstFreePort = 50000
	mostPort      = 65535
	backlog       = 1024
	// connectTimeout is how long Linux tries to connect in vain by default.
	connectTimeout = 127 * time.Second
)

// Host is one machine with one process on it. Its methods are safe for
// concurrent use.
type Host struct {
	net  *Net
	name string

	// guarded by the Net's lock
	nextPort  int
	crashed   bool // its process is gone
	dark      bool // and so is its kernel
	listeners map[int]*listener
	packets   map[int]*packetConn
	conns     map[*conn]struct{}
}

// Name is the host part of its addresses.
func (h *Host) Name() string { return h.name }

// Listen opens a port for streams; port 0 chooses a free one. Fails when the
// port is taken or the host has crashed.
func (h *Host) Listen(port int) (net.Listener, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	port, err := h.freePort(port, func(p int) bool { return h.listeners[p] != nil })
	a := addr{"tcp", h.name, port}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: a.network, Addr: a, Err: err}
	}
	l := &listener{host: h, addr: a}
	h.listeners[port] = l
	h.net.changed.fire()
	return l, nil
}

func (h *Host) freePort(port int, taken func(int) bool) (int, error) {
	if h.crashed {
		return port, syscall.ENETDOWN
	}
	for port == 0 {
		if !taken(h.nextPort) {
			port = h.nextPort
		}
		if h.nextPort++; h.nextPort > mostPort {
			h.nextPort = firstFreePort
		}
	}
	if taken(port) {
		return port, syscall.EADDRINUSE
	}
	return port, nil
}

// Dial opens a stream to addr, "host:port". A port without a listener and an
// unknown host fail at once; a host that can't be reached lets Dial wait until
// it can be, ctx ends, or 127 s have passed, as TCP does.
func (h *Host) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	to, err := parseAddr("tcp", addr)
	if err == nil {
		var c net.Conn
		if c, err = h.dial(ctx, to); err == nil {
			return c, nil
		}
	}
	return nil, &net.OpError{Op: "dial", Net: network, Addr: to, Err: err}
}

// DialFunc gives Dial in the shape gRPC wants.
func (h *Host) DialFunc() func(ctx context.Context, addr string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) { return h.Dial(ctx, "tcp", addr) }
}

func (h *Host) dial(ctx context.Context, to addr) (net.Conn, error) {
	giveUp := time.NewTimer(connectTimeout)
	defer giveUp.Stop()
	for {
		var tripped <-chan time.Time // the handshake's round trip, once it can happen
		roundTrip, changed, err := h.reach(to)
		if err != nil {
			return nil, err
		}
		if roundTrip == 0 {
			// No timer for no time: one that is due already can crash the
			// runtime in a bubble under the race detector (Go 1.26.8).
			if c, err := h.establish(to); c != nil || err != nil {
				return c, err
			}
			continue
		}
		if roundTrip > 0 {
			tripped, changed = time.After(roundTrip), nil
		}
		select {
		case <-tripped:
			if c, err := h.establish(to); c != nil || err != nil {
				return c, err
			}
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-giveUp.C:
			return nil, os.NewSyscallError("connect", syscall.ETIMEDOUT)
		}
	}
}

// reach draws how long a handshake takes, or, with a negative one, gives a
// channel that closes when it may be worth another look.
func (h *Host) reach(to addr) (time.Duration, <-chan struct{}, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	switch ok, err := h.reachable(to); {
	case err != nil:
		return 0, nil, err
	case !ok:
		n.dropped++
		return -1, n.changed.wait(), nil
	}
	return n.transit(way{h.name, to.host}) + n.transit(way{to.host, h.name}), nil, nil
}

func (h *Host) reachable(to addr) (bool, error) {
	n := h.net
	if h.crashed {
		return false, syscall.ENETDOWN
	}
	other := n.hosts[to.host]
	if other == nil {
		return false, &net.DNSError{Err: "no such host", Name: to.host, IsNotFound: true}
	}
	return !other.dark && !n.links[way{h.name, to.host}].cut && !n.links[way{to.host, h.name}].cut, nil
}

// establish connects, or gives nothing when the other end got out of reach.
func (h *Host) establish(to addr) (net.Conn, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if ok, err := h.reachable(to); !ok || err != nil {
		return nil, err
	}
	other := n.hosts[to.host]
	l := other.listeners[to.port]
	if l == nil || len(l.queue) >= backlog {
		return nil, os.NewSyscallError("connect", syscall.ECONNREFUSED)
	}
	port, err := h.freePort(0, func(int) bool { return false })
	if err != nil {
		return nil, err
	}
	near, far := connect(h, addr{"tcp", h.name, port}, other, to)
	l.queue = append(l.queue, far)
	l.changed.fire()
	return near, nil
}

// Crash ends the host's process: its listeners, streams and packet sockets
// break, and it can open no new ones until Restart. Peers see their streams
// reset and their dials refused; with silent, as when the machine lost its
// power, they see nothing at all.
func (h *Host) Crash(silent bool) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if h.crashed {
		return
	}
	h.crashed, h.dark = true, silent
	for _, l := range h.listeners {
		l.shut()
	}
	for _, p := range h.packets {
		p.shut()
	}
	for c := range h.conns {
		c.breakOff(silent)
	}
	clear(h.conns)
	h.net.changed.fire()
}

// Restart makes the host usable again for a new process. Streams from before a
// silent crash stay half-open at the other end until it writes to them.
func (h *Host) Restart() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.crashed, h.dark = false, false
	for _, other := range h.net.hosts {
		for c := range other.conns {
			if c.peer.host == h && c.peer.broken && c.out.size > 0 {
				c.meetRestarted() // TCP sends again what was not acknowledged
			}
		}
	}
	h.net.changed.fire()
}

type listener struct {
	host *Host
	addr addr

	// guarded by the Net's lock
	queue   []*conn
	closed  bool
	changed signal
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	n := l.host.net
	for {
		n.mu.Lock()
		if l.closed {
			n.mu.Unlock()
			return nil, &net.OpError{Op: "accept", Net: l.addr.network, Addr: l.addr, Err: net.ErrClosed}
		}
		if len(l.queue) > 0 {
			c := l.queue[0]
			l.queue = l.queue[1:]
			n.mu.Unlock()
			return c, nil
		}
		ch := l.changed.wait()
		n.mu.Unlock()
		<-ch
	}
}

// Close implements net.Listener. Streams nobody accepted are reset.
func (l *listener) Close() error {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	if l.closed {
		return &net.OpError{Op: "close", Net: l.addr.network, Addr: l.addr, Err: net.ErrClosed}
	}
	l.shut()
	return nil
}

func (l *listener) shut() {
	l.closed = true
	delete(l.host.listeners, l.addr.port)
	for _, c := range l.queue {
		delete(l.host.conns, c)
		c.breakOff(l.host.dark)
	}
	l.queue = nil
	l.changed.fire()
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr }

// addr is a net.Addr.
type addr struct {
	network string
	host    string
	port    int
}

// Network implements net.Addr.
func (a addr) Network() string { return a.network }

// String implements net.Addr: host:port.
func (a addr) String() string { return net.JoinHostPort(a.host, strconv.Itoa(a.port)) }

func parseAddr(network, s string) (addr, error) {
	host, service, err := net.SplitHostPort(s)
	if err != nil {
		return addr{network: network, host: s}, err
	}
	port, err := strconv.Atoi(service)
	if err != nil || port < 1 || port > mostPort {
		return addr{network: network, host: s}, fmt.Errorf("port %q of %s: want 1 to %d", service, s, mostPort)
	}
	return addr{network, host, port}, nil
}
