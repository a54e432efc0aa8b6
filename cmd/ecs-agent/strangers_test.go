package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"time"

	"ecs/agent/output"
	"ecs/agent/spool"
	"ecs/internal/pki"
	"ecs/internal/telemetry"
)

// shown is the configuration of a client with a certificate of an authority.
func shown(t *testing.T, ca *pki.CA, role pki.Role, from time.Time) (*tls.Config, *tls.Certificate) {
	t.Helper()
	cert, key, err := ca.Issue(pki.Identity{Cluster: ca.Cluster(), Role: role, ID: "x"}, nil, from, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }}, &pair
}

// TestTheOutputPortLetsInControlNodesAndAgents holds the port as the daemon serves
// it against every certificate that must not count.
func TestTheOutputPortLetsInControlNodesAndAgents(t *testing.T) {
	now := time.Now()
	ca, err := pki.NewCA("test", now)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := pki.NewCA("test", now)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Issue(pki.Identity{Cluster: "test", Role: pki.RoleAgent, ID: "a1"}, nil, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	o := new(options)
	if o.node, err = pki.NewNode(ca.CertPEM(), cert, key); err != nil {
		t.Fatal(err)
	}
	kept, err := spool.Open(t.TempDir(), 1<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	guard := &output.Guard{Peer: pki.FromContext}
	go func() {
		served <- o.serveOutput(ctx, listener, guard, output.New(kept, guard), output.NewAttach(nil), telemetry.NewLogServer(nil, nil))
	}()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()

	control, _ := shown(t, ca, pki.RoleControl, now)
	gone, revoked := shown(t, ca, pki.RoleControl, now)
	o.node.Revoked(func(c *x509.Certificate) bool { return pki.SerialOf(c) == pki.SerialOf(revoked.Leaf) })
	agent, _ := shown(t, ca, pki.RoleAgent, now)
	expired, _ := shown(t, ca, pki.RoleControl, now.Add(-2*time.Hour))
	stranger, _ := shown(t, foreign, pki.RoleControl, now)
	for _, c := range []struct {
		name   string
		config *tls.Config
		want   bool
	}{
		{"a control node", control, true},
		{"an agent, whose calls the guard judges", agent, true},
		{"an expired certificate", expired, false},
		{"a revoked certificate", gone, false},
		{"another authority's", stranger, false},
		{"none", &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}, false},
	} {
		if got := letIn(t, listener.Addr().String(), c.config); got != c.want {
			t.Errorf("%s: let in %v, want %v", c.name, got, c.want)
		}
	}
}

// letIn reports whether the port keeps a connection: under TLS 1.3 a client learns
// of its refusal at its first read.
func letIn(t *testing.T, addr string, c *tls.Config) bool {
	t.Helper()
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: c}
	conn, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err = conn.Read(make([]byte, 1))
	var waited net.Error
	return err == nil || errors.As(err, &waited) && waited.Timeout()
}
