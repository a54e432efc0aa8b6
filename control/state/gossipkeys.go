package state

import (
	"bufio"
	"fmt"
	"iter"
	"slices"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
	"google.golang.org/protobuf/encoding/protodelim"

	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// The steps of a rotation of the gossip key. A node goes on to the next only when
// every node that is there has confirmed the one before: so nobody hears a key that
// it does not know.
const (
	RotationAdd    = "add"    // the old key encrypts, both decrypt
	RotationUse    = "use"    // the new one encrypts, both decrypt
	RotationRemove = "remove" // the new one alone
)

// GossipKey is one key, as the record has it: nobody reads it without the seal key.
type GossipKey struct {
	ID     string // a hash of it
	Sealed []byte
}

// GossipKeys is the ring that every node is to gossip with. It never changes but is
// replaced.
type GossipKeys struct {
	Version uint64      // grows with every change of the ring, also over recoveries
	Ring    []GossipKey // the first encrypts, all decrypt
	Step    string      // that a rotation is at; empty: none is under way
	// Of the last rotation.
	StartedAt, EndedAt time.Time
	StartedBy          string   // the API key that asked
	Skipped            []string // nodes that were gone and not waited for, by id
}

// Next is the key that a rotation brings, or the zero key while there is none.
func (g *GossipKeys) Next() GossipKey {
	switch g.Step {
	case "":
		return GossipKey{}
	case RotationAdd:
		return g.Ring[len(g.Ring)-1]
	}
	return g.Ring[0]
}

// GossipKeys is the ring, or nil where the key was never rotated: then every node
// has it from a file.
func (sn *Snapshot) GossipKeys() *GossipKeys {
	g, _ := sn.ring.Get(ringKey)
	return g
}

// GossipVersion is the newest version of the ring that a node confirmed since the
// last rotation began, 0 for none.
func (sn *Snapshot) GossipVersion(node string) uint64 {
	v, _ := sn.holders.Get([]byte(node))
	return v
}

// WatchGossipKeys gives a channel that closes when the ring changes or a rotation
// goes a step on.
func (sn *Snapshot) WatchGossipKeys() <-chan struct{} { return watchPrefix(sn.ring, nil) }

// WatchGossipHolders gives a channel that closes when a node confirms a ring.
func (sn *Snapshot) WatchGossipHolders() <-chan struct{} { return watchPrefix(sn.holders, nil) }

// gossipRecord is the ring and who has it, as one snapshot has it.
type gossipRecord struct {
	ring    *iradix.Tree[*GossipKeys] // one at most, at ringKey
	holders *iradix.Tree[uint64]      // versions by node
}

var ringKey = []byte("ring")

func noGossipKeys() gossipRecord {
	return gossipRecord{ring: iradix.New[*GossipKeys](), holders: iradix.New[uint64]()}
}

// records gives what a snapshot holds of it, in a fixed order.
func (g gossipRecord) records() iter.Seq[*ecsv1.SnapshotRecord] {
	return func(yield func(*ecsv1.SnapshotRecord) bool) {
		for keys := range values(g.ring, nil) {
			if !yield(&ecsv1.SnapshotRecord{Kind: &ecsv1.SnapshotRecord_GossipKeys{GossipKeys: fromGossipKeys(keys)}}) {
				return
			}
		}
		it := g.holders.Root().Iterator()
		for node, version, ok := it.Next(); ok; node, version, ok = it.Next() {
			m := &ecsv1.GossipHolder{Node: string(node), Version: version}
			if !yield(&ecsv1.SnapshotRecord{Kind: &ecsv1.SnapshotRecord_GossipHolder{GossipHolder: m}}) {
				return
			}
		}
	}
}

// gossipChange collects what an entry does to it.
type gossipChange struct {
	ring    *iradix.Txn[*GossipKeys]
	holders *iradix.Txn[uint64]
	held    *int // how many holders there are
}

func (g gossipRecord) change() gossipChange {
	return gossipChange{ring: tracked(g.ring), holders: tracked(g.holders), held: new(g.holders.Len())}
}

func (g gossipChange) commit() gossipRecord {
	return gossipRecord{ring: g.ring.CommitOnly(), holders: g.holders.CommitOnly()}
}

func (g gossipChange) notify() { g.ring.Notify(); g.holders.Notify() }

func (g gossipChange) clear() {
	g.ring.DeletePrefix(nil)
	g.forgetHolders()
}

func (g gossipChange) forgetHolders() {
	g.holders.DeletePrefix(nil)
	*g.held = 0
}

func (g gossipChange) keys() *GossipKeys {
	keys, _ := g.ring.Get(ringKey)
	return keys
}

func (g gossipChange) put(keys GossipKeys) { g.ring.Insert(ringKey, &keys) }

// confirm notes a holder; false: there are too many.
func (g gossipChange) confirm(node string, version uint64) bool {
	if _, known := g.holders.Get([]byte(node)); !known {
		if *g.held >= maxHolders {
			return false
		}
		*g.held++
	}
	g.holders.Insert([]byte(node), version)
	return true
}

// readGossipKeys reads what records wrote.
func (c *change) readGossipKeys(r *bufio.Reader, h *ecsv1.SnapshotHeader) error {
	var m ecsv1.SnapshotRecord
	if h.GetGossipKeys() {
		if err := protodelim.UnmarshalFrom(r, &m); err != nil {
			return fmt.Errorf("gossip keys: %w", err)
		}
		keys := toGossipKeys(m.GetGossipKeys())
		if err := keys.sound(); err != nil {
			return fmt.Errorf("gossip keys: %w", err)
		}
		c.gossip.put(keys)
	}
	for i := range h.GetGossipHolders() {
		if err := protodelim.UnmarshalFrom(r, &m); err != nil {
			return fmt.Errorf("gossip holder %d of %d: %w", i+1, h.GetGossipHolders(), err)
		}
		holder := m.GetGossipHolder()
		if holder.GetNode() == "" || holder.GetVersion() == 0 || !c.gossip.confirm(holder.GetNode(), holder.GetVersion()) {
			return fmt.Errorf("gossip holder %d of %d: %q with version %d, or another record in its place", i+1, h.GetGossipHolders(), holder.GetNode(), holder.GetVersion())
		}
	}
	return nil
}

// sound reports what would break the rules' assumptions if it were restored.
func (g *GossipKeys) sound() error {
	want := 1
	if g.Step == RotationAdd || g.Step == RotationUse {
		want = 2
	}
	known := g.Step == "" || slices.Contains([]string{RotationAdd, RotationUse, RotationRemove}, g.Step)
	if g.Version == 0 || !known || len(g.Ring) != want {
		return fmt.Errorf("version %d, step %q and a ring of %d keys", g.Version, g.Step, len(g.Ring))
	}
	for _, k := range g.Ring {
		if !k.sound() {
			return fmt.Errorf("key %q of %d sealed bytes", k.ID, len(k.Sealed))
		}
	}
	return nil
}

func (k GossipKey) sound() bool { return k.ID != "" && len(k.Sealed) > 0 }

func fromGossipKey(k GossipKey) *ecsv1.GossipKey {
	return &ecsv1.GossipKey{Id: k.ID, Sealed: k.Sealed}
}

func toGossipKey(m *ecsv1.GossipKey) GossipKey {
	return GossipKey{ID: m.GetId(), Sealed: m.GetSealed()}
}

func fromGossipKeys(g *GossipKeys) *ecsv1.GossipKeys {
	m := &ecsv1.GossipKeys{Version: g.Version, Step: g.Step, StartedAt: taskwire.FromTime(g.StartedAt), StartedBy: g.StartedBy,
		EndedAt: taskwire.FromTime(g.EndedAt), Skipped: g.Skipped}
	for _, k := range g.Ring {
		m.Ring = append(m.Ring, fromGossipKey(k))
	}
	return m
}

func toGossipKeys(m *ecsv1.GossipKeys) GossipKeys {
	g := GossipKeys{Version: m.GetVersion(), Step: m.GetStep(), StartedAt: taskwire.ToTime(m.GetStartedAt()), StartedBy: m.GetStartedBy(),
		EndedAt: taskwire.ToTime(m.GetEndedAt()), Skipped: m.GetSkipped()}
	for _, k := range m.GetRing() {
		g.Ring = append(g.Ring, toGossipKey(k))
	}
	return g
}
