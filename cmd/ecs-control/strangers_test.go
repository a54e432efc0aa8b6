package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/emptypb"

	"ecs/internal/pki"
	"ecs/proto/api"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// certificate is one of some authority's, as a client shows it.
func certificate(t *testing.T, ca *pki.CA, role pki.Role, id string, from time.Time, ttl time.Duration) *tls.Certificate {
	t.Helper()
	cert, key, err := ca.Issue(pki.Identity{Cluster: ca.Cluster(), Role: role, ID: id}, nil, from, ttl)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return &pair
}

// strange is a configuration that shows a certificate, whatever the other end
// asks for; nil: none.
func strange(cert *tls.Certificate) *tls.Config {
	c := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if cert == nil {
			return new(tls.Certificate), nil
		}
		return cert, nil
	}
	return c
}

// admitted reports whether a port keeps a connection: under TLS 1.3 a client
// learns of its refusal at its first read.
func admitted(t *testing.T, addr string, c *tls.Config) bool {
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

// TestStrangersAreRefusedAtEveryPort holds the ports of a node that runs against
// every certificate that must not count.
func TestStrangersAreRefusedAtEveryPort(t *testing.T) {
	n := startLive(t)
	now := time.Now()
	foreign, err := pki.NewCA("test", now) // of the same name
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.NewCA("other", now)
	if err != nil {
		t.Fatal(err)
	}
	revoked := certificate(t, n.ca, pki.RoleControl, "gone", now, time.Hour)
	gone := certificate(t, n.ca, pki.RoleAgent, "gone-agent", now, time.Hour)
	if _, err := n.client.RevokeCertificate(t.Context(), api.RevocationRequest{Serial: pki.SerialOf(revoked.Leaf)}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.client.RevokeCertificate(t.Context(), api.RevocationRequest{Node: "gone-agent", Force: true}); err != nil {
		t.Fatal(err)
	}
	node := certificate(t, n.ca, pki.RoleControl, "signer", now, time.Hour)
	control := certificate(t, n.ca, pki.RoleControl, "c9", now, time.Hour)
	agent := certificate(t, n.ca, pki.RoleAgent, "a9", now, time.Hour)
	for name, c := range map[string]struct {
		cert      *tls.Certificate
		rpc, raft bool // let in there
	}{
		"a control node's":                   {control, true, true},
		"an agent's":                         {agent, true, false}, // of the wrong role at Raft's port
		"none":                               {nil, false, false},
		"expired":                            {certificate(t, n.ca, pki.RoleControl, "c8", now.Add(-2*time.Hour), time.Hour), false, false},
		"not valid yet":                      {certificate(t, n.ca, pki.RoleControl, "c7", now.Add(2*time.Hour), time.Hour), false, false},
		"of another authority of that name":  {certificate(t, foreign, pki.RoleControl, "c9", now, time.Hour), false, false},
		"of another cluster":                 {certificate(t, other, pki.RoleControl, "c9", now, time.Hour), false, false},
		"revoked by its number":              {revoked, false, false},
		"revoked with its node":              {gone, false, false},
		"with a node's own in the chain too": {&tls.Certificate{Certificate: append(append([][]byte{}, certificate(t, other, pki.RoleControl, "c9", now, time.Hour).Certificate...), node.Certificate...), PrivateKey: node.PrivateKey}, false, false},
		"of the cluster, with a key not its": {&tls.Certificate{Certificate: control.Certificate, PrivateKey: agent.PrivateKey}, false, false},
	} {
		within(t, 5*time.Second, name+" counts as it should", func() bool {
			return admitted(t, n.rpc, strange(c.cert)) == c.rpc && admitted(t, n.raft, strange(c.cert)) == c.raft
		})
		// Where keys count, certificates of nodes give nothing, good ones or not.
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: strange(c.cert), ForceAttemptHTTP2: true}}
		for url, want := range map[string]int{"https://" + n.http + "/v2/nodes": http.StatusUnauthorized, "http://" + n.health + "/livez": http.StatusOK} {
			resp, err := client.Get(url)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			resp.Body.Close()
			limited := want == http.StatusUnauthorized && resp.StatusCode == http.StatusTooManyRequests
			if resp.StatusCode != want && !limited {
				t.Errorf("%s: got %d of %s, want %d", name, resp.StatusCode, url, want)
			}
		}
		client.CloseIdleConnections()
	}
	if admitted(t, n.rpc, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*control}}) {
		t.Error("nodes may speak TLS 1.2")
	}
	for _, addr := range []string{n.rpc, n.raft} {
		if plainAnswer(t, addr) {
			t.Errorf("%s answers without TLS", addr)
		}
	}
}

// plainAnswer reports whether a port says anything but an alert to who speaks
// HTTP without TLS.
func plainAnswer(t *testing.T, addr string) bool {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		return false
	}
	first := make([]byte, 1)
	_, err = conn.Read(first)
	const alert = 21
	return err == nil && first[0] != alert
}

// as opens a connection to the gRPC port with a certificate of a role.
func (n *live) as(t *testing.T, role pki.Role) *grpc.ClientConn {
	t.Helper()
	creds := credentials.NewTLS(strange(certificate(t, n.ca, role, "stranger", time.Now(), time.Hour)))
	conn, err := grpc.NewClient("passthrough:///"+n.rpc, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestEachRoleMayCallOnlyWhatIsForIt tries every call that control nodes have for
// one another, those that come later too.
func TestEachRoleMayCallOnlyWhatIsForIt(t *testing.T) {
	n := startLive(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	agent := n.as(t, pki.RoleAgent)
	calls := 0
	for _, service := range []grpc.ServiceDesc{rpc.Peers_ServiceDesc, rpc.Logs_ServiceDesc} {
		for _, method := range service.Methods {
			calls++
			name := "/" + service.ServiceName + "/" + method.MethodName
			if err := agent.Invoke(ctx, name, &emptypb.Empty{}, &emptypb.Empty{}); err == nil || !strings.Contains(err.Error(), "may not") {
				t.Errorf("%s as an agent: got %v, want that it may not", name, err)
			}
		}
		if len(service.Streams) > 0 {
			t.Errorf("%s has streams: try them here", service.ServiceName)
		}
	}
	if calls < 8 {
		t.Errorf("tried %d calls, want all", calls)
	}
	// Sessions are for agents, each for itself.
	for role, node := range map[pki.Role]string{pki.RoleControl: "stranger", pki.RoleAgent: "another"} {
		session, err := rpc.NewSessionsClient(n.as(t, role)).Session(ctx)
		if err != nil {
			t.Fatal(err)
		}
		hello := &ecsv1.AgentMessage{Kind: &ecsv1.AgentMessage_Hello{Hello: &ecsv1.Hello{Node: &ecsv1.Node{Id: node}}}}
		if err := session.Send(hello); err != nil {
			t.Fatal(err)
		}
		if got, err := session.Recv(); err != nil || !strings.Contains(got.GetRefused().GetReason(), "the certificate is for") {
			t.Errorf("a session of %s as %s: got %v, %v", node, role, got, err)
		}
	}
}
