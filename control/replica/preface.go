package replica

import (
	"errors"
	"fmt"
	"io"
	"net"
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
	b = append(b, prefaceMark, prefaceVersion)
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
	return &prefacedConn{Conn: conn, preface: appendPreface(nil, g.lineage())}, nil
}

func (g *gate) lineage() state.Lineage { return g.node.cfg.Store.Snapshot().Lineage() }

// judge reads a peer's preface. One that is refused tries again and again, and is
// told of once.
func (g *gate) judge(conn net.Conn) error {
	theirs, err := readPreface(conn)
	if err != nil || !g.lineage().Foreign(theirs) {
		return err
	}
	if last := g.refused.Swap(&theirs); last == nil || *last != theirs {
		g.node.cfg.Logger.Error("a peer is not let in", "peer", conn.RemoteAddr().String(), "cluster", theirs.Cluster,
			"recovery", theirs.Recovery, "err", errForeign)
	}
	return errForeign
}

// judgedConn reads the preface before all else, so that nobody holds up the others.
// Like every connection of raft's it has one reader.
type judgedConn struct {
	net.Conn
	gate   *gate
	judged bool
	err    error
}

// Read implements net.Conn.
func (c *judgedConn) Read(b []byte) (int, error) {
	if !c.judged {
		c.judged, c.err = true, c.gate.judge(c.Conn)
	}
	switch {
	case errors.Is(c.err, errForeign):
		return 0, io.EOF // raft would log each
	case c.err != nil:
		return 0, c.err
	}
	return c.Conn.Read(b)
}

// prefacedConn sends the preface with the first bytes. Like every connection of
// raft's it has one writer.
type prefacedConn struct {
	net.Conn
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
