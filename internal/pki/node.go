package pki

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// Node is one node's certificate and the authority it trusts. Its certificate
// may be replaced by a newer one while connections are made; it is safe for
// concurrent use.
type Node struct {
	identity Identity
	caPEM    []byte
	keyPEM   []byte
	cert     atomic.Pointer[tls.Certificate]
	roots    *x509.CertPool
	guard    guard
}

// LoadNode reads the PEM files of the cluster's authority and of a node's
// certificate and key. It refuses a certificate that the authority did not
// sign or that carries no identity of its cluster. One that has expired still
// loads, so that the node can say so (see Expires); peers refuse it.
func LoadNode(caFile, certFile, keyFile string) (*Node, error) {
	caPEM, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return nil, fmt.Errorf("read the node's certificate: %w", err)
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the node's key: %w", err)
	}
	n, err := NewNode(caPEM, certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("use %s with %s: %w", certFile, caFile, err)
	}
	return n, nil
}

// NewNode is LoadNode for what is already in memory.
func NewNode(caPEM, certPEM, keyPEM []byte) (*Node, error) {
	ca, err := parseCert(caPEM)
	if err != nil {
		return nil, fmt.Errorf("parse the authority's certificate: %w", err)
	}
	cluster, err := clusterOf(ca)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("pair the certificate with its key: %w", err)
	}
	n := &Node{caPEM: caPEM, keyPEM: keyPEM, roots: x509.NewCertPool()}
	n.cert.Store(&cert)
	n.roots.AddCert(ca)
	if n.identity, err = identityIn(cert.Leaf); err != nil {
		return nil, err
	}
	if n.identity.Cluster != cluster {
		return nil, fmt.Errorf("the certificate of %s is not of cluster %s", n.identity, cluster)
	}
	// Checked as of the first moment both are valid: expiry is judged later.
	at := cert.Leaf.NotBefore
	if at.Before(ca.NotBefore) {
		at = ca.NotBefore
	}
	if err := n.verifyChain([]*x509.Certificate{cert.Leaf}, x509.ExtKeyUsageClientAuth, at); err != nil {
		return nil, err
	}
	return n, nil
}

// IdentityInFile reads who a certificate speaks for. It checks nothing else.
func IdentityInFile(certFile string) (Identity, error) {
	text, err := os.ReadFile(certFile)
	if err != nil {
		return Identity{}, fmt.Errorf("read the node's certificate: %w", err)
	}
	cert, err := parseCert(text)
	if err != nil {
		return Identity{}, fmt.Errorf("read %s: %w", certFile, err)
	}
	return identityIn(cert)
}

// Identity is who this node is.
func (n *Node) Identity() Identity { return n.identity }

// Expires is when peers begin to refuse this node's certificate.
func (n *Node) Expires() time.Time { return n.cert.Load().Leaf.NotAfter }

// RenewAt is when to get the next certificate: after two thirds of this one's
// life.
func (n *Node) RenewAt() time.Time {
	leaf := n.cert.Load().Leaf
	return leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
}

// Request makes a request for the next certificate. The key stays the same, so
// that there is one file to replace and no moment at which two do not go together.
func (n *Node) Request() (requestPEM []byte, err error) {
	key, ok := n.cert.Load().PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("the node's key can't sign")
	}
	return requestFor(key)
}

// Replace puts a newer certificate of the same identity and key in use, for
// connections made from now on.
func (n *Node) Replace(certPEM []byte) error {
	next, err := NewNode(n.caPEM, certPEM, n.keyPEM)
	if err != nil {
		return err
	}
	if next.identity != n.identity {
		return fmt.Errorf("replace the certificate of %s: the new one is for %s", n.identity, next.identity)
	}
	n.cert.Store(next.cert.Load())
	return nil
}

// ServerTLS makes a server configuration that lets in only holders of a valid
// certificate of this cluster with one of the roles; without roles, nobody. A
// client of TLS 1.3 learns of its refusal at its first read, not in its
// handshake.
func (n *Node) ServerTLS(roles ...Role) *tls.Config {
	config := &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return n.cert.Load(), nil },
		ClientAuth:     tls.RequireAnyClientCert, // verified below, once, by our rules
		// A resumed session would skip the look at expiry.
		SessionTicketsDisabled: true,
		VerifyConnection:       n.verifier(x509.ExtKeyUsageClientAuth, roles),
	}
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		own := config.Clone()
		own.GetConfigForClient = nil
		// What gRPC asked of the configuration, such as NextProtos, it asked of
		// a clone; where that names none, what the client offers is taken.
		if len(own.NextProtos) == 0 && slices.Contains(hello.SupportedProtos, "h2") {
			own.NextProtos = []string{"h2"}
		}
		own.VerifyConnection = func(state tls.ConnectionState) error {
			if err := config.VerifyConnection(state); err != nil {
				return err
			}
			return n.guard.admit(hello.Conn, state.PeerCertificates[0])
		}
		return own, nil
	}
	return config
}

// ClientTLS makes a client configuration that talks only to servers with a
// valid certificate of this cluster and one of the roles; without roles, to
// none. The server's host name is not looked at.
func (n *Node) ClientTLS(roles ...Role) *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return n.cert.Load(), nil },
		// Turns off only the check against host names and the system's
		// authorities; VerifyConnection does the checking.
		InsecureSkipVerify: true,
		VerifyConnection:   n.verifier(x509.ExtKeyUsageServerAuth, roles),
	}
}

func (n *Node) verifier(usage x509.ExtKeyUsage, roles []Role) func(tls.ConnectionState) error {
	roles = slices.Clone(roles)
	return func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("the other end showed no certificate")
		}
		if err := n.verifyChain(state.PeerCertificates, usage, time.Now()); err != nil {
			return err
		}
		if n.guard.refuses(state.PeerCertificates[0]) {
			return fmt.Errorf("%w: that of %q", ErrRevoked, state.PeerCertificates[0].Subject.CommonName)
		}
		id, err := IdentityOf(state)
		if err != nil {
			return err
		}
		if id.Cluster != n.identity.Cluster {
			return fmt.Errorf("%s is of another cluster than %s", id, n.identity)
		}
		if !slices.Contains(roles, id.Role) {
			return fmt.Errorf("%s may not do this: want a role of %v", id, roles)
		}
		return nil
	}
}

// verifyChain trusts only certificates that the authority signed itself: the
// chain has no intermediates, whatever else the other end sends.
func (n *Node) verifyChain(certs []*x509.Certificate, usage x509.ExtKeyUsage, at time.Time) error {
	_, err := certs[0].Verify(x509.VerifyOptions{
		Roots:       n.roots,
		CurrentTime: at,
		KeyUsages:   []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return fmt.Errorf("verify the certificate of %q: %w", certs[0].Subject.CommonName, err)
	}
	return nil
}
