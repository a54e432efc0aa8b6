package docker_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/docker/docker/client"

	"ecs/agent/runtime/docker"
)

// gate stands between a runtime and the engine, to break what a test wants
// broken.
type gate struct {
	host string
	stop func() // as when the engine dies
	cut  func() // as when another takes its place at once
	// fault, when set, sees every request first and reports whether it dealt
	// with it.
	fault atomic.Pointer[func(pass http.Handler, w http.ResponseWriter, r *http.Request) bool]
}

func newGate(t *testing.T, c *client.Client) *gate {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "e.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{host: "unix://" + socket}
	engine, err := client.ParseHostURL(c.DaemonHost())
	if err != nil {
		t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: client.DummyHost})
	pass.FlushInterval = -1
	pass.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	pass.Transport = &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, engine.Scheme, engine.Host+engine.Path)
		}}
	ctx, cancel := context.WithCancel(context.Background())
	var epoch atomic.Pointer[chan struct{}] // closed when the engine goes
	begin := make(chan struct{})
	epoch.Store(&begin)
	server := &http.Server{
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    pass.ErrorLog,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if f := g.fault.Load(); f != nil && (*f)(pass, w, r) {
				return
			}
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			end := *epoch.Load()
			go func() {
				select {
				case <-end:
					cancel()
				case <-ctx.Done():
				}
			}()
			pass.ServeHTTP(w, r.WithContext(ctx))
		}),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	g.stop = func() { cancel(); server.Close() }
	g.cut = func() {
		next := make(chan struct{})
		close(*epoch.Swap(&next))
	}
	t.Cleanup(func() { g.stop(); <-served })
	return g
}

func (g *gate) spoil(f func(pass http.Handler, w http.ResponseWriter, r *http.Request) bool) {
	g.fault.Store(&f)
}

func (g *gate) runtime(t *testing.T, cluster string) *docker.Runtime {
	return runtimeWith(t, docker.Config{Host: g.host, Cluster: cluster, Node: "n1", StateDir: stateDir(t)})
}
