package state

import (
	"cmp"
	"strings"
	"time"

	"github.com/google/btree"

	"ecs/internal/task"
)

// The orders in which tasks are read but not watched are B-trees with copy on
// write: an entry costs some 50 bytes there, against 450 in a radix tree, which
// carries two channels for each.

// position is one task's place in an order by some number.
type position struct {
	at  int64 // 0 in the order of acceptance
	seq uint64
	id  task.ID
}

func (a position) less(b position) bool {
	if a.at != b.at {
		return a.at < b.at
	}
	return a.seq < b.seq
}

// owned is one task's place among those of its owner.
type owned struct {
	owner string
	seq   uint64
	id    task.ID
}

func (a owned) less(b owned) bool {
	if c := strings.Compare(a.owner, b.owner); c != 0 {
		return c < 0
	}
	return a.seq < b.seq
}

// keyed is one task's idempotency key.
type keyed struct {
	owner, key string
	id         task.ID
}

func (a keyed) less(b keyed) bool {
	return cmp.Or(strings.Compare(a.owner, b.owner), strings.Compare(a.key, b.key)) < 0
}

// touch is the last entry that changed a node.
type touch struct {
	index uint64
	node  task.NodeID
}

func (a touch) less(b touch) bool {
	return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(a.node, b.node)) < 0
}

// indexes are the orders as the writer sees them. Readers see published copies
// in a snapshot.
type indexes struct {
	accepted index[position] // by Seq
	owners   index[owned]    // by owner and Seq
	keys     index[keyed]    // by owner and idempotency key
	ended    index[position] // finished ones by FinishedAt
	due      index[position] // by Deadline
	touched  index[touch]    // nodes by the entry that changed them last
	touches  map[task.NodeID]uint64
}

func newIndexes() *indexes {
	return &indexes{
		accepted: newIndex(position.less),
		owners:   newIndex(owned.less),
		keys:     newIndex(keyed.less),
		ended:    newIndex(position.less),
		due:      newIndex(position.less),
		touched:  newIndex(touch.less),
		touches:  make(map[task.NodeID]uint64),
	}
}

// index is a tree that one writer changes and publishes.
type index[T any] struct {
	work      *btree.BTreeG[T]
	published *btree.BTreeG[T]
	dirty     bool
}

// degree keeps the pages that a change copies at about a kilobyte.
const degree = 16

func newIndex[T any](less btree.LessFunc[T]) index[T] {
	work := btree.NewG(degree, less)
	return index[T]{work: work, published: work.Clone()}
}

func (x *index[T]) insert(v T) {
	x.work.ReplaceOrInsert(v)
	x.dirty = true
}

func (x *index[T]) remove(v T) {
	x.work.Delete(v)
	x.dirty = true
}

// publish gives a copy that never changes. It costs nothing where nothing was
// changed and two small allocations otherwise.
func (x *index[T]) publish() *btree.BTreeG[T] {
	if x.dirty {
		x.published = x.work.Clone()
		x.dirty = false
	}
	return x.published
}

// Deadline is when something must happen to a task by itself, and whether there
// is such a time: a pending one expires or runs out of its total limit, one that
// backs off goes back into the queue, a running one runs out of its total limit, a finished one may be forgotten.
func Deadline(t *task.Task) (time.Time, bool) {
	limits := t.Spec.Timeouts
	var at time.Time
	switch {
	case t.State == task.Finished:
		return t.FinishedAt.Add(t.Spec.Retention), t.Spec.Retention > 0
	case t.StopAs != "":
		return at, false // asked to stop before
	}
	if limits.Total > 0 {
		at = t.SubmittedAt.Add(limits.Total)
	}
	if t.BackingOff {
		if again := t.RetryAt(); at.IsZero() || again.Before(at) {
			at = again
		}
		return at, true
	}
	if t.State == task.Pending && limits.Queue > 0 {
		if queue := QueuedSince(t).Add(limits.Queue); at.IsZero() || queue.Before(at) {
			at = queue
		}
	}
	return at, !at.IsZero()
}

// QueuedSince is when a pending task's queue clock began: when it was accepted,
// or when its last attempt was lost, or when its backoff was over.
func QueuedSince(t *task.Task) time.Time {
	if n := len(t.Attempts); n > 0 {
		last := &t.Attempts[n-1]
		if last.RetryAt.After(last.EndedAt) {
			return last.RetryAt
		}
		return last.EndedAt
	}
	return t.SubmittedAt
}
