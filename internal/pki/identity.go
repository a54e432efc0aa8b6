package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Role is what a certificate's holder may do.
type Role string

// The roles.
const (
	RoleControl  Role = "control"
	RoleAgent    Role = "agent"
	RoleOperator Role = "operator" // a person's ecsctl
)

// Identity is who a certificate speaks for. In the certificate it is the URI
// subject alternative name ecs://<cluster>/<role>/<id>.
type Identity struct {
	Cluster string
	Role    Role
	ID      string
}

// ErrNoIdentity says that a connection or certificate carries no identity of
// this service.
var ErrNoIdentity = errors.New("no ecs identity")

const (
	scheme      = "ecs"
	maxNameSize = 128
)

// String gives the identity as it stands in a certificate.
func (id Identity) String() string { return id.uri().String() }

func (id Identity) uri() *url.URL {
	return &url.URL{Scheme: scheme, Host: id.Cluster, Path: "/" + string(id.Role) + "/" + id.ID}
}

// Validate refuses an identity that would not survive the way through a
// certificate: names are letters, digits, '.', '_' and '-', at most 128.
func (id Identity) Validate() error {
	if !validName(id.Cluster) {
		return fmt.Errorf("cluster name %q: want 1 to %d letters, digits, '.', '_' or '-'", id.Cluster, maxNameSize)
	}
	if !validName(id.ID) {
		return fmt.Errorf("node id %q: want 1 to %d letters, digits, '.', '_' or '-'", id.ID, maxNameSize)
	}
	switch id.Role {
	case RoleControl, RoleAgent, RoleOperator:
		return nil
	}
	return fmt.Errorf("role %q: want %s, %s or %s", id.Role, RoleControl, RoleAgent, RoleOperator)
}

func validName(s string) bool {
	if s == "" || len(s) > maxNameSize {
		return false
	}
	for _, c := range s {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// ParseIdentity is the inverse of Identity.String. It accepts nothing that
// String would not have written.
func ParseIdentity(s string) (Identity, error) {
	rest, ok := strings.CutPrefix(s, scheme+"://")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 {
		return Identity{}, fmt.Errorf("%w in %q: want %s://<cluster>/<role>/<id>", ErrNoIdentity, s, scheme)
	}
	id := Identity{Cluster: parts[0], Role: Role(parts[1]), ID: parts[2]}
	if err := id.Validate(); err != nil {
		return Identity{}, fmt.Errorf("%w in %q: %w", ErrNoIdentity, s, err)
	}
	return id, nil
}

// IdentityOf gives the identity of the other end. It trusts the handshake: use
// it only on connections made with ServerTLS or ClientTLS, which verified it.
func IdentityOf(state tls.ConnectionState) (Identity, error) {
	if len(state.PeerCertificates) == 0 {
		return Identity{}, fmt.Errorf("%w: the other end showed no certificate", ErrNoIdentity)
	}
	return identityIn(state.PeerCertificates[0])
}

// identityIn wants exactly one URI: two would let a certificate be two nodes.
func identityIn(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 {
		return Identity{}, fmt.Errorf("%w: the certificate of %q has %d URIs, want 1",
			ErrNoIdentity, cert.Subject.CommonName, len(cert.URIs))
	}
	return ParseIdentity(cert.URIs[0].String())
}

// FromContext gives the identity of the peer of a gRPC call, on servers that
// use ServerTLS.
func FromContext(ctx context.Context) (Identity, error) {
	cert, err := CertificateFromContext(ctx)
	if err != nil {
		return Identity{}, err
	}
	return identityIn(cert)
}

// CertificateFromContext is FromContext for the certificate itself.
func CertificateFromContext(ctx context.Context) (*x509.Certificate, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, fmt.Errorf("%w: not a gRPC call", ErrNoIdentity)
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil, fmt.Errorf("%w: the call from %v is not over TLS", ErrNoIdentity, p.Addr)
	}
	if len(info.State.PeerCertificates) == 0 {
		return nil, fmt.Errorf("%w: the other end showed no certificate", ErrNoIdentity)
	}
	return info.State.PeerCertificates[0], nil
}
