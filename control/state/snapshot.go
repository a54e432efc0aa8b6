package state

import (
	"iter"
	"time"

	"github.com/google/btree"
	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"ecs/internal/task"
)

// Snapshot is the whole record at one index. It never changes and may be read
// by any number of goroutines.
type Snapshot struct {
	index  uint64
	counts Counts
	over   []*task.Task

	cluster     string
	incarnation uint64
	recovery    string
	recoveredAt uint64

	tasks   *iradix.Tree[*task.Task] // by ID
	pending *iradix.Tree[*task.Task] // by Seq, big endian
	on      *iradix.Tree[*task.Task] // live ones by node, zero byte, ID; nil at every node's prefix
	nodes   *iradix.Tree[*task.Node] // by ID
	wishes  []Wish                   // by image; not changed but replaced

	accepted *btree.BTreeG[position]
	owners   *btree.BTreeG[owned]
	keys     *btree.BTreeG[keyed]
	ended    *btree.BTreeG[position]
	due      *btree.BTreeG[position]
	touched  *btree.BTreeG[touch]

	waiting *iradix.Tree[Waiting] // by owner; none for those who have nothing waiting
	accessRecord
	gossipRecord
}

// Counts are sizes of the record, kept as it changes.
type Counts struct {
	Pending, Live, Finished     int
	PendingBytes, FinishedBytes int64 // approximate, in memory
	// Those that back off are pending, but not among Pending: nothing is to be
	// placed of them.
	BackingOff      int
	BackingOffBytes int64
}

func emptySnapshot(x *indexes) *Snapshot {
	sn := &Snapshot{
		tasks:        iradix.New[*task.Task](),
		pending:      iradix.New[*task.Task](),
		on:           iradix.New[*task.Task](),
		nodes:        iradix.New[*task.Node](),
		waiting:      iradix.New[Waiting](),
		accessRecord: noAccess(),
		gossipRecord: noGossipKeys(),
	}
	sn.publish(x)
	return sn
}

func (sn *Snapshot) publish(x *indexes) {
	sn.accepted = x.accepted.publish()
	sn.owners = x.owners.publish()
	sn.keys = x.keys.publish()
	sn.ended = x.ended.publish()
	sn.due = x.due.publish()
	sn.touched = x.touched.publish()
}

// Index is that of the last entry applied, 0 before the first.
func (sn *Snapshot) Index() uint64 { return sn.index }

// AcceptedAt is the index of the entry that brought a task into the record.
func AcceptedAt(t *task.Task) uint64 { return t.Seq >> ordinalBits }

// Cluster is the identity that Found gave the cluster, empty before.
func (sn *Snapshot) Cluster() string { return sn.cluster }

// Incarnation counts how often the cluster was recovered from one survivor.
// What a node knows of an earlier incarnation may never have happened.
func (sn *Snapshot) Incarnation() uint64 { return sn.incarnation }

// Recovery is the identity of the recovery that made this incarnation, empty for
// the first. Two of one survivor's past, or of one archive, have the same
// incarnation and nothing else in common.
func (sn *Snapshot) Recovery() string { return sn.recovery }

// RecoveredAt is the index with which this incarnation began, 0 for the first.
func (sn *Snapshot) RecoveredAt() uint64 { return sn.recoveredAt }

// Uncertain reports whether a pending task may run all the same: it was unfinished
// when the cluster was recovered and nobody has placed it since, but those whose word
// was lost may have. An attempt of theirs that the record has may run too, until its
// agent, which has been told to end it, has done so.
func (sn *Snapshot) Uncertain(t *task.Task) bool { return uncertainSince(sn.recoveredAt, t) }

func uncertainSince(recoveredAt uint64, t *task.Task) bool {
	if t.State != task.Pending || t.Seq >= recoveredAt<<ordinalBits {
		return false
	}
	n := len(t.Attempts)
	return n == 0 || t.Attempts[n-1].Epoch>>ordinalBits <= recoveredAt // Recovered stamps what lives with it
}

// Counts gives the sizes of the record.
func (sn *Snapshot) Counts() Counts { return sn.counts }

// Over gives the tasks that the last entry applied has ended. One that it has
// also forgotten is among them.
func (sn *Snapshot) Over() []*task.Task { return sn.over }

// Task finds a task, or nil.
func (sn *Snapshot) Task(id task.ID) *task.Task {
	t, _ := sn.tasks.Get([]byte(id))
	return t
}

// WatchTask is Task with a channel that closes when the task changes. While the
// task is unknown the channel may also close for others.
func (sn *Snapshot) WatchTask(id task.ID) (*task.Task, <-chan struct{}) {
	changed, t, _ := sn.tasks.Root().GetWatch([]byte(id))
	return t, changed
}

// Watch gives a channel that closes when any task changes.
func (sn *Snapshot) Watch() <-chan struct{} { return watchPrefix(sn.tasks, nil) }

