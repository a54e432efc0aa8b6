package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// Barrier returns once everything committed before the call is applied here.
// ErrNotLeader when this node does not lead, or lost it meanwhile.
func (n *Node) Barrier(ctx context.Context) error {
	err := n.call(ctx, func(up *running) error {
		term, leading := leadership(up.raft)
		if !leading {
			return ErrNotLeader
		}
		if err := up.raft.Barrier(enqueueWithin).Error(); err != nil {
			return notLeader(err)
		}
		if leads(up.raft, term) {
			up.established.Store(term)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	return nil
}

// Verify makes sure that this node leads at a moment during the call: a
// majority said so in answer to questions sent after it began. Raft's own check
// also counts answers to earlier questions, which a process that was paused
// finds waiting when it wakes, though another may lead by then.
func (n *Node) Verify(ctx context.Context) error {
	return n.verify(ctx, func(t *transport) (done func()) { return t.hurry() })
}

// VerifyAtNextBeat is Verify for those who are in no hurry: it asks followers
// with the next regular heartbeats, a beat later at most, and costs nothing.
func (n *Node) VerifyAtNextBeat(ctx context.Context) error {
	return n.verify(ctx, func(*transport) (done func()) { return func() {} })
}

func (n *Node) verify(ctx context.Context, begin func(*transport) (done func())) error {
	err := n.call(ctx, func(up *running) error {
		begun := up.transport.asked.Load()
		term, leading := leadership(up.raft)
		if !leading {
			return ErrNotLeader
		}
		defer begin(up.transport)()
		for ctx.Err() == nil {
			// Raft's check makes it ask every follower now.
			if err := up.raft.VerifyLeader().Error(); err != nil {
				return notLeader(err)
			}
			if up.transport.confirmed(up.servers(), n.cfg.ID, term, begun) {
				return nil
			}
			if !leads(up.raft, term) {
				return ErrNotLeader
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("verify leadership: %w", err)
	}
	return nil
}

// ReadIndex gives an index such that a state that includes it includes
// everything that was acknowledged, on any node, before the call. Only the
// leader can tell: ErrNotLeader otherwise.
func (n *Node) ReadIndex(ctx context.Context) (uint64, error) {
	up := n.up.Load()
	if up == nil {
		return 0, ErrNotLeader
	}
	// A new leader has everything in its log, but may not have applied it yet.
	if term, leading := leadership(up.raft); !leading {
		return 0, ErrNotLeader
	} else if up.established.Load() != term {
		if err := n.Barrier(ctx); err != nil {
			return 0, fmt.Errorf("read index: %w", err)
		}
	}
	// Whatever is acknowledged in this term was applied here first. The index
	// is taken before the check: the other way round, another leader could
	// acknowledge something in between.
	index := n.cfg.Store.Snapshot().Index()
	if err := n.Verify(ctx); err != nil {
		return 0, fmt.Errorf("read index: %w", err)
	}
	return index, nil
}

// WaitApplied returns once this node's state includes index, which must be
// that of a command: Outcome.Index, or what ReadIndex gave.
func (n *Node) WaitApplied(ctx context.Context, index uint64) error {
	for {
		changed := n.applied.wait()
		now := n.cfg.Store.Snapshot().Index()
		if now >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for index %d, at %d: %w", index, now, ctx.Err())
		case <-n.stopped:
			return fmt.Errorf("wait for index %d, at %d: this node has stopped", index, now)
		}
	}
}

// notLeader says in our words that raft lost or never had leadership.
func notLeader(err error) error {
	for _, target := range []error{raft.ErrNotLeader, raft.ErrLeadershipLost, raft.ErrEnqueueTimeout,
		raft.ErrLeadershipTransferInProgress, raft.ErrRaftShutdown} {
		if errors.Is(err, target) {
			return fmt.Errorf("%w: %w", ErrNotLeader, err)
		}
	}
	return err
}
