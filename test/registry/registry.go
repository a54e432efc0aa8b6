// Package registry is a stand-in for Docker Hub and other registries, for tests.
//
// It speaks the registry protocol (v2) over an in-memory store, can demand
// tokens the way Docker Hub does, can hide what is missing or private behind
// 401 or 403, and can be told to misbehave. A real engine pulls from it when it
// listens on a loopback address, which engines allow without TLS.
//
// It is safe for concurrent use and never part of a running cluster.
package registry

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// Registry is an http.Handler. Without a call of RequireTokens it is open to
// everybody and says of a missing image that it is missing (404
// MANIFEST_UNKNOWN or NAME_UNKNOWN).
type Registry struct {
	store http.Handler // the protocol and the bytes

	mu struct {
		sync.Mutex
		tokens   bool
		hideAs   int                 // 0: says so
		users    map[string]string   // name to password
		private  map[string][]string // repository to the users who may pull
		repos    map[string]bool
		granted  map[string]string // token to user, "" for anonymous
		faults   map[string]*fault // by repository, "" for all
		requests []string
	}
	serial uint64 // under mu: makes tokens distinct
}

// New returns an empty registry that listens nowhere.
func New() *Registry {
	r := &Registry{store: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	r.mu.users = map[string]string{}
	r.mu.private = map[string][]string{}
	r.mu.repos = map[string]bool{}
	r.mu.granted = map[string]string{}
	r.mu.faults = map[string]*fault{}
	return r
}

// Requests returns every request so far as "METHOD path", in order.
func (r *Registry) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.mu.requests)
}

// Count says how many requests so far began with prefix, as in
// "HEAD /v2/team/app/manifests/".
func (r *Registry) Count(prefix string) int {
	n := 0
	for _, req := range r.Requests() {
		if strings.HasPrefix(req, prefix) {
			n++
		}
	}
	return n
}

// ServeHTTP answers one request of the registry protocol or of the token
// endpoint, which is /token.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.mu.requests = append(r.mu.requests, req.Method+" "+req.URL.Path)
	r.mu.Unlock()

	repo := repository(req.URL.Path)
	w, ended := r.misbehave(w, req, repo)
	if ended {
		return
	}
	if req.URL.Path == "/token" {
		r.token(w, req)
		return
	}
	if !r.admit(w, req, repo) {
		return
	}
	if strings.Contains(req.URL.Path, "/manifests/") && !r.known(repo) {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
		return
	}
	r.store.ServeHTTP(w, req)
}

func (r *Registry) known(repo string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.repos[repo]
}

// repository takes "team/app" out of "/v2/team/app/manifests/latest", and
// nothing out of a path that names no repository.
func repository(path string) string {
	path, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return ""
	}
	for _, kind := range []string{"/manifests/", "/blobs/", "/tags/"} {
		if i := strings.LastIndex(path, kind); i > 0 {
			return path[:i]
		}
	}
	return ""
}

// refuse writes an error in the registry's form.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

// Server is a registry that listens.
type Server struct {
	listener net.Listener
	http     *http.Server
	served   chan error
}

// Listen serves the registry on addr ("127.0.0.1:0" for any free port) until
// Close.
func (r *Registry) Listen(addr string) (*Server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for the registry: %w", err)
	}
	s := &Server{
		listener: l,
		http: &http.Server{
			Handler:           r,
			ReadHeaderTimeout: 5 * time.Second,
			ErrorLog:          log.New(io.Discard, "", 0),
		},
		served: make(chan error, 1),
	}
	go func() { s.served <- s.http.Serve(l) }()
	return s, nil
}

// Host is the registry's name in an image reference, as in "127.0.0.1:41234".
func (s *Server) Host() string { return s.listener.Addr().String() }

// Close ends every connection, stalled ones too, and waits for the listener.
func (s *Server) Close() error {
	err := s.http.Close()
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		return errors.Join(err, served)
	}
	return err
}
