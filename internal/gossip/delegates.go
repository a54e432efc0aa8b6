package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"strings"

	"github.com/hashicorp/memberlist"
)

// memberlist calls these while it holds its own locks: they copy and poke, and
// never call it back.

type delegate struct{ m *Members }

func (d delegate) NodeMeta(int) []byte {
	meta, err := encode(d.m.Self())
	if err != nil {
		return nil // Update and config let no such metadata in
	}
	return meta
}

func (delegate) NotifyMsg([]byte)                {}
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (delegate) LocalState(bool) []byte          { return nil }
func (delegate) MergeRemoteState([]byte, bool)   {}

type events struct{ m *Members }

func (e events) NotifyJoin(n *memberlist.Node) { e.NotifyUpdate(n) }

func (e events) NotifyUpdate(n *memberlist.Node) {
	member, err := decode(n.Meta)
	if err != nil {
		return // written by nothing of ours, though it has the key
	}
	member.GossipAddr = addrOf(n)
	e.m.set(n.Name, member)
}

func (e events) NotifyLeave(n *memberlist.Node) { e.m.drop(n.Name) }

type conflicts struct{ m *Members }

func (c conflicts) NotifyConflict(existing, other *memberlist.Node) {
	select {
	case c.m.conflicts <- conflict{name: existing.Name, known: addrOf(existing), newcomer: addrOf(other)}:
	default: // one is being told
	}
}

// stdLogger turns memberlist's "[LEVEL] memberlist: text" lines into slog's.
func stdLogger(l *slog.Logger) *log.Logger {
	return log.New(levelWriter{l.With("part", "gossip")}, "", 0)
}

type levelWriter struct{ slog *slog.Logger }

func (w levelWriter) Write(line []byte) (int, error) {
	text := string(bytes.TrimSpace(line))
	level := slog.LevelInfo
	if tag, rest, ok := strings.Cut(text, "] "); ok && strings.HasPrefix(tag, "[") {
		text = strings.TrimPrefix(rest, "memberlist: ")
		switch tag {
		case "[DEBUG":
			level = slog.LevelDebug
		case "[WARN", "[ERR", "[ERROR":
			level = slog.LevelWarn // gossip heals itself; ours to judge
		}
	}
	w.slog.Log(context.Background(), level, text)
	return len(line), nil
}
