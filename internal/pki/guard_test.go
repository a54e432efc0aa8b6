package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

func TestRevokedCertificatesAreRefusedByBothEnds(t *testing.T) {
	ca := newCA(t, "prod")
	control, agent := issue(t, ca, RoleControl, "c1", time.Now(), time.Hour), issue(t, ca, RoleAgent, "a1", time.Now(), time.Hour)
	if serverErr, clientErr := handshake(t, control.ServerTLS(RoleAgent), agent.ClientTLS(RoleControl)); serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	of := func(n *Node) func(*x509.Certificate) bool {
		serial := SerialOf(n.cert.Load().Leaf)
		return func(c *x509.Certificate) bool { return SerialOf(c) == serial }
	}
	control.Revoked(of(agent))
	if serverErr, _ := handshake(t, control.ServerTLS(RoleAgent), agent.ClientTLS(RoleControl)); !errors.Is(serverErr, ErrRevoked) {
		t.Errorf("a server takes a revoked client: %v", serverErr)
	}
	control.Revoked(func(*x509.Certificate) bool { return false })
	agent.Revoked(of(control))
	if _, clientErr := handshake(t, control.ServerTLS(RoleAgent), agent.ClientTLS(RoleControl)); !errors.Is(clientErr, ErrRevoked) {
		t.Errorf("a client takes a revoked server: %v", clientErr)
	}
}

func TestRecheckCutsTheConnectionsOfRevokedCertificates(t *testing.T) {
	ca := newCA(t, "prod")
	control := issue(t, ca, RoleControl, "c1", time.Now(), time.Hour)
	good, bad := issue(t, ca, RoleAgent, "good", time.Now(), time.Hour), issue(t, ca, RoleAgent, "bad", time.Now(), time.Hour)
	l, err := tls.Listen("tcp", "127.0.0.1:0", control.ServerTLS(RoleAgent))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connect := func(n *Node) (client, server net.Conn) {
		accepted := make(chan net.Conn, 1)
		go func() {
			c, err := l.Accept()
			if err == nil {
				_, err = io.ReadFull(c, make([]byte, 1))
			}
			if err != nil {
				t.Error(err)
			}
			accepted <- c
		}()
		c, err := tls.Dial("tcp", l.Addr().String(), n.ClientTLS(RoleControl))
		if err == nil {
			_, err = c.Write([]byte{1})
		}
		if err != nil {
			t.Fatal(err)
		}
		return c, <-accepted
	}
	goodClient, goodServer := connect(good)
	badClient, badServer := connect(bad)
	for _, c := range []net.Conn{goodClient, goodServer, badClient, badServer} {
		defer c.Close()
	}
	serial := SerialOf(bad.cert.Load().Leaf)
	control.Revoked(func(c *x509.Certificate) bool { return SerialOf(c) == serial })
	if cut := control.Recheck(); cut != 1 {
		t.Errorf("got %d connections cut, want 1", cut)
	}
	badClient.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := badClient.Read(make([]byte, 1)); err == nil || errors.Is(err, errTimeout) {
		t.Errorf("got %v on the revoked one's connection, want it cut", err)
	}
	if _, err := goodServer.Write([]byte{2}); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(goodClient, make([]byte, 1)); err != nil {
		t.Errorf("another's connection was cut: %v", err)
	}
}

// A node that was revoked is not talked to either: what this one dialled before is
// cut as well, whether plain or gRPC's.
func TestRecheckCutsTheConnectionsToRevokedNodes(t *testing.T) {
	ca := newCA(t, "prod")
	leader, follower := issue(t, ca, RoleControl, "c1", time.Now(), time.Hour), issue(t, ca, RoleControl, "c2", time.Now(), time.Hour)
	l, err := tls.Listen("tcp", "127.0.0.1:0", follower.ServerTLS(RoleControl))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = c.Write([]byte{1}) // the handshake, and then silence
		}
	}()
	defer func() { l.Close(); <-served }()
	plain := func() (net.Conn, error) { return leader.DialFunc(RoleControl)(t.Context(), l.Addr().String()) }
	grpc := func() (net.Conn, error) {
		raw, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		conn, _, err := leader.ClientCredentials(RoleControl).Clone().ClientHandshake(t.Context(), l.Addr().String(), raw)
		return conn, err
	}
	var open []net.Conn
	for _, dial := range []func() (net.Conn, error){plain, grpc} {
		conn, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
	}
	leader.Revoked(func(c *x509.Certificate) bool { return c.Subject.CommonName == "c2" })
	if cut := leader.Recheck(); cut != len(open) {
		t.Errorf("got %d connections cut, want %d", cut, len(open))
	}
	for _, conn := range open {
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v on a connection to a revoked node, want it closed", err)
		}
	}
	for _, dial := range []func() (net.Conn, error){plain, grpc} {
		if _, err := dial(); !errors.Is(err, ErrRevoked) {
			t.Errorf("got %v from a new connection to a revoked node", err)
		}
	}
}

