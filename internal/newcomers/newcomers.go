// Package newcomers bounds the connections whose other end has not shown yet who
// it is. It closes none itself and starts no goroutine.
package newcomers

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// Set is of connections that are nobody's yet. Its methods may be called
// concurrently.
type Set struct {
	most int

	mu    sync.Mutex
	conns map[net.Conn]place
	froms map[string]*list.List // of net.Conn, oldest first; none is empty
}

type place struct {
	from string
	at   *list.Element
}

// New makes an empty set that holds at most most connections, at least 1.
func New(most int) *Set {
	return &Set{most: max(most, 1), conns: make(map[net.Conn]place), froms: make(map[string]*list.List)}
}

// Add takes a connection in. When there were as many as may be, it gives the one
// that is to be closed for it, which it has forgotten: the oldest of the network
// that has most of them. Whoever opens connections by the thousand, to hold them
// or in a flood, so makes room at its own expense, and others keep the moment
// that they need.
func (s *Set) Add(c net.Conn) (evicted net.Conn) {
	from := Network(c.RemoteAddr().String())
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= s.most {
		evicted = s.oldestOfMost()
		s.forget(evicted)
	}
	l := s.froms[from]
	if l == nil {
		l = list.New()
		s.froms[from] = l
	}
	s.conns[c] = place{from, l.PushBack(c)}
	return evicted
}

// oldestOfMost looks at every network; there are at most as many as connections.
// Of networks with equally many any may be taken.
func (s *Set) oldestOfMost() net.Conn {
	var most *list.List
	for _, l := range s.froms {
		if most == nil || l.Len() > most.Len() {
			most = l
		}
	}
	return most.Front().Value.(net.Conn)
}

// Forget takes a connection out: it has shown who it is, or has ended. One that is
// not there is nothing to forget.
func (s *Set) Forget(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(c)
}

func (s *Set) forget(c net.Conn) {
	p, ok := s.conns[c]
	if !ok {
		return
	}
	delete(s.conns, c)
	l := s.froms[p.from]
	if l.Remove(p.at); l.Len() == 0 {
		delete(s.froms, p.from)
	}
}

// Len is how many there are.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Network is whom an address (host:port or a host) counts for: its IPv4 address,
// or the /64 that one IPv6 subscriber has. What is no address is given as it is.
func Network(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	prefix, _ := addr.Prefix(64) // 64 bits are in every IPv6 address
	return prefix.String()
}
