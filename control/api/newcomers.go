package api

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// maxNewcomers bounds the connections that have not brought a whole request yet:
// half-open ones, for the most part, since one that means it needs milliseconds.
// The oldest makes room for the next, so that whoever just holds connections
// keeps nobody out.
const maxNewcomers = 512

// newcomers are a server's connections before their first request.
type newcomers struct {
	most  int
	mu    sync.Mutex
	conns map[net.Conn]*list.Element
	order *list.List // of net.Conn, oldest first
}

// watch has a server bound its newcomers.
func (n *newcomers) watch(s *http.Server) {
	n.conns, n.order = make(map[net.Conn]*list.Element), list.New()
	s.ConnState = n.changed
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, newcomerKey{}, c) }
	next := s.Handler
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(newcomerKey{}).(net.Conn); ok {
			n.forget(c)
		}
		next.ServeHTTP(w, r)
	})
}

type newcomerKey struct{}

func (n *newcomers) changed(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if oldest := n.add(c); oldest != nil {
			if secure, ok := oldest.(*tls.Conn); ok {
				oldest = secure.NetConn() // no farewell that could block
			}
			_ = oldest.Close() // its server hears of it
		}
	case http.StateClosed, http.StateHijacked:
		n.forget(c)
	}
}

// add gives the one that makes room, if one has to.
func (n *newcomers) add(c net.Conn) (oldest net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[c] = n.order.PushBack(c)
	if n.order.Len() <= n.most {
		return nil
	}
	oldest = n.order.Remove(n.order.Front()).(net.Conn)
	delete(n.conns, oldest)
	return oldest
}

func (n *newcomers) forget(c net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.conns[c]; e != nil {
		n.order.Remove(e)
		delete(n.conns, c)
	}
}
