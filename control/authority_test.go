package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/clusterfiles"
	"ecs/internal/daemon"
	"ecs/internal/pki"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// authority is a control node's gRPC port over mutual TLS, with a real record
// behind it.
type authority struct {
	t     *testing.T
	ca    *pki.CA
	s     *Server
	node  *pki.Node
	addr  string
	index uint64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	dir := t.TempDir()
	ca, err := clusterfiles.Init(dir, "test", time.Now().Add(-48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, ca: ca}
	a.node, _ = a.issue(pki.RoleControl, "c1", time.Now(), time.Hour)
	a.s = &Server{store: state.NewStore(state.Limits{}), cfg: Config{Authority: &Authority{CA: ca}, Guard: a.node, Peer: pki.FromContext, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.addr = l.Addr().String()
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(a.node.ServerTLS(pki.RoleControl, pki.RoleAgent))))
	rpc.RegisterCertificatesServer(server, &certificates{s: a.s})
	ctx, cancel := context.WithCancel(t.Context())
	served, watched := make(chan error, 1), make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	go func() { watched <- a.s.keepOut(ctx) }()
	t.Cleanup(func() { server.Stop(); cancel(); <-served; <-watched })
	return a
}

// issue gives a node and the file of its certificate.
func (a *authority) issue(role pki.Role, id string, at time.Time, ttl time.Duration) (*pki.Node, string) {
	a.t.Helper()
	dir := a.t.TempDir()
	if err := clusterfiles.IssueNode(a.ca, pki.Identity{Cluster: "test", Role: role, ID: id}, dir, nil, at, ttl); err != nil {
		a.t.Fatal(err)
	}
	authority := filepath.Join(dir, clusterfiles.CACert)
	if err := os.WriteFile(authority, a.ca.CertPEM(), 0o600); err != nil {
		a.t.Fatal(err)
	}
	file := filepath.Join(dir, clusterfiles.NodeCert)
	n, err := pki.LoadNode(authority, file, filepath.Join(dir, clusterfiles.NodeKey))
	if err != nil {
		a.t.Fatal(err)
	}
	return n, file
}

func (a *authority) apply(c state.Command) {
	a.t.Helper()
	b, err := proto.Marshal(&ecsv1.Entry{Commands: []*ecsv1.Command{state.ToWire(c, time.Now())}})
	if err == nil {
		a.index++
		_, err = a.s.store.Apply(a.index, b)
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) renewal(n *pki.Node, file string) *daemon.Renewal {
	return &daemon.Renewal{Node: n, File: file, Controls: func() []string { return []string{"127.0.0.1:1", a.addr} },
		Dial: daemon.Dialer(n, pki.RoleControl), Log: a.s.cfg.Log, Again: 20 * time.Millisecond}
}

// until waits for a condition while run runs.
func until(t *testing.T, what string, run func(context.Context) error, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	for !ok() {
		select {
		case <-look.C:
		case <-late.C:
			t.Errorf("waited in vain: %s", what)
			cancel()
			<-ended
			return
		}
	}
	cancel()
	<-ended
}

func TestANodesCertificateIsRenewedLongBeforeItsEnd(t *testing.T) {
	a := newAuthority(t)
	// Three of its four hours are over.
	n, file := a.issue(pki.RoleAgent, "a1", time.Now().Add(-3*time.Hour), 4*time.Hour)
	before, old := n.Expires(), n.Identity()
	until(t, "a renewed certificate", a.renewal(n, file).Run, func() bool { return n.Expires().After(before.Add(24 * time.Hour)) })
	if n.Identity() != old || time.Until(n.RenewAt()) < 19*24*time.Hour {
		t.Errorf("got %v, to renew at %v", n.Identity(), n.RenewAt())
	}
	again, err := pki.LoadNode(filepath.Join(filepath.Dir(file), clusterfiles.CACert), file, filepath.Join(filepath.Dir(file), clusterfiles.NodeKey))
	if err != nil || !again.Expires().Equal(n.Expires()) {
		t.Errorf("got %v, %v on disk, want the new one", again, err)
	}
}

func TestARevokedNodeGetsNoCertificateAndLosesItsConnections(t *testing.T) {
	a := newAuthority(t)
	n, _ := a.issue(pki.RoleAgent, "bad", time.Now(), time.Hour)
	conn, err := daemon.Dialer(n, pki.RoleControl)(a.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request, err := n.Request()
	if err != nil {
		t.Fatal(err)
	}
	renew := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := rpc.NewCertificatesClient(conn).Renew(ctx, &ecsv1.RenewRequest{Request: request})
		return err
	}
	if err := renew(); err != nil {
		t.Fatal(err)
	}
	a.apply(state.RevokeCertificate{Certificate: access.Revoked{Node: "bad"}})
	until(t, "the revoked one's connection is cut", func(context.Context) error { return nil }, func() bool { return renew() != nil })
	other, _ := a.issue(pki.RoleAgent, "good", time.Now(), time.Hour)
	conn2, err := daemon.Dialer(other, pki.RoleControl)(a.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn2.Close()
	if _, err := rpc.NewCertificatesClient(conn2).Renew(t.Context(), &ecsv1.RenewRequest{Request: request}); err != nil {
		t.Errorf("another node is refused: %v", err)
	}
}

func TestRevocationOfANodeCountsForCertificatesOfBefore(t *testing.T) {
	a := newAuthority(t)
	leaf := func(at time.Time) *x509.Certificate {
		return &x509.Certificate{SerialNumber: a.node.Serial(), NotBefore: at}
	}
	old := leaf(time.Now().Add(-time.Hour))
	old.Subject.CommonName = "n1"
	if a.s.revoked(old) {
		t.Error("nothing is revoked yet")
	}
	a.apply(state.RevokeCertificate{Certificate: access.Revoked{Node: "n1"}})
	later := leaf(time.Now().Add(time.Minute))
	later.Subject.CommonName = "n1"
	if !a.s.revoked(old) || a.s.revoked(later) {
		t.Errorf("got old %v, later %v", a.s.revoked(old), a.s.revoked(later))
	}
	a.apply(state.RevokeCertificate{Certificate: access.Revoked{Serial: pki.SerialOf(later)}})
	if !a.s.revoked(later) {
		t.Error("a serial number does not count")
	}
}

func TestAgentsAreToldWhatIsRevoked(t *testing.T) {
	a := newAuthority(t)
	agent, _ := a.issue(pki.RoleAgent, "a1", time.Now(), time.Hour)
	bad, _ := a.issue(pki.RoleControl, "bad", time.Now(), time.Hour)
	l, err := tls.Listen("tcp", "127.0.0.1:0", agent.ServerTLS(pki.RoleControl))
	if err != nil {
		t.Fatal(err)
	}
	accepting := make(chan struct{})
	go func() { // the agent's output port
		defer close(accepting)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte{1}) // who is refused hears of it
			conn.Close()
		}
	}()
	defer func() { l.Close(); <-accepting }()
	refused := func() bool {
		conn, err := tls.Dial("tcp", l.Addr().String(), bad.ClientTLS(pki.RoleAgent))
		if err != nil {
			return true
		}
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
		return err != nil
	}
	if refused() {
		t.Fatal("refused before it was revoked")
	}
	watch := &daemon.RevocationWatch{Node: agent, Controls: func() []string { return []string{a.addr} },
		Dial: daemon.Dialer(agent, pki.RoleControl), Log: a.s.cfg.Log}
	a.apply(state.RevokeCertificate{Certificate: access.Revoked{Serial: "ab"}})
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	go func() { watched <- watch.Run(ctx) }()
	a.apply(state.RevokeCertificate{Certificate: access.Revoked{Node: "bad"}})
	until(t, "the agent refuses it", func(context.Context) error { return nil }, refused)
	cancel()
	<-watched
}
