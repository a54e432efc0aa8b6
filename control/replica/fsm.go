package replica

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"ecs/control/state"
)

// errHalted answers entries that come after one that could not be applied.
var errHalted = errors.New("halted: an earlier entry could not be applied")

// fsm feeds raft's committed entries to the state store. Raft calls it from one
// goroutine.
type fsm struct {
	node      *Node
	transport *transport
	gate      *gate
	stable    raft.StableStore
	halted    bool
}

// changed lets the rest of the node know that there is another record.
func (f *fsm) changed() error {
	f.node.applied.fire()
	return f.node.descend(f.node.cfg.Store.Snapshot().Lineage(), f.stable, f.gate)
}

// Apply implements raft.FSM. Its answer is []state.Outcome, or an error that
// has halted the node: skipping an entry would make it differ from the others.
func (f *fsm) Apply(entry *raft.Log) any {
	if f.halted {
		return errHalted
	}
	outcomes, err := f.node.cfg.Store.Apply(entry.Index, entry.Data)
	if err == nil {
		err = f.changed()
	}
	if err != nil {
		f.halted = true
		f.node.fail(fmt.Errorf("apply entry %d: %w", entry.Index, err))
		return err
	}
	f.transport.committed(entry.Index, entry.Term)
	if ended := f.node.cfg.Store.Snapshot().Over(); len(ended) > 0 && f.node.cfg.Over != nil {
		f.node.cfg.Over(entry.Term, ended)
	}
	return outcomes
}

// Snapshot implements raft.FSM: the state is immutable, so this is one load.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.halted {
		return nil, errHalted
	}
	return snapshot{f.node.cfg.Store.Snapshot()}, nil
}

// Restore implements raft.FSM, at start and when the leader sends a snapshot.
func (f *fsm) Restore(r io.ReadCloser) error {
	err := f.node.cfg.Store.Restore(r)
	if err == nil {
		err = f.changed()
	}
	if err != nil {
		// The leader would send the same one again, for ever.
		f.halted = true
		f.node.fail(err)
		return err
	}
	return nil
}

type snapshot struct{ state *state.Snapshot }

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.state.Write(sink); err != nil {
		return errors.Join(fmt.Errorf("save snapshot %s: %w", sink.ID(), err), sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (snapshot) Release() {}
