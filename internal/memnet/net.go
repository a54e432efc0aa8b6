// Package memnet is a network in memory: hosts with listeners, streams and
// datagrams between them, and links that can be slowed, made lossy, cut and
// healed. Hosts can crash and come back.
//
// It is made for whole clusters inside a testing/synctest bubble: it starts no
// goroutine, every wait is on a channel, and time is the bubble's. It behaves
// as TCP and UDP over IP do where that matters to a cluster: a cut link gives
// no error but silence, what was written is delivered after it heals, and a
// machine that lost power leaves its peers with half-open connections.
package memnet

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Net is one network. All its methods are safe for concurrent use, and take
// effect before they return.
type Net struct {
	mu      sync.Mutex // guards everything of the Net, its hosts and their connections; never held while waiting
	rand    *rand.Rand
	hosts   map[string]*Host
	links   map[way]link
	changed signal // a link, a host or a listener changed: for those who dial
	dropped int
}

// way is one direction between two hosts.
type way struct{ from, to string }

type link struct {
	cut           bool
	delay, jitter time.Duration
	loss          float64
}

// New makes a network without hosts whose chance (jitter and loss) comes from
// seed. Draw the seed outside of a bubble: inside, the clock always starts alike.
func New(seed uint64) *Net {
	return &Net{
		rand:  rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15)),
		hosts: make(map[string]*Host),
		links: make(map[way]link),
	}
}

// Host gives the host of that name, made and up at first use. Its address is
// "name:port".
func (n *Net) Host(name string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[name]
	if h == nil {
		h = &Host{
			net: n, name: name, nextPort: firstFreePort,
			listeners: make(map[int]*listener),
			packets:   make(map[int]*packetConn),
			conns:     make(map[*conn]struct{}),
		}
		n.hosts[name] = h
	}
	return h
}

// Cut makes a and b unable to reach each other. Nothing fails at once: what
// they send is lost, and streams go on once the link heals.
func (n *Net) Cut(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut(way{a, b})
	n.cut(way{b, a})
}

// CutOneWay loses what from sends to to, and lets the answers pass.
func (n *Net) CutOneWay(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut(way{from, to})
}

// Partition cuts every link between hosts of different sides.
func (n *Net) Partition(sides ...[]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, side := range sides {
		for j, other := range sides {
			if i == j {
				continue
			}
			for _, from := range side {
				for _, to := range other {
					n.cut(way{from, to})
				}
			}
		}
	}
}

// Isolate cuts the host off from every other.
func (n *Net) Isolate(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for other := range n.hosts {
		n.cut(way{host, other})
		n.cut(way{other, host})
	}
}

// Heal ends the cuts between a and b. Delay and loss stay.
func (n *Net) Heal(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heal(way{a, b})
	n.heal(way{b, a})
}

// HealAll ends every cut. Delays and losses stay.
func (n *Net) HealAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for w := range n.links {
		n.heal(w)
	}
}

// Reset makes the network perfect again: no cut, no loss, no delay.
func (n *Net) Reset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for w, l := range n.links {
		n.links[w] = link{cut: l.cut}
		n.heal(w)
	}
}

// Delay makes everything between a and b take d, and up to jitter more, each
// way. Streams keep their order, datagrams may overtake each other.
func (n *Net) Delay(a, b string, d, jitter time.Duration) {
	n.each(a, b, func(l *link) { l.delay, l.jitter = d, jitter })
}

// Loss drops each datagram between a and b with probability p. Streams lose
// nothing: they retransmit, and so take longer.
func (n *Net) Loss(a, b string, p float64) {
	n.each(a, b, func(l *link) { l.loss = p })
}

// Dropped counts what did not get through so far: datagrams, and writes to
// streams and dials that met a cut. A test asserts by it that its fault bit.
func (n *Net) Dropped() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dropped
}

func (n *Net) each(a, b string, change func(*link)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range []way{{a, b}, {b, a}} {
		l := n.links[w]
		change(&l)
		n.links[w] = l
	}
}

// cut loses what is under way: streams will send it again, datagrams not.
func (n *Net) cut(w way) {
	if w.from == w.to || n.links[w].cut {
		return
	}
	l := n.links[w]
	l.cut = true
	n.links[w] = l
	if to := n.hosts[w.to]; to != nil {
		for c := range to.conns {
			if c.remote.host == w.from {
				c.in.hold(time.Now())
			}
		}
		for _, p := range to.packets {
			n.dropped += p.forget(w.from, time.Now())
		}
	}
	n.changed.fire()
}

func (n *Net) heal(w way) {
	l := n.links[w]
	if !l.cut {
		return
	}
	l.cut = false
	n.links[w] = l
	if to := n.hosts[w.to]; to != nil {
		for c := range to.conns {
			if c.remote.host == w.from {
				n.resend(c.in)
			}
		}
	}
	n.changed.fire()
}

// resend sends what a cut held back, and meets what became of the other end.
func (n *Net) resend(p *pipe) {
	for i := range p.segments {
		if s := &p.segments[i]; s.held {
			s.held = false
			s.at = p.inOrder(time.Now().Add(n.transit(p.way)))
		}
	}
	p.changed.fire()
}

// transit draws how long something takes along w, without loss.
func (n *Net) transit(w way) time.Duration {
	l := n.links[w]
	d := l.delay
	if l.jitter > 0 {
		d += time.Duration(n.rand.Int64N(int64(l.jitter)))
	}
	return d
}

func (n *Net) lost(w way) bool {
	p := n.links[w].loss
	return p > 0 && n.rand.Float64() < p
}

// signal wakes whoever waits; made on demand, so that nobody waiting costs nothing.
type signal struct{ ch chan struct{} }

// wait gives a channel that the next fire closes.
func (s *signal) wait() <-chan struct{} {
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// wake is what somebody waits for: either channel, or the time (zero: never).
type wake struct {
	a, b <-chan struct{}
	at   time.Time
}

func (w *wake) sleep() {
	var timeout <-chan time.Time
	if !w.at.IsZero() {
		left := time.Until(w.at)
		if left <= 0 {
			return // without a timer that is due already, see Host.dial
		}
		timer := time.NewTimer(left)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-w.a:
	case <-w.b:
	case <-timeout:
	}
}

// earlier gives the earlier of two times, of which zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
