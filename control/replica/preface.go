package replica

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"ecs/control/state"
)

// Every stream between peers begins with a preface that says which past the
// dialer's record is of: raft itself would let the old leader of a cluster that was
// recovered without it depose the new one and overwrite what that accepted.
//
// It is prefaceMark, which is no type of raft's messages, the preface's version,
// and cluster and recovery, each behind its length in one byte.
const (
	prefaceMark    = 0xec
	prefaceVersion = 1
)

// errForeign says that a peer's record has gone another way than this node's.
var errForeign = errors.New("a peer of another cluster, or of one that was recovered apart from this")

// appendPreface gives the preface; longer names than it can tell don't exist.
func appendPreface(b []byte, l state.Lineage) []byte {
	return appendNames(append(b, prefaceMark, prefaceVersion), l)
}

func appendNames(b []byte, l state.Lineage) []byte {
	for _, name := range []string{l.Cluster, l.Recovery} {
		name = name[:min(len(name), 255)]
		b = append(append(b, byte(len(name))), name...)
	}
	return b
}

func readPreface(r io.Reader) (l state.Lineage, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		return l, err
	}
	if head[0] != prefaceMark || head[1] != prefaceVersion {
		return l, fmt.Errorf("a stream that begins with %x: does the peer run another version?", head)
	}
	return readNames(r)
}

func readNames(r io.Reader) (l state.Lineage, err error) {
	for _, name := range []*string{&l.Cluster, &l.Recovery} {
		text := make([]byte, 255)
		if _, err := io.ReadFull(r, text[:1]); err != nil {
			return l, err
		}
		text = text[:text[0]]
		if _, err := io.ReadFull(r, text); err != nil {
			return l, err
		}
		*name = string(text)
	}
	return l, nil
}

// gate closes every connection that peers open until the node may answer them, and
// those of foreign peers always.
type gate struct {
	StreamLayer
	node    *Node
	open    atomic.Bool
	refused atomic.Pointer[state.Lineage] // last

	mu     sync.Mutex
	dialed map[*prefacedConn]struct{} // say what the node's lineage is now
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.StreamLayer.Accept()
		if err != nil {
			return nil, err
		}
		if g.open.Load() {
			return &judgedConn{Conn: conn, gate: g}, nil
		}
		_ = conn.Close() // the peer tries again
	}
}

// Dial implements raft.StreamLayer.
func (g *gate) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	conn, err := g.StreamLayer.Dial(addr, timeout)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c := &prefacedConn{Conn: conn, gate: g, preface: appendPreface(nil, g.node.Lineage())}
	if g.dialed == nil {
		g.dialed = make(map[*prefacedConn]struct{})
	}
	g.dialed[c] = struct{}{}
	return c, nil
}

// redial closes what was dialed before the node's lineage changes: peers judge by
// what a connection began with.
func (g *gate) redial(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
	for c := range g.dialed {
		_ = c.Conn.Close() // raft dials again
	}
	g.dialed = nil
}

// foreign reports whether a peer must not be heard. Whoever belongs to a cluster that
// was recovered knows that from the beginning: its leader said so.
func (g *gate) foreign(theirs state.Lineage) bool {
	ours := g.node.Lineage()
	return ours.Foreign(theirs) || ours.Recovery != "" && theirs == (state.Lineage{})
}

// refuse tells of a foreign peer. It tries again and again, and is told of once.
func (g *gate) refuse(conn net.Conn, theirs state.Lineage) {
	if last := g.refused.Swap(&theirs); last == nil || *last != theirs {
		g.node.cfg.Logger.Error("a peer is not let in", "peer", conn.RemoteAddr().String(), "cluster", theirs.Cluster,
			"recovery", theirs.Recovery, "err", errForeign)
	}
}

// judgedConn reads the preface before all else, so that nobody holds up the others,
// and gives nothing on once the peer is foreign: this node's record may have gone
// another way since. Like every connection of raft's it has one reader.
type judgedConn struct {
	net.Conn
	gate   *gate
	read   bool
	theirs state.Lineage
	err    error
}

// Read implements net.Conn.
func (c *judgedConn) Read(b []byte) (n int, err error) {
	if !c.read {
		c.read = true
		c.theirs, c.err = readPreface(c.Conn)
	}
	if c.err != nil {
		return 0, c.err
	}
	if !c.gate.foreign(c.theirs) {
		n, err = c.Conn.Read(b)
	}
	if c.gate.foreign(c.theirs) {
		c.gate.refuse(c.Conn, c.theirs)
		c.err = io.EOF // raft would log each other error
		return 0, c.err
	}
	return n, err
}

// prefacedConn sends the preface with the first bytes. Like every connection of
// raft's it has one writer.
type prefacedConn struct {
	net.Conn
	gate    *gate
	preface []byte // nil once it is sent
}

// Write implements net.Conn.
func (c *prefacedConn) Write(b []byte) (int, error) {
	if c.preface == nil {
		return c.Conn.Write(b)
	}
	head := len(c.preface)
	n, err := c.Conn.Write(append(c.preface, b...))
	c.preface = nil // after an error raft closes the connection
	return max(0, n-head), err
}

// Close implements net.Conn.
func (c *prefacedConn) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.dialed, c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}
