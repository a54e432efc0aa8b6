package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// NodeLifetime is how long a certificate is good that a node got by itself. It
// gets the next one after two thirds of that.
const NodeLifetime = 30 * 24 * time.Hour

// maxRequest bounds a certificate request, in bytes.
const maxRequest = 8 << 10

const requestBlock = "CERTIFICATE REQUEST"

// NewRequest makes a key and a request for a certificate, both in PEM. The
// request proves that whoever sends it has the key; whom the certificate is for
// is told apart from it.
func NewRequest() (requestPEM, keyPEM []byte, err error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	requestPEM, err = requestFor(key)
	return requestPEM, keyPEM, err
}

func requestFor(key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "ECS node"}}, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: requestBlock, Bytes: der}), nil
}

// parseRequest reads a request and checks that its sender has the key.
func parseRequest(requestPEM []byte) (*x509.CertificateRequest, error) {
	if len(requestPEM) > maxRequest {
		return nil, fmt.Errorf("the certificate request has %d bytes, the most is %d", len(requestPEM), maxRequest)
	}
	block, rest := pem.Decode(requestPEM)
	if block == nil || block.Type != requestBlock || len(rest) > 0 {
		return nil, fmt.Errorf("want one PEM block %s", requestBlock)
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the certificate request: %w", err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the certificate request is not signed by its own key: %w", err)
	}
	return r, nil
}

// RequestSum tells certificate requests apart.
func RequestSum(requestPEM []byte) ([32]byte, error) {
	r, err := parseRequest(requestPEM)
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(r.Raw), nil
}

// Sign makes the certificate for a request. Nothing in it comes from the request
// but the public key.
func (ca *CA) Sign(requestPEM []byte, id Identity, now time.Time, ttl time.Duration) (certPEM []byte, err error) {
	r, err := parseRequest(requestPEM)
	if err != nil {
		return nil, err
	}
	if err := strong(r.PublicKey); err != nil {
		return nil, err
	}
	return ca.certify(id, r.PublicKey, nil, now, ttl)
}

// Pin tells authorities apart: it is in every join token, so that a node trusts
// no other.
func Pin(caPEM []byte) ([32]byte, error) {
	cert, err := parseCert(caPEM)
	if err != nil {
		return [32]byte{}, err
	}
	if _, err := clusterOf(cert); err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(cert.Raw), nil
}

var errWeakKey = errors.New("the certificate request's key must be ECDSA P-256 or P-384, or Ed25519")
