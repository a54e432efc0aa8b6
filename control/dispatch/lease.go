package dispatch

import (
	"context"
	"fmt"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
)

// lease is what the leader remembers of a node's contact. It is never in the
// log: heartbeats are not committed, only verdicts are.
type lease struct {
	epoch    uint64
	answered time.Duration // Config.Now when a heartbeat was last answered
	expired  bool          // never answered again
	since    time.Duration // when it expired or was last proposed, to pace repeats
}

// verdict is one loss that is due.
type verdict struct {
	node task.NodeID
	cmd  state.Command
}

// proposeAgain paces verdicts whose proposal did not come through.
const proposeAgain = time.Second

// watchLeases proposes the loss of every node and attempt whose lease and
// margin have passed. It wakes at the next expiry, not in between.
func (t *tenure) watchLeases(ctx context.Context) error {
	for {
		due, next, rearm := t.due()
		for _, v := range due {
			if err := t.lose(ctx, v); err != nil {
				return err
			}
		}
		wait := time.NewTimer(next)
		select {
		case <-wait.C:
		case <-rearm:
		case <-t.cfg.Snapshot().WatchNodes():
			// Long leases matter from when their node is lost: look again,
			// but not for every reservation that changes a node.
			pause(ctx, 100*time.Millisecond)
		case <-ctx.Done():
		}
		wait.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// due marks expired what has expired and says what to propose now and when to
// look again.
func (t *tenure) due() (due []verdict, next time.Duration, rearm <-chan struct{}) {
	now := t.cfg.Now()
	next = task.DefaultLease
	soon := func(d time.Duration) { next = min(next, max(d, 10*time.Millisecond)) }
	sn := t.cfg.Snapshot()

	t.mu.Lock()
	defer t.mu.Unlock()
	t.pruneMarksLocked(sn)
	t.adoptLocked(sn, now)
	for id, l := range t.mu.leases {
		n := sn.Node(id)
		if n == nil || n.Epoch != l.epoch {
			continue
		}
		over := l.answered + task.DefaultLease + task.LeaseMargin
		alive := n.Status == task.Ready || n.Status == task.Draining
		switch {
		case !l.expired && now < over:
			soon(over - now)
		case alive:
			if l.expired && now < l.since+proposeAgain {
				soon(l.since + proposeAgain - now)
				continue
			}
			l.expired, l.since = true, now
			due = append(due, verdict{node: id, cmd: state.LoseNode{Node: id, Epoch: l.epoch, Lease: task.DefaultLease}})
			soon(proposeAgain)
		default:
			for lost := range sn.On(id) {
				end := l.answered + lost.Spec.Lease + task.LeaseMargin
				if now < end {
					soon(end - now)
					continue
				}
				due = append(due, verdict{node: id, cmd: state.LoseAttempt{
					Token:  lost.Live().Token(lost.ID),
					Reason: fmt.Sprintf("no contact with node %s for its lease of %s", n.Name, lost.Spec.Lease),
				}})
				soon(proposeAgain)
			}
		}
	}
	return due, next, t.mu.rearm
}

// adoptLocked gives every registration in the record a lease, also one that was
// committed while the session that asked for it ended.
func (t *tenure) adoptLocked(sn *state.Snapshot, now time.Duration) {
	for n := range sn.Nodes() {
		if l := t.mu.leases[n.ID]; l == nil || l.epoch < n.Epoch {
			t.mu.leases[n.ID] = &lease{epoch: n.Epoch, answered: now, expired: n.Status == task.Lost || n.Status == task.Left}
		}
	}
}

// lose commits one verdict. Losing leadership ends the tenure; a refusal means
// that somebody else has settled it.
func (t *tenure) lose(ctx context.Context, v verdict) error {
	t.cfg.Metrics.IncrCounter([]string{"dispatch", "verdicts"}, 1)
	out, err := t.cfg.Log.Propose(ctx, v.cmd)
	if err != nil {
		return fmt.Errorf("declare work of node %s lost: %w", v.node, err)
	}
	if out.Err == nil {
		t.cfg.Logger.Warn("lease over", "node", v.node, "verdict", fmt.Sprintf("%T", v.cmd), "term", t.term)
	}
	t.endSession(v.node)
	t.poke()
	return nil
}

// answer counts a heartbeat as answered and reports whether it may be.
func (t *tenure) answer(node task.NodeID, epoch uint64) bool {
	now := t.cfg.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.mu.leases[node]
	if l == nil || l.epoch != epoch || l.expired || now >= l.answered+task.DefaultLease+task.LeaseMargin {
		return false
	}
	l.answered = now
	return true
}

// holds reports whether the node's epoch may be resumed.
func (t *tenure) holds(node task.NodeID, epoch uint64) bool {
	n := t.cfg.Snapshot().Node(node)
	if n == nil || n.Epoch != epoch || n.Status == task.Lost || n.Status == task.Left {
		return false
	}
	now := t.cfg.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.mu.leases[node]
	return l != nil && l.epoch == epoch && !l.expired && now < l.answered+task.DefaultLease+task.LeaseMargin
}

// expire marks a node's present lease as over before its end is proposed.
func (t *tenure) expire(node task.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.mu.leases[node]; l != nil {
		l.expired, l.since = true, t.cfg.Now()
	}
}

// begin starts the lease of a new epoch.
func (t *tenure) begin(node task.NodeID, epoch uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.mu.leases[node]; l != nil && l.epoch > epoch {
		return // another session has registered the node since
	}
	t.mu.leases[node] = &lease{epoch: epoch, answered: t.cfg.Now()}
	close(t.mu.rearm)
	t.mu.rearm = make(chan struct{})
}
