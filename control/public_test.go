package control

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"ecs/control/api"
	"ecs/internal/clusterfiles"
	"ecs/internal/pki"
	"ecs/internal/publictls"
)

// publicSource is TLS with some certificate.
func publicSource(t *testing.T, ttl time.Duration) *publictls.Source {
	t.Helper()
	dir := t.TempDir()
	ca, err := clusterfiles.Init(dir, "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := clusterfiles.IssueNode(ca, pki.Identity{Cluster: "test", Role: pki.RoleControl, ID: "c1"}, dir, []string{"127.0.0.1"}, time.Now(), ttl); err != nil {
		t.Fatal(err)
	}
	s, _, err := publictls.New(publictls.Config{Pairs: []publictls.Pair{{Cert: dir + "/" + clusterfiles.NodeCert, Key: dir + "/" + clusterfiles.NodeKey}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPublicPortSpeaksHTTP2OverTLS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })
	go func() {
		served <- s.serveHTTP(ctx, l, publicSource(t, time.Hour).TLS(), handler, func() {})
	}()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("https://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(body) != "HTTP/2.0" {
		t.Errorf("got %q, %v, want HTTP/2", body, err)
	}
	if resp, err := http.Get("http://" + l.Addr().String()); err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("got %d without TLS", resp.StatusCode)
		}
	}
	cancel()
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestHealthIsRedWithAnExpiredPublicCertificate(t *testing.T) {
	s := &Server{cfg: Config{PublicNotAfter: publicSource(t, -time.Minute).NotAfter}}
	if c := s.checkCertificate(); c.OK || c.Detail == "" {
		t.Errorf("got %+v, want it red", c)
	}
	s.cfg.PublicNotAfter = publicSource(t, time.Minute).NotAfter
	if c := s.checkCertificate(); !c.OK {
		t.Errorf("got %+v, want it green", c)
	}
}

func TestPortWithoutTLSSendsEverybodyThere(t *testing.T) {
	for _, tt := range []struct {
		method, host, port, want string
		status                   int
	}{
		{"GET", "example.org", "443", "https://example.org/v2/tasks?a=b", http.StatusMovedPermanently},
		{"POST", "example.org:80", "443", "https://example.org/v2/tasks?a=b", http.StatusPermanentRedirect},
		{"GET", "example.org:80", "8448", "https://example.org:8448/v2/tasks?a=b", http.StatusMovedPermanently},
		{"GET", "[2001:db8::1]:80", "443", "https://[2001:db8::1]:443/v2/tasks?a=b", http.StatusMovedPermanently},
		{"GET", "", "443", "", http.StatusBadRequest},
		{"GET", "a/b", "443", "", http.StatusBadRequest},
		{"GET", "u@evil.org", "443", "", http.StatusBadRequest},
	} {
		r := httptest.NewRequest(tt.method, "http://x/v2/tasks?a=b", nil)
		r.Host = tt.host
		rec := httptest.NewRecorder()
		api.NewRedirect(tt.port).ServeHTTP(rec, r)
		if got := rec.Header().Get("Location"); rec.Code != tt.status || got != tt.want {
			t.Errorf("%s %q: got %d to %q, want %d to %q", tt.method, tt.host, rec.Code, got, tt.status, tt.want)
		}
	}
}
