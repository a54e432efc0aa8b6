package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ecs/internal/clusterfiles"
	"ecs/internal/daemon"
	"ecs/internal/pki"
	"ecs/proto/api"
)

// said is a daemon's log, while it is written.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for late := time.Now().Add(limit); !ok(); <-look.C {
		if time.Now().After(late) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func freeAddrs(t *testing.T, n int) []string {
	t.Helper()
	addrs := make([]string, n)
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addrs[i] = l.Addr().String()
	}
	return addrs
}

// live is one control node as a deployment would run it: with TLS, and without an
// htpasswd file.
type live struct {
	ca                              *pki.CA
	http, health, rpc, raft, gossip string // addresses
	log                             said
	id, secret                      string // of the first admin key
	client                          *api.Client
}

// startLive runs the node until the test ends.
func startLive(t *testing.T) *live {
	t.Helper()
	dir, flags := settings(t, pki.RoleControl)
	file := func(name string) string { return filepath.Join(dir, name) }
	addrs := freeAddrs(t, 5)
	n := &live{http: addrs[0], health: addrs[1], rpc: addrs[2], raft: addrs[3], gossip: addrs[4]}
	flags = append(flags, "--htpasswd", "", "--zone", "a", "--bootstrap-expect", "1", "--drain", "0s", "--ca-key", file(clusterfiles.CAKey),
		"--tls-cert", file("public.crt"), "--tls-key", file("public.key"),
		"--http-addr", n.http, "--health-addr", n.health, "--rpc-addr", n.rpc, "--raft-addr", n.raft, "--gossip-addr", n.gossip)
	var err error
	if n.ca, err = clusterfiles.OpenCA(dir); err != nil {
		t.Fatal(err)
	}
	cert, key, err := n.ca.Issue(pki.Identity{Cluster: "test", Role: pki.RoleControl, ID: "public"}, []string{"127.0.0.1"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(file("public.crt"), cert, 0o600), os.WriteFile(file("public.key"), key, 0o600)); err != nil {
		t.Fatal(err)
	}
	signals, ended := make(chan os.Signal, 2), make(chan int, 1)
	go func() { ended <- program().Main(flags, &n.log, &n.log, signals) }()
	t.Cleanup(func() {
		signals <- os.Interrupt
		if status := <-ended; status != daemon.ExitOK {
			t.Errorf("got status %d: %s", status, n.log.String())
		}
	})
	var first []byte
	within(t, 30*time.Second, "the first admin key", func() bool {
		first, err = os.ReadFile(file("data/" + firstKeyFile))
		return err == nil && bytes.HasSuffix(first, []byte("\n")) && strings.Contains(n.log.String(), "first admin key made")
	})
	n.id, n.secret, _ = strings.Cut(strings.TrimSpace(string(first)), ":")
	if n.client, err = api.New([]string{"https://" + n.http}, n.id, n.secret, api.WithRoots(n.roots())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.client.Close)
	return n
}

// roots are what clients of the HTTP port trust.
func (n *live) roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(n.ca.CertPEM())
	return roots
}

// TestANewClusterLetsItsOperatorInOverTLS goes from the first admin key to the
// certificate of a new node.
func TestANewClusterLetsItsOperatorInOverTLS(t *testing.T) {
	n := startLive(t)
	fromTokenToNode(t, n.client, n.ca)
	if keys, err := n.client.Keys(t.Context()); err != nil || len(keys) != 1 || keys[0].ID != n.id || keys[0].Role != api.RoleAdmin {
		t.Errorf("got %+v, %v", keys, err)
	}
	if _, err := n.client.RevokeKey(t.Context(), n.id); !errors.Is(err, &api.Problem{Code: api.CodeLastAdmin}) {
		t.Errorf("got %v for the last admin key", err)
	}
	if strings.Contains(n.log.String(), n.secret) {
		t.Error("the secret is in the log")
	}
}

// fromTokenToNode lets one node in, once, and revokes it.
func fromTokenToNode(t *testing.T, client *api.Client, ca *pki.CA) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	made, err := client.MakeToken(ctx, api.TokenRequest{Role: api.NodeAgent})
	if err != nil {
		t.Fatal(err)
	}
	request, key, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	ask := api.Admission{Token: made.Token, Role: api.NodeControl, Request: string(request)}
	if _, err := client.Admit(ctx, ask); !errors.Is(err, &api.Problem{Code: api.CodeToken}) {
		t.Errorf("got %v for an agent's token as a control node", err)
	}
	ask.Role = api.NodeAgent
	got, err := client.Admit(ctx, ask)
	if err != nil {
		t.Fatal(err)
	}
	node, err := pki.NewNode(ca.CertPEM(), []byte(got.Certificate), key)
	if err != nil || node.Identity() != (pki.Identity{Cluster: "test", Role: pki.RoleAgent, ID: got.Node}) || got.SealKey != "" || len(got.Join) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	other, _, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	ask.Request = string(other)
	if _, err := client.Admit(ctx, ask); !errors.Is(err, &api.Problem{Code: api.CodeToken}) {
		t.Errorf("got %v for a token that was used", err)
	}
	if _, err := client.RevokeCertificate(ctx, api.RevocationRequest{Node: got.Node}); err != nil {
		t.Error(err)
	}
	if list, err := client.Revocations(ctx); err != nil || len(list) != 1 || list[0].Node != got.Node {
		t.Errorf("got %+v, %v", list, err)
	}
}
