package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"ecs/control/api"
	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/clusterfiles"
	"ecs/internal/daemon"
	"ecs/internal/pki"
	"ecs/internal/task"
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
	sync  func() error // what bringing the record up to date brings
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	dir := t.TempDir()
	ca, err := clusterfiles.Init(dir, "test", time.Now().Add(-48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, ca: ca, sync: func() error { return nil }}
	a.node, _ = a.issue(pki.RoleControl, "c1", time.Now(), time.Hour)
	a.s = &Server{caught: make(chan struct{}), store: state.NewStore(state.Limits{}), cfg: Config{Authority: &Authority{CA: ca}, Guard: a.node, Peer: pki.FromContext, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.addr = l.Addr().String()
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(a.node.ServerTLS(pki.RoleControl, pki.RoleAgent))))
	rpc.RegisterCertificatesServer(server, &certificates{s: a.s, caught: a.s.caught, sync: func(context.Context) error { return a.sync() }})
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

// A control node that lags does not renew what was revoked at another one.
func TestRenewalIsJudgedByARecordThatIsUpToDate(t *testing.T) {
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
	renew := func() (*ecsv1.RenewAnswer, error) {
		return rpc.NewCertificatesClient(conn).Renew(t.Context(), &ecsv1.RenewRequest{Request: request})
	}
	a.sync = func() error { return errors.New("no leader") }
	if answer, err := renew(); err != nil || answer.GetRefusal().GetCode() != string(task.CodeNoLeader) || len(answer.GetCertificate()) > 0 {
		t.Errorf("got %v, %v without a leader, want a refusal that says so", answer, err)
	}
	a.sync = func() error {
		a.apply(state.RevokeCertificate{Certificate: access.Revoked{Node: "bad"}})
		return nil
	}
	if answer, err := renew(); err == nil {
		t.Errorf("got %v for a revoked node", answer)
	}
}

func TestATokenIsJudgedByTheRecordBeforeAnythingIsSigned(t *testing.T) {
	a := newAuthority(t)
	hash, request := [32]byte{1}, [32]byte{2}
	use := state.SpendToken{Hash: hash, Role: "agent", Node: "n1", Request: request}
	check := func(what string, use state.SpendToken, at time.Time, again, ok bool) {
		t.Helper()
		got, err := admissible(a.s.store.Snapshot(), use, at)
		if ok && (err != nil || got != again) || !ok && !errors.Is(err, &task.Error{Code: task.CodeToken}) {
			t.Errorf("%s: got again %v, %v", what, got, err)
		}
	}
	now := time.Now()
	check("unknown", use, now, false, false)
	a.apply(state.PutToken{Token: access.Token{Hash: hash, Role: "agent", ExpiresAt: now.Add(time.Minute)}})
	check("good", use, now, false, true)
	control := use
	control.Role = "control"
	check("of another role", control, now, false, false)
	check("too old", use, now.Add(2*time.Minute), false, false)
	a.apply(use)
	check("the same again", use, now, true, true)
	long := [32]byte{5}
	a.apply(state.PutToken{Token: access.Token{Hash: long, Role: "agent", ExpiresAt: now.Add(24 * time.Hour)}})
	check("of a node whose clock is wrong", state.SpendToken{Hash: long, Role: "agent", Node: "n3", Request: request}, now.Add(2*time.Hour), false, false)
	other := use
	other.Request, other.Node = [32]byte{3}, "n2"
	check("used by another", other, now, false, false)
	// Whose node was revoked can't get a certificate by asking again.
	a.apply(state.RevokeCertificate{Certificate: access.Revoked{Node: "n1"}})
	check("the same again, revoked", use, now, true, false)
	second := [32]byte{4}
	a.apply(state.PutToken{Token: access.Token{Hash: second, Role: "agent", ExpiresAt: now.Add(time.Minute)}})
	use.Hash = second
	check("another token for the revoked key", use, now, false, false)
}

// A token is worth no more than the key that made it.
func TestATokenEndsWithTheKeyThatMadeIt(t *testing.T) {
	a := newAuthority(t)
	a.s.keyring = api.NewKeyring(nil, access.Run, a.s)
	for _, id := range []string{"maker", "other"} {
		a.apply(state.PutKey{Key: access.Key{ID: id, Role: access.Admin, Hash: "h" + id}})
	}
	a.apply(state.PutKey{Key: access.Key{ID: "runner", Role: access.Run, Hash: "h"}})
	admits := func(hash byte, by string) error {
		use := state.SpendToken{Hash: [32]byte{hash}, Role: "agent", Node: "n1", Request: [32]byte{2}}
		a.apply(state.PutToken{Token: access.Token{Hash: use.Hash, Role: "agent", CreatedBy: by, ExpiresAt: time.Now().Add(time.Minute)}})
		_, err := a.s.admissible(use)
		return err
	}
	if err := admits(1, "maker"); err != nil {
		t.Error(err)
	}
	a.apply(state.RevokeKey{ID: "maker", By: "other"})
	for i, by := range []string{"maker", "nobody", "runner"} {
		if err := admits(byte(1+i), by); !errors.Is(err, &task.Error{Code: task.CodeToken}) {
			t.Errorf("a token that %s made: got %v", by, err)
		}
	}
}

func TestAgentsAreToldNothingByARecordThatIsBehind(t *testing.T) {
	a := newAuthority(t)
	agent, _ := a.issue(pki.RoleAgent, "a1", time.Now(), time.Hour)
	conn, err := daemon.Dialer(agent, pki.RoleControl)(a.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := rpc.NewCertificatesClient(conn).Revoked(t.Context(), &ecsv1.WatchRevoked{})
	if err != nil {
		t.Fatal(err)
	}
	// The first word is said after the record has come, and says how far.
	a.apply(state.RevokeCertificate{Certificate: access.Revoked{Serial: "ab"}})
	close(a.s.caught)
	all, err := stream.Recv()
	if err != nil || len(all.GetCertificates()) != 1 || all.GetIndex() != a.index {
		t.Errorf("got %v, %v, want the revocation as of index %d", all, err, a.index)
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
	close(a.s.caught)
	until(t, "the agent refuses it", func(context.Context) error { return nil }, refused)
	cancel()
	<-watched
}
