package pki

import (
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"weak"
)

// ErrRevoked says that a certificate counts no more.
var ErrRevoked = errors.New("the certificate is revoked")

// guard refuses certificates that were revoked, and cuts the connections that
// they opened before.
type guard struct {
	revoked atomic.Pointer[func(*x509.Certificate) bool]

	mu    sync.Mutex
	conns map[weak.Pointer[net.TCPConn]]*x509.Certificate
}

// Revoked sets what says that a certificate counts no more; it is asked in every
// handshake from now on, by many goroutines, and by Recheck.
func (n *Node) Revoked(revoked func(*x509.Certificate) bool) { n.guard.revoked.Store(&revoked) }

// Recheck cuts the connections from holders of certificates that count no more,
// and says how many those were. Connections to them are not known here: whoever
// made them has to leave them.
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

// admit remembers a connection for as long as somebody else does.
func (g *guard) admit(conn net.Conn, cert *x509.Certificate) {
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
