package api

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"

	"ecs/internal/newcomers"
)

// maxNewcomers bounds the connections that wait for a request and have brought no
// good key yet. One that means it needs milliseconds; the others, half-open ones
// and those that guess, do not take the descriptors from whoever has a key.
const maxNewcomers = 512

// doorman bounds a server's newcomers. Requests in progress are none: they have
// bounds of their own.
type doorman struct {
	set *newcomers.Set

	mu   sync.Mutex
	open map[net.Conn]*visit
}

// visit is what is known of an open connection.
type visit struct {
	requests int  // in progress
	known    bool // a good key came over it
}

func (d *doorman) watch(s *http.Server) {
	d.open = make(map[net.Conn]*visit)
	s.ConnState = d.changed
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, visitKey{}, c) }
	next := s.Handler
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(visitKey{}).(net.Conn); ok {
			d.began(c)
			defer d.ended(c)
			r = r.WithContext(context.WithValue(r.Context(), knownKey{}, func() { d.knows(c) }))
		}
		next.ServeHTTP(w, r)
	})
}

type (
	visitKey struct{}
	knownKey struct{}
)

// knownOn says that a request's connection is somebody's.
func knownOn(r *http.Request) {
	if known, ok := r.Context().Value(knownKey{}).(func()); ok {
		known()
	}
}

func (d *doorman) changed(c net.Conn, state http.ConnState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch state {
	case http.StateNew:
		d.open[c] = &visit{}
		d.wait(c)
	case http.StateClosed, http.StateHijacked:
		delete(d.open, c)
		d.set.Forget(c)
	}
}

func (d *doorman) began(c net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v := d.open[c]; v != nil {
		v.requests++
		d.set.Forget(c)
	}
}

func (d *doorman) ended(c net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.open[c]
	if v == nil {
		return // it is closed, or another protocol's
	}
	if v.requests--; v.requests == 0 && !v.known {
		d.wait(c)
	}
}

func (d *doorman) knows(c net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v := d.open[c]; v != nil {
		v.known = true
	}
}

// wait has a connection wait for a request, and closes another if it must.
func (d *doorman) wait(c net.Conn) {
	oldest := d.set.Add(c)
	if oldest == nil {
		return
	}
	if secure, ok := oldest.(*tls.Conn); ok {
		oldest = secure.NetConn() // no farewell that could block
	}
	_ = oldest.Close() // its server hears of it
}
