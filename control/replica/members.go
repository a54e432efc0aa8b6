package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"ecs/control/state"
)

// Admit lets the peers of a cluster in: its leader has said that it takes this node for
// one that has acknowledged nothing, and which past its record is of. See Config.Closed.
func (n *Node) Admit(l state.Lineage) error {
	up := n.up.Load()
	if up == nil {
		return nil
	}
	if err := n.descend(l, up.stable, up.gate); err != nil {
		return err
	}
	up.gate.open.Store(true)
	return nil
}

// Admitted reports whether peers are let in: the node has state, or the leader took
// it in.
func (n *Node) Admitted() bool {
	up := n.up.Load()
	return up != nil && up.gate.open.Load()
}

// Turn is the sole right to change the configuration, as the leader of one term.
type Turn struct {
	up   *running
	term uint64
}

// Reconfigure lets f look at the configuration and change it. There is one turn at
// a time, autopilot's among them, and a change made by another leader ends it: what
// f has seen of the configuration holds for what it does. Only the leader can do
// it. When ctx ends first f may go on and its outcome is unknown.
//
// Raft has an index to tie a change to what it is based on, but does not tell the
// present one.
func (n *Node) Reconfigure(ctx context.Context, f func(*Turn) error) error {
	return n.call(ctx, func(up *running) error {
		select {
		case up.turn <- struct{}{}:
			defer func() { <-up.turn }()
		case <-ctx.Done():
			return ctx.Err()
		}
		term, leading := leadership(up.raft)
		if !leading {
			return ErrNotLeader
		}
		return f(&Turn{up: up, term: term})
	})
}

// Add has the log sent to a node that has no vote, or notes the new address of one
// that the configuration names; a vote stays.
func (t *Turn) Add(id, addr string) error {
	return t.change("add "+id+" at "+addr, func(r *raft.Raft) raft.Future {
		return r.AddNonvoter(raft.ServerID(id), raft.ServerAddress(addr), 0, changeWithin)
	})
}

// Promote gives a node a vote.
func (t *Turn) Promote(id, addr string) error {
	return t.change("give a vote to "+id, func(r *raft.Raft) raft.Future {
		return r.AddVoter(raft.ServerID(id), raft.ServerAddress(addr), 0, changeWithin)
	})
}

// Remove takes a node out of the configuration. It hears nothing more, not even
// that. To remove the leader hand its leadership over first.
func (t *Turn) Remove(id string) error {
	return t.change("remove "+id, func(r *raft.Raft) raft.Future {
		return r.RemoveServer(raft.ServerID(id), 0, changeWithin)
	})
}

// demote takes a node's vote away.
func (t *Turn) demote(id string) error {
	return t.change("take the vote from "+id, func(r *raft.Raft) raft.Future {
		return r.DemoteVoter(raft.ServerID(id), 0, changeWithin)
	})
}

// changeWithin bounds how long a change of the configuration waits for raft to
// take it.
const changeWithin = 5 * time.Second

func (t *Turn) change(what string, do func(*raft.Raft) raft.Future) error {
	if !leads(t.up.raft, t.term) {
		return fmt.Errorf("%s: %w", what, ErrNotLeader)
	}
	err := do(t.up.raft).Error()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		return fmt.Errorf("%s: %w", what, ErrNotLeader)
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("%s: %w", what, ErrUnknown)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Contact is what this node, as the leader, knows of a follower.
type Contact struct {
	Heard time.Duration // how long ago it answered last
	Match uint64        // its log equals the leader's up to here
	last  uint64        // the leader's log ends here
}

// CaughtUp reports whether it has so much of the log that it can have a vote
// without holding the others up. One that still receives a snapshot has not.
func (c Contact) CaughtUp() bool { return c.Match > 0 && c.Match+trailing >= c.last }

// Contact tells when a follower answered this node last, in its present term.
// It reports false for one that has not.
func (n *Node) Contact(id string) (Contact, bool) {
	up := n.up.Load()
	if up == nil {
		return Contact{}, false
	}
	return up.contact(id)
}

func (up *running) contact(id string) (Contact, bool) {
	c, ok := up.transport.contact(raft.ServerID(id), up.raft.CurrentTerm())
	c.last = up.raft.LastIndex()
	return c, ok
}