// A revocation that comes between the check of a certificate and the moment from
// which Recheck knows the connection is not missed.
func TestARevocationDuringTheHandshakeCounts(t *testing.T) {
	ca := newCA(t, "prod")
	control, agent := issue(t, ca, RoleControl, "c1", time.Now(), time.Hour), issue(t, ca, RoleAgent, "a1", time.Now(), time.Hour)
	asked := 0
	control.Revoked(func(*x509.Certificate) bool { asked++; return asked > 1 })
	if serverErr, _ := handshake(t, control.ServerTLS(RoleAgent), agent.ClientTLS(RoleControl)); !errors.Is(serverErr, ErrRevoked) {
		t.Errorf("got %v, want it refused", serverErr)
	}
}

var errTimeout net.Error = &net.DNSError{IsTimeout: true}

func TestACertificateIsReplacedWhileItIsInUse(t *testing.T) {
	ca := newCA(t, "prod")
	control, agent := issue(t, ca, RoleControl, "c1", time.Now(), time.Hour), issue(t, ca, RoleAgent, "a1", time.Now().Add(-2*time.Hour), time.Hour)
	server, client := control.ServerTLS(RoleAgent), agent.ClientTLS(RoleControl)
	if serverErr, _ := handshake(t, server, client); serverErr == nil {
		t.Fatal("an expired certificate is taken")
	}
	if !agent.RenewAt().Before(time.Now()) {
		t.Errorf("got %v to renew at", agent.RenewAt())
	}
	request, err := agent.Request()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Sign(request, agent.Identity(), time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Replace(cert); err != nil {
		t.Fatal(err)
	}
	if serverErr, clientErr := handshake(t, server, client); serverErr != nil || clientErr != nil {
		t.Errorf("the new certificate is not in use: %v, %v", serverErr, clientErr)
	}
	other, err := ca.Sign(request, Identity{"prod", RoleAgent, "a2"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := newCA(t, "prod").Sign(request, agent.Identity(), time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	keyless, _, err := ca.Issue(agent.Identity(), nil, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if agent.Replace(other) == nil || agent.Replace(foreign) == nil || agent.Replace(keyless) == nil {
		t.Error("a certificate of another node or authority, or one without its key, is put in use")
	}
}

func TestOnlySoundRequestsAreSigned(t *testing.T) {
	ca := newCA(t, "prod")
	id := Identity{"prod", RoleAgent, "a1"}
	request, _, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, weak)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(request)
	block.Bytes[len(block.Bytes)-1] ^= 1
	for name, bad := range map[string][]byte{"nothing": nil, "no PEM": []byte("x"), "two": append(bytes.Clone(request), request...), "long": make([]byte, maxRequest+1),
		"RSA": pem.EncodeToMemory(&pem.Block{Type: requestBlock, Bytes: der}), "changed": pem.EncodeToMemory(block), "a certificate": ca.CertPEM()} {
		if _, err := ca.Sign(bad, id, time.Now(), time.Hour); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if _, err := ca.Sign(request, Identity{"other", RoleAgent, "a1"}, time.Now(), time.Hour); err == nil {
		t.Error("signed for another cluster")
	}
	cert, err := ca.Sign(request, id, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := parseCert(cert)
	if err != nil || leaf.IsCA || len(leaf.DNSNames) > 0 || leaf.URIs[0].String() != id.String() {
		t.Errorf("got %+v, %v", leaf, err)
	}
}

func FuzzParseRequest(f *testing.F) {
	request, _, err := NewRequest()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(request)
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRequest(b); err == nil && r.CheckSignature() != nil {
			t.Error("a request that its key did not sign is taken")
		}
	})
}
