// Package pki makes and checks the certificates by which nodes of one cluster
// know each other: a cluster's own certificate authority, node certificates
// that carry cluster, role and id, and TLS configurations that let in nobody
// else.
//
// It trusts only the cluster's authority, never the system's, and never a host
// name: nodes move between addresses.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

const (
	caLifetime = 10 * 365 * 24 * time.Hour
	// clockSkew is how far behind the clock of a verifying node may be.
	clockSkew = 10 * time.Minute

	certBlock = "CERTIFICATE"
	keyBlock  = "PRIVATE KEY"
)

// CA is a cluster's certificate authority. It is safe for concurrent use.
type CA struct {
	cluster string
	cert    *x509.Certificate
	key     crypto.Signer
	certPEM []byte
	keyPEM  []byte
}

// NewCA makes the authority of a new cluster, valid for ten years from now.
func NewCA(cluster string, now time.Time) (*CA, error) {
	if !validName(cluster) {
		return nil, fmt.Errorf("cluster name %q: want 1 to %d letters, digits, '.', '_' or '-'", cluster, maxNameSize)
	}
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "ECS cluster " + cluster},
		URIs:                  []*url.URL{{Scheme: scheme, Host: cluster}},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // it signs nodes, never another authority
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the authority of %s: %w", cluster, err)
	}
	return LoadCA(pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der}), keyPEM)
}

// LoadCA reads what CertPEM and KeyPEM gave.
func LoadCA(certPEM, keyPEM []byte) (*CA, error) {
	cert, err := parseCert(certPEM)
	if err != nil {
		return nil, fmt.Errorf("read the authority's certificate: %w", err)
	}
	cluster, err := clusterOf(cert)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("read the authority's key: %w", err)
	}
	if !publicKeysEqual(cert.PublicKey, key.Public()) {
		return nil, errors.New("the authority's key does not belong to its certificate")
	}
	return &CA{cluster: cluster, cert: cert, key: key, certPEM: certPEM, keyPEM: keyPEM}, nil
}

// clusterOf gives the cluster an authority's certificate speaks for.
func clusterOf(ca *x509.Certificate) (string, error) {
	if !ca.IsCA || len(ca.URIs) != 1 || ca.URIs[0].Scheme != scheme || !validName(ca.URIs[0].Host) {
		return "", fmt.Errorf("the certificate of %q is not that of an ECS cluster's authority", ca.Subject.CommonName)
	}
	return ca.URIs[0].Host, nil
}

// Cluster is the name of the cluster the authority belongs to.
func (ca *CA) Cluster() string { return ca.cluster }

// CertPEM is the certificate every node needs.
func (ca *CA) CertPEM() []byte { return ca.certPEM }

// KeyPEM is the private key, PKCS #8. Whoever has it is the whole cluster.
func (ca *CA) KeyPEM() []byte { return ca.keyPEM }

// Issue makes a key and a certificate for id, good as client and as server for
// ttl from now, but never beyond the authority's own end. hosts are the names
// and IP addresses to put in for tools that check them; nodes do not.
func (ca *CA) Issue(id Identity, hosts []string, now time.Time, ttl time.Duration) (certPEM, keyPEM []byte, err error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	certPEM, err = ca.certify(id, key.Public(), hosts, now, ttl)
	return certPEM, keyPEM, err
}

// certify signs a certificate for id and a public key.
func (ca *CA) certify(id Identity, public crypto.PublicKey, hosts []string, now time.Time, ttl time.Duration) ([]byte, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	if id.Cluster != ca.cluster {
		return nil, fmt.Errorf("issue a certificate for %s: the authority is that of cluster %s", id, ca.cluster)
	}
	notAfter := now.Add(ttl)
	if notAfter.After(ca.cert.NotAfter) {
		notAfter = ca.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: id.ID, OrganizationalUnit: []string{string(id.Role)}},
		URIs:         []*url.URL{id.uri()},
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, public, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate for %s: %w", id, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der}), nil
}

// strong refuses public keys that are weaker than those nodes draw.
func strong(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	}
	return errWeakKey
}

func newKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("draw a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a key: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}

// serial draws 127 bits, as RFC 5280 wants them: positive, unique without a
// count to keep.
func serial() *big.Int {
	raw := make([]byte, 16)
	rand.Read(raw) // never fails, see its documentation
	raw[0] &= 0x7f
	raw[15] |= 1 // never zero
	return new(big.Int).SetBytes(raw)
}

func parseCert(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != certBlock {
		return nil, fmt.Errorf("want a PEM block %s", certBlock)
	}
	return x509.ParseCertificate(block.Bytes)
}

func parseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != keyBlock {
		return nil, fmt.Errorf("want a PEM block %s", keyBlock)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T can't sign", key)
	}
	return signer, nil
}

func publicKeysEqual(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}