// ByKey finds an owner's task by its idempotency key, or nil.
func (sn *Snapshot) ByKey(owner, key string) *task.Task {
	k, ok := sn.keys.Get(keyed{owner: owner, key: key})
	if !ok {
		return nil
	}
	return sn.Task(k.id)
}

// Newest gives tasks accepted before the given Seq, latest first; 0 starts with
// the newest of all.
func (sn *Snapshot) Newest(before uint64) iter.Seq[*task.Task] {
	return func(yield func(*task.Task) bool) {
		// Before 0 this wraps around to the greatest Seq there is.
		sn.accepted.DescendLessOrEqual(position{seq: before - 1}, func(p position) bool {
			return yield(sn.Task(p.id))
		})
	}
}

// NewestOf is Newest for the tasks of one owner, at a cost that does not depend
// on how many tasks others have.
func (sn *Snapshot) NewestOf(owner string, before uint64) iter.Seq[*task.Task] {
	return func(yield func(*task.Task) bool) {
		sn.owners.DescendLessOrEqual(owned{owner: owner, seq: before - 1}, func(o owned) bool {
			return o.owner == owner && yield(sn.Task(o.id))
		})
	}
}

// Pending gives the tasks that wait for a node (none that backs off), first accepted first.
func (sn *Snapshot) Pending() iter.Seq[*task.Task] { return values(sn.pending, nil) }

// WatchPending gives a channel that closes when what waits changes.
func (sn *Snapshot) WatchPending() <-chan struct{} { return watchPrefix(sn.pending, nil) }

// Ended gives the finished tasks, first finished first.
func (sn *Snapshot) Ended() iter.Seq[*task.Task] {
	return func(yield func(*task.Task) bool) {
		sn.ended.Ascend(func(p position) bool { return yield(sn.Task(p.id)) })
	}
}

// EndedLast is Ended backwards: last finished first.
func (sn *Snapshot) EndedLast() iter.Seq[*task.Task] {
	return func(yield func(*task.Task) bool) {
		sn.ended.Descend(func(p position) bool { return yield(sn.Task(p.id)) })
	}
}

// Deadlines gives the tasks to which something must happen by itself, each with
// its Deadline, the earliest first.
func (sn *Snapshot) Deadlines() iter.Seq2[time.Time, *task.Task] {
	return func(yield func(time.Time, *task.Task) bool) {
		sn.due.Ascend(func(p position) bool {
			return yield(time.Unix(0, p.at).UTC(), sn.Task(p.id))
		})
	}
}

// Node finds a node, or nil.
func (sn *Snapshot) Node(id task.NodeID) *task.Node {
	n, _ := sn.nodes.Get([]byte(id))
	return n
}

// Nodes gives every node that registered and is not forgotten, by ID.
func (sn *Snapshot) Nodes() iter.Seq[*task.Node] { return values(sn.nodes, nil) }

// NodesSince gives the nodes that changed after the entry of an index, also in
// what is reserved on them, at a cost that does not depend on how many did not.
// It does not tell of nodes that were forgotten: they took no tasks before either.
// A Restore counts as a change of all of them.
func (sn *Snapshot) NodesSince(index uint64) iter.Seq[*task.Node] {
	return func(yield func(*task.Node) bool) {
		sn.touched.AscendGreaterOrEqual(touch{index: index + 1}, func(t touch) bool {
			return yield(sn.Node(t.node))
		})
	}
}

// WatchNodes gives a channel that closes when any node changes, also in what is
// reserved on it.
func (sn *Snapshot) WatchNodes() <-chan struct{} { return watchPrefix(sn.nodes, nil) }

// On gives the tasks whose live attempt is on the node, by ID.
func (sn *Snapshot) On(node task.NodeID) iter.Seq[*task.Task] {
	return func(yield func(*task.Task) bool) {
		for t := range values(sn.on, nodePrefix(node)) {
			if t != nil && !yield(t) { // nil is the node's own place
				return
			}
		}
	}
}

// WatchOn gives a channel that closes when one of the tasks On a node changes,
// comes or goes. While the node is unknown it may also close for others.
func (sn *Snapshot) WatchOn(node task.NodeID) <-chan struct{} {
	return watchPrefix(sn.on, nodePrefix(node))
}

// values gives what a tree holds under a prefix, in the order of the keys.
func values[T any](tree *iradix.Tree[T], prefix []byte) iter.Seq[T] {
	return func(yield func(T) bool) {
		it := tree.Root().Iterator()
		it.SeekPrefix(prefix)
		for _, v, ok := it.Next(); ok; _, v, ok = it.Next() {
			if !yield(v) {
				return
			}
		}
	}
}

func watchPrefix[T any](tree *iradix.Tree[T], prefix []byte) <-chan struct{} {
	return tree.Root().Iterator().SeekPrefixWatch(prefix)
}
