package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"weak"

	"google.golang.org/grpc/credentials"
)

// ErrRevoked says that a certificate counts no more.
var ErrRevoked = errors.New("the certificate is revoked")

// guard refuses certificates that were revoked, and cuts the connections from and
// to their holders.
type guard struct {
	revoked atomic.Pointer[func(*x509.Certificate) bool]

	mu    sync.Mutex
	conns map[weak.Pointer[net.TCPConn]]*x509.Certificate
}

// Revoked sets what says that a certificate counts no more; it is asked in every
// handshake from now on, by many goroutines, and by Recheck.
func (n *Node) Revoked(revoked func(*x509.Certificate) bool) { n.guard.revoked.Store(&revoked) }

// Recheck cuts the connections from and to holders of certificates that count no
// more, and says how many those were.
func (n *Node) Recheck() (cut int) {
	g := &n.guard
	g.mu.Lock()
	var lost []*net.TCPConn
	for conn, cert := range g.conns {
		if g.refuses(cert) {
			if c := conn.Value(); c != nil {
				lost = append(lost, c)
			}
			delete(g.conns, conn)
		}
	}
	g.mu.Unlock()
	for _, c := range lost {
		_ = c.Close() // what reads and writes it hears of it
	}
	return len(lost)
}

// Serial is the number of the node's present certificate.
func (n *Node) Serial() *big.Int { return n.cert.Load().Leaf.SerialNumber }

// SerialOf is how a certificate is named in revocations.
func SerialOf(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }

func (g *guard) refuses(cert *x509.Certificate) bool {
	revoked := g.revoked.Load()
	return revoked != nil && (*revoked)(cert)
}

// admit remembers a connection for as long as somebody else does, and refuses one
// whose certificate was revoked since it was checked.
func (g *guard) admit(conn net.Conn, cert *x509.Certificate) error {
	g.hold(conn, cert)
	// Whoever revokes it from here on finds it in Recheck; what was revoked before
	// is seen now.
	if g.refuses(cert) {
		return fmt.Errorf("%w: that of %q", ErrRevoked, cert.Subject.CommonName)
	}
	return nil
}

func (g *guard) hold(conn net.Conn, cert *x509.Certificate) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return // in memory: of a test
	}
	ref := weak.Make(tcp)
	g.mu.Lock()
	if g.conns == nil {
		g.conns = make(map[weak.Pointer[net.TCPConn]]*x509.Certificate)
	}
	g.conns[ref] = cert
	g.mu.Unlock()
	runtime.AddCleanup(tcp, func(ref weak.Pointer[net.TCPConn]) {
		g.mu.Lock()
		delete(g.conns, ref)
		g.mu.Unlock()
	}, ref)
}

// DialFunc connects over TCP to servers that ClientTLS talks to. Recheck knows
// these connections.
func (n *Node) DialFunc(roles ...Role) func(ctx context.Context, addr string) (net.Conn, error) {
	dialer := &tls.Dialer{Config: n.ClientTLS(roles...)}
	return func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		secure, ok := conn.(*tls.Conn)
		if !ok {
			return nil, errors.Join(fmt.Errorf("dial %s: %T is no TLS", addr, conn), conn.Close())
		}
		if err := n.guard.admit(secure.NetConn(), secure.ConnectionState().PeerCertificates[0]); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return conn, nil
	}
}

// ClientCredentials is ClientTLS for gRPC. Recheck knows these connections.
func (n *Node) ClientCredentials(roles ...Role) credentials.TransportCredentials {
	return &guarded{credentials.NewTLS(n.ClientTLS(roles...)), n}
}

// guarded are credentials whose connections the guard holds.
type guarded struct {
	credentials.TransportCredentials
	node *Node
}

// ClientHandshake implements credentials.TransportCredentials.
func (c *guarded) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, err
	}
	secure, ok := info.(credentials.TLSInfo)
	if !ok || len(secure.State.PeerCertificates) == 0 {
		return nil, nil, errors.Join(fmt.Errorf("%w: the other end showed no certificate", ErrNoIdentity), conn.Close())
	}
	if err := c.node.guard.admit(raw, secure.State.PeerCertificates[0]); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, info, nil
}

// Clone implements credentials.TransportCredentials.
func (c *guarded) Clone() credentials.TransportCredentials {
	return &guarded{c.TransportCredentials.Clone(), c.node}
}
