package replica

import (
	"bytes"
	"fmt"

	"github.com/hashicorp/raft"

	"ecs/control/state"
)

// lineageKey is where the stable store keeps which past the record is of: it must be
// known before the log is applied, which takes a leader.
var lineageKey = []byte("Lineage")

// Lineage says which past this node's record is of: what was applied, here or before
// the last restart, or what the leader said that took the node in.
func (n *Node) Lineage() state.Lineage {
	if l := n.lineage.Load(); l != nil {
		return *l
	}
	return n.cfg.Store.Snapshot().Lineage()
}

// descend notes which past the record is of. The connections that others know for
// another's are given up.
func (n *Node) descend(l state.Lineage, stable raft.StableStore, gate *gate) error {
	if l.Cluster == "" || l == n.Lineage() && n.lineage.Load() != nil {
		return nil
	}
	if err := stable.Set(lineageKey, appendNames(nil, l)); err != nil {
		return fmt.Errorf("note which cluster this is: %w", err)
	}
	gate.redial(func() { n.lineage.Store(&l) })
	return nil
}

// remember reads what descend noted.
func (n *Node) remember(stable raft.StableStore) error {
	data, err := stable.Get(lineageKey)
	if err != nil && err.Error() != "not found" {
		return fmt.Errorf("read which cluster this is: %w", err)
	}
	if len(data) == 0 {
		return nil
	}
	l, err := readNames(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("read which cluster this is: %w", err)
	}
	n.lineage.Store(&l)
	return nil
}
