package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

func newCA(t testing.TB, cluster string) *CA {
	t.Helper()
	ca, err := NewCA(cluster, time.Now().Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// issue makes a node of ca whose certificate was issued at `at` for ttl.
func issue(t testing.TB, ca *CA, role Role, id string, at time.Time, ttl time.Duration) *Node {
	t.Helper()
	cert, key, err := ca.Issue(Identity{ca.Cluster(), role, id}, []string{"localhost", "10.0.0.1"}, at, ttl)
	if err != nil {
		t.Fatal(err)
	}
	n, err := NewNode(ca.CertPEM(), cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// handshake runs one TLS connection over loopback and gives what either end
// made of it. A byte goes each way, because a TLS 1.3 client learns of its
// refusal only when it reads.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		done <- exchange(tls.Server(conn, server))
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	clientErr = exchange(tls.Client(conn, client))
	conn.Close()
	return <-done, clientErr
}

func exchange(conn *tls.Conn) error {
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if err := conn.Handshake(); err != nil {
		return err
	}
	if _, err := conn.Write([]byte{1}); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

func TestNodesOfOneClusterTalk(t *testing.T) {
	ca := newCA(t, "prod")
	control := issue(t, ca, RoleControl, "c1", time.Now(), time.Hour)
	agent := issue(t, ca, RoleAgent, "a1", time.Now(), time.Hour)

	var seen Identity
	server := control.ServerTLS(RoleControl, RoleAgent)
	verify := server.VerifyConnection
	server.VerifyConnection = func(s tls.ConnectionState) (err error) {
		if err = verify(s); err == nil {
			seen, err = IdentityOf(s)
		}
		return err
	}
	serverErr, clientErr := handshake(t, server, agent.ClientTLS(RoleControl))
	if serverErr != nil || clientErr != nil {
		t.Fatalf("got %v and %v, want a connection", serverErr, clientErr)
	}
	if want := (Identity{"prod", RoleAgent, "a1"}); seen != want {
		t.Errorf("server saw %v, want %v", seen, want)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	ca, other := newCA(t, "prod"), newCA(t, "prod") // same name, another key
	now := time.Now()
	control := issue(t, ca, RoleControl, "c1", now, time.Hour)
	agent := issue(t, ca, RoleAgent, "a1", now, time.Hour)
	stale := now.Add(-2 * time.Hour)
	noCert := agent.ClientTLS(RoleControl)
	noCert.GetClientCertificate = nil
	tls12 := agent.ClientTLS(RoleControl)
	tls12.MinVersion, tls12.MaxVersion = tls.VersionTLS12, tls.VersionTLS12

	for _, c := range []struct {
		name           string
		server, client *tls.Config
		byServer       bool // who refuses
		want           string
	}{
		{"client of another authority", control.ServerTLS(RoleAgent),
			issue(t, other, RoleAgent, "a1", now, time.Hour).ClientTLS(RoleControl), false, "signed by unknown authority"},
		{"client of another authority that trusts the server", control.ServerTLS(RoleAgent),
			trusting(issue(t, other, RoleAgent, "a1", now, time.Hour).ClientTLS(RoleControl)), true, "signed by unknown authority"},
		{"server of another authority", trusting(issue(t, other, RoleControl, "c1", now, time.Hour).ServerTLS(RoleAgent)),
			agent.ClientTLS(RoleControl), false, "signed by unknown authority"},
		{"client of the wrong role", control.ServerTLS(RoleControl), agent.ClientTLS(RoleControl), true, "may not do this"},
		{"server of the wrong role", issue(t, ca, RoleAgent, "a2", now, time.Hour).ServerTLS(RoleAgent),
			agent.ClientTLS(RoleControl), false, "may not do this"},
		{"client allowed no role", control.ServerTLS(), agent.ClientTLS(RoleControl), true, "may not do this"},
		{"expired client", control.ServerTLS(RoleAgent),
			issue(t, ca, RoleAgent, "a1", stale, time.Hour).ClientTLS(RoleControl), true, "expired"},
		{"expired server", issue(t, ca, RoleControl, "c1", stale, time.Hour).ServerTLS(RoleAgent),
			agent.ClientTLS(RoleControl), false, "expired"},
		{"client not yet valid", control.ServerTLS(RoleAgent),
			issue(t, ca, RoleAgent, "a1", now.Add(time.Hour), time.Hour).ClientTLS(RoleControl), true, "not yet valid"},
		{"client without certificate", control.ServerTLS(RoleAgent), noCert, true, "certificate"},
		{"old TLS", control.ServerTLS(RoleAgent), tls12, true, "version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			serverErr, clientErr := handshake(t, c.server, c.client)
			err := clientErr
			if c.byServer {
				err = serverErr
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got server %v, client %v, want %q (by the server: %v)", serverErr, clientErr, c.want, c.byServer)
			}
			if serverErr == nil || clientErr == nil {
				t.Errorf("got server %v, client %v, want an error at both ends", serverErr, clientErr)
			}
		})
	}
}

// trusting makes an end that would talk to anybody, as an attacker's would.
func trusting(c *tls.Config) *tls.Config {
	c.VerifyConnection = nil
	return c
}

func TestNodeCertificateSignsNobody(t *testing.T) {
	ca := newCA(t, "prod")
	cert, key, err := ca.Issue(Identity{"prod", RoleAgent, "a1"}, nil, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadCA(cert, key); err == nil {
		t.Error("a node's certificate loaded as an authority")
	}
	leaf, _ := parseCert(cert)
	signer, _ := parseKey(key)
	rogue := &CA{cluster: "prod", cert: leaf, key: signer}
	forged, forgedKey, err := rogue.Issue(Identity{"prod", RoleControl, "c9"}, nil, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewNode(ca.CertPEM(), append(forged, cert...), forgedKey); err == nil {
		t.Error("a certificate signed by a node's own was accepted")
	}
}

func TestCertificateNeverOutlivesTheAuthority(t *testing.T) {
	ca := newCA(t, "prod")
	n := issue(t, ca, RoleAgent, "a1", time.Now(), 20*caLifetime)
	if got := n.Expires(); got.After(ca.cert.NotAfter) {
		t.Errorf("got a certificate until %v, want at most %v", got, ca.cert.NotAfter)
	}
}

func TestLoadNodeReadsFiles(t *testing.T) {
	ca := newCA(t, "prod")
	cert, key, err := ca.Issue(Identity{"prod", RoleAgent, "a1"}, nil, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	caFile, certFile, keyFile := file("ca.pem", ca.CertPEM()), file("cert.pem", cert), file("key.pem", key)
	n, err := LoadNode(caFile, certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Identity{"prod", RoleAgent, "a1"}); n.Identity() != want {
		t.Errorf("got %v, want %v", n.Identity(), want)
	}
	reloaded, err := LoadCA(ca.CertPEM(), ca.KeyPEM())
	if err != nil || reloaded.Cluster() != "prod" {
		t.Errorf("got cluster %v and %v, want prod", reloaded, err)
	}

	otherCA := file("other.pem", newCA(t, "prod").CertPEM())
	junk := file("junk.pem", []byte("junk"))
	for name, files := range map[string][3]string{
		"another authority": {otherCA, certFile, keyFile},
		"no authority":      {filepath.Join(dir, "none"), certFile, keyFile},
		"junk authority":    {junk, certFile, keyFile},
		"junk certificate":  {caFile, junk, keyFile},
		"junk key":          {caFile, certFile, junk},
		"authority as node": {caFile, caFile, keyFile},
	} {
		if _, err := LoadNode(files[0], files[1], files[2]); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	if _, err := LoadCA(ca.CertPEM(), key); err == nil {
		t.Error("authority with another's key: got no error")
	}
}

func TestIssueRefusesWhatIsNotOfTheCluster(t *testing.T) {
	ca := newCA(t, "prod")
	for _, id := range []Identity{
		{"test", RoleAgent, "a1"}, {"prod", "root", "a1"}, {"prod", RoleAgent, ""},
		{"prod", RoleAgent, "a/b"}, {"prod", RoleAgent, "ä"}, {"prod", RoleAgent, strings.Repeat("a", 129)},
	} {
		if _, _, err := ca.Issue(id, nil, time.Now(), time.Hour); err == nil {
			t.Errorf("%v: got a certificate", id)
		}
	}
	for _, name := range []string{"", "a b", "a/b", "a?"} {
		if _, err := NewCA(name, time.Now()); err == nil {
			t.Errorf("cluster %q: got an authority", name)
		}
	}
}

func TestFromContextGivesThePeerOfACall(t *testing.T) {
	ca := newCA(t, "prod")
	n := issue(t, ca, RoleAgent, "a1", time.Now(), time.Hour)
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{n.cert.Load().Leaf}}
	ctx := peer.NewContext(context.Background(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: state}})
	if id, err := FromContext(ctx); err != nil || id != n.Identity() {
		t.Errorf("got %v and %v, want %v", id, err, n.Identity())
	}
	for name, ctx := range map[string]context.Context{
		"no call":        context.Background(),
		"no TLS":         peer.NewContext(context.Background(), &peer.Peer{}),
		"no certificate": peer.NewContext(context.Background(), &peer.Peer{AuthInfo: credentials.TLSInfo{}}),
	} {
		if id, err := FromContext(ctx); !errors.Is(err, ErrNoIdentity) {
			t.Errorf("%s: got %v and %v, want ErrNoIdentity", name, id, err)
		}
	}
}

func FuzzParseIdentity(f *testing.F) {
	for _, s := range []string{"ecs://prod/agent/a1", "ecs://prod/agent", "http://prod/agent/a1", "ecs:///agent/a1", "ecs://prod/agent/a1?x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseIdentity(s)
		if err == nil && id.String() != s {
			t.Errorf("%q was read as %q", s, id)
		}
	})
}
