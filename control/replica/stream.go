package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"ecs/internal/newcomers"
)

// StreamLayer is raft's network: a listener and a way to dial.
type StreamLayer = raft.StreamLayer

const (
	// handshakeWithin bounds how long a stranger keeps a connection.
	handshakeWithin = 5 * time.Second
	// maxStrangers bounds the inbound connections that have not shaken hands
	// yet. One makes room for the next: a peer needs milliseconds, so that
	// strangers who just hold connections keep no peer out.
	maxStrangers = 256
)

// NewStream makes a stream layer of a listener and a dial function. addr is
// what peers dial. Close closes every connection it handed out, because raft
// leaves them open.
func NewStream(l net.Listener, addr string, dial func(ctx context.Context, addr string) (net.Conn, error)) StreamLayer {
	life, end := context.WithCancel(context.Background())
	return &stream{listener: l, addr: streamAddr(addr), dial: dial, life: life, end: end, conns: make(map[*streamConn]struct{}),
		strangers: newcomers.New(maxStrangers)}
}

// NewTLSStream is NewStream over TLS, for peers that dial shakes hands with.
func NewTLSStream(l net.Listener, addr string, server *tls.Config, dial func(ctx context.Context, addr string) (net.Conn, error)) StreamLayer {
	s := NewStream(l, addr, dial).(*stream)
	s.tls = server
	return s
}

type stream struct {
	listener net.Listener
	addr     streamAddr
	dial     func(ctx context.Context, addr string) (net.Conn, error)
	tls      *tls.Config // nil: in the clear

	// life ends dials under way; raft gives Dial no context.
	life context.Context
	end  context.CancelFunc

	mu     sync.Mutex
	closed bool
	conns  map[*streamConn]struct{}
	// strangers are those of conns that must shake hands yet.
	strangers *newcomers.Set
}

// Accept implements net.Listener. TLS shakes hands at the connection's first
// read, so that nobody holds up the others.
func (s *stream) Accept() (net.Conn, error) {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &streamConn{Conn: conn, stream: s}
		if s.tls != nil {
			c.Conn = &lateHandshake{Conn: tls.Server(conn, s.tls), life: s.life, done: func() { s.admit(c) }}
		}
		if s.track(c, s.tls != nil) {
			return c, nil
		}
	}
}

// Dial implements raft.StreamLayer.
func (s *stream) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.life, timeout)
	defer cancel()
	conn, err := s.dial(ctx, string(addr))
	if err != nil {
		return nil, err
	}
	if c := (&streamConn{Conn: conn, stream: s}); s.track(c, false) {
		return c, nil
	}
	return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: streamAddr(addr), Err: net.ErrClosed}
}

// track takes a connection into account, or closes it when the layer is closed.
func (s *stream) track(c *streamConn, stranger bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Conn.Close() // nobody has used it
		return false
	}
	s.conns[c] = struct{}{}
	if !stranger {
		return true
	}
	if oldest := s.strangers.Add(c); oldest != nil {
		_ = oldest.(*streamConn).Conn.Close() // whoever reads from it takes it off conns
	}
	return true
}

// admit notes that a connection is a peer's.
func (s *stream) admit(c *streamConn) { s.strangers.Forget(c) }

// Close implements net.Listener.
func (s *stream) Close() error {
	s.end()
	err := s.listener.Close()
	s.mu.Lock()
	conns := s.conns
	s.conns, s.closed = nil, true
	s.mu.Unlock()
	for c := range conns {
		_ = c.Conn.Close() // the other end sees it anyway
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Addr implements net.Listener: what peers dial.
func (s *stream) Addr() net.Addr { return s.addr }

type streamConn struct {
	net.Conn
	stream *stream
}

// Close implements net.Conn.
func (c *streamConn) Close() error {
	c.stream.mu.Lock()
	delete(c.stream.conns, c)
	c.stream.strangers.Forget(c)
	c.stream.mu.Unlock()
	return c.Conn.Close()
}

// lateHandshake shakes hands within handshakeWithin of the first read.
type lateHandshake struct {
	*tls.Conn
	life context.Context
	done func() // called once, after a good handshake
	once sync.Once
	err  error
}

// Read implements net.Conn.
func (c *lateHandshake) Read(b []byte) (int, error) {
	c.once.Do(func() {
		ctx, cancel := context.WithTimeout(c.life, handshakeWithin)
		defer cancel()
		if c.err = c.HandshakeContext(ctx); c.err == nil {
			c.done()
		}
	})
	if c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(b)
}

type streamAddr string

// Network implements net.Addr.
func (streamAddr) Network() string { return "tcp" }

// String implements net.Addr.
func (a streamAddr) String() string { return string(a) }
