// Package state holds the replicated truth of a cluster: immutable snapshots
// of every task and node, and the one function that makes the next.
//
// It is pure. Apply reads only its arguments and the snapshot before it: no
// clock, no randomness, no map order, no floats. Two stores that applied the
// same entries hold the same record, byte for byte (Snapshot.Hash). The package
// starts no goroutine and knows nothing of the network or of raft.
//
// Readers take a Snapshot, which never changes, and watch for the next one: a
// watch channel closes on the next change of what it watches, or of something
// near it. So wake, take a new snapshot, look again.
package state

import (
	"fmt"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	ecsv1 "ecs/proto/ecs/v1"
)

// Limits bound what may wait. They are part of what Apply decides, so they must
// be the same on every control node of a cluster, as if they were compiled in.
type Limits struct {
	MaxPending      int   // tasks; default 100,000
	MaxPendingBytes int64 // of their records; default 512 MiB
}

// The limits where none are given.
const (
	DefaultMaxPending      = 100_000
	DefaultMaxPendingBytes = 512 << 20
)

// MaxCommands is how many commands one entry may carry: Seq and Epoch keep the
// position in their low 12 bits.
const MaxCommands = 1 << ordinalBits

const ordinalBits = 12

// Store holds the latest snapshot. Snapshot may be called by anyone at any
// time; Apply and Restore by one goroutine at a time.
type Store struct {
	limits  Limits
	indexes *indexes
	latest  atomic.Pointer[Snapshot]
}

// NewStore makes an empty store. Zero limits are the defaults.
func NewStore(lim Limits) *Store {
	if lim.MaxPending == 0 {
		lim.MaxPending = DefaultMaxPending
	}
	if lim.MaxPendingBytes == 0 {
		lim.MaxPendingBytes = DefaultMaxPendingBytes
	}
	s := &Store{limits: lim, indexes: newIndexes()}
	s.latest.Store(emptySnapshot(s.indexes))
	return s
}

// Snapshot gives the record as of the last applied entry. It costs one atomic
// load.
func (s *Store) Snapshot() *Snapshot { return s.latest.Load() }

// Apply makes the next snapshot from one log entry, a marshalled ecsv1.Entry,
// and says what became of each of its commands. An error means that the entry
// can't be understood: nothing was changed and the node must halt, for carrying
// on would make it differ from the others. Indexes must grow.
func (s *Store) Apply(index uint64, entry []byte) ([]Outcome, error) {
	before := s.latest.Load()
	if index <= before.index {
		return nil, fmt.Errorf("apply entry %d: entry %d was applied before it", index, before.index)
	}
	commands, err := decode(entry)
	if err != nil {
		return nil, fmt.Errorf("apply entry %d: %w", index, err)
	}
	c := newChange(before, s.indexes, s.limits, index)
	outcomes := make([]Outcome, len(commands))
	for i, cmd := range commands {
		c.now, c.rules, c.ordinal = cmd.now, cmd.rules, uint64(i)
		outcomes[i] = cmd.Command.apply(c)
		outcomes[i].Index = index
	}
	after, notify := c.commit()
	s.latest.Store(after)
	notify() // only now, so that a woken reader finds what woke it
	return outcomes, nil
}

// decode reads a whole entry before any of it is applied.
func decode(entry []byte) ([]stamped, error) {
	var m ecsv1.Entry
	if err := proto.Unmarshal(entry, &m); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if n := len(m.GetCommands()); n > MaxCommands {
		return nil, fmt.Errorf("decode: %d commands, at most %d are allowed", n, MaxCommands)
	}
	commands := make([]stamped, len(m.GetCommands()))
	for i, cm := range m.GetCommands() {
		if cm.GetRules() > present {
			return nil, fmt.Errorf("decode command %d: it is decided by rules %d, and this version knows those up to %d: "+
				"run the version on this node that the others run", i, cm.GetRules(), present)
		}
		cmd, now, err := FromWire(cm)
		if err != nil {
			return nil, fmt.Errorf("decode command %d: %w", i, err)
		}
		commands[i] = stamped{Command: cmd, now: now, rules: cm.GetRules()}
	}
	return commands, nil
}
