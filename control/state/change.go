package state

import (
	"encoding/binary"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"ecs/internal/task"
	"ecs/internal/taskwire"
)

// stamped is a command, and the time and the rules its proposer gave it.
type stamped struct {
	Command
	now   time.Time
	rules uint32
}

// change collects what the commands of one entry do to the snapshot before it.
// Its put methods are the only place where an index is kept in step.
type change struct {
	before  *Snapshot
	limits  Limits
	index   uint64
	ordinal uint64 // of the command that is being applied
	now     time.Time
	rules   uint32 // of that command
	counts  Counts
	over    []*task.Task // that have their result since

	cluster     string
	incarnation uint64
	recovery    string
	recoveredAt uint64

	tasks   *iradix.Txn[*task.Task]
	pending *iradix.Txn[*task.Task]
	on      *iradix.Txn[*task.Task]
	nodes   *iradix.Txn[*task.Node]
	wishes  []Wish
	waiting *iradix.Txn[Waiting]
	access  accessChange
	gossip  gossipChange
	*indexes
}

func newChange(before *Snapshot, x *indexes, lim Limits, index uint64) *change {
	return &change{
		before: before,
		limits: lim,
		index:  index,
		counts: before.counts,

		cluster:     before.cluster,
		incarnation: before.incarnation,
		recovery:    before.recovery,
		recoveredAt: before.recoveredAt,

		tasks:   tracked(before.tasks),
		pending: tracked(before.pending),
		on:      tracked(before.on),
		nodes:   tracked(before.nodes),
		wishes:  before.wishes,
		waiting: before.waiting.Txn(),
		access:  before.accessRecord.change(),
		gossip:  before.gossipRecord.change(),
		indexes: x,
	}
}

func tracked[T any](tree *iradix.Tree[T]) *iradix.Txn[T] {
	txn := tree.Txn()
	txn.TrackMutate(true)
	return txn
}

// commit gives the next snapshot and what wakes those who watch the one before;
// it is to be called once the snapshot is published.
func (c *change) commit() (*Snapshot, func()) {
	sn := &Snapshot{
		index:  c.index,
		counts: c.counts,

		cluster:     c.cluster,
		incarnation: c.incarnation,
		recovery:    c.recovery,
		recoveredAt: c.recoveredAt,

		over: c.over,

		tasks:   c.tasks.CommitOnly(),
		pending: c.pending.CommitOnly(),
		on:      c.on.CommitOnly(),
		nodes:   c.nodes.CommitOnly(),
		wishes:  c.wishes,
		waiting: c.waiting.CommitOnly(),

		accessRecord: c.access.commit(),
		gossipRecord: c.gossip.commit(),
	}
	sn.publish(c.indexes)
	return sn, func() {
		c.tasks.Notify()
		c.pending.Notify()
		c.on.Notify()
		c.nodes.Notify()
		c.access.notify()
		c.gossip.notify()
	}
}

// stamp is a number that grows with every command of the log.
func (c *change) stamp() uint64 { return c.index<<ordinalBits | c.ordinal }

func (c *change) task(id task.ID) *task.Task {
	t, _ := c.tasks.Get([]byte(id))
	return t
}

func (c *change) node(id task.NodeID) *task.Node {
	n, _ := c.nodes.Get([]byte(id))
	return n
}

func (c *change) byKey(owner, key string) *task.Task {
	k, ok := c.keys.work.Get(keyed{owner: owner, key: key})
	if !ok {
		return nil
	}
	return c.task(k.id)
}

// liveOn lists the tasks whose live attempt is on the node, by ID, so that the
// caller may change them as it goes.
func (c *change) liveOn(node task.NodeID) []*task.Task {
	var live []*task.Task
	it := c.on.Root().Iterator()
	it.SeekPrefix(nodePrefix(node))
	for _, t, ok := it.Next(); ok; _, t, ok = it.Next() {
		if t != nil { // the node's own place
			live = append(live, t)
		}
	}
	return live
}

// held finds the task whose live attempt the token names, or nil.
func (c *change) held(tok task.Token) *task.Task {
	t := c.task(tok.Task)
	if t == nil {
		return nil
	}
	if live := t.Live(); live == nil || tokensChecked && live.Token(t.ID) != tok {
		return nil
	}
	return t
}

// add enters a new task.
func (c *change) add(t *task.Task) {
	c.accepted.insert(position{seq: t.Seq, id: t.ID})
	c.owners.insert(owned{owner: t.Owner, seq: t.Seq, id: t.ID})
	if t.Key != "" {
		c.keys.insert(keyed{owner: t.Owner, key: t.Key, id: t.ID})
	}
	c.tasks.Insert([]byte(t.ID), t)
	c.enter(t)
}

// put replaces a task by its changed copy.
func (c *change) put(old, t *task.Task) {
	if a, b := old.Live(), t.Live(); a != nil && b != nil && a.Node == b.Node {
		c.on.Insert(liveKey(b.Node, t.ID), t) // still there: nothing else moves
		c.retime(old, t)
	} else {
		c.leave(old)
		c.enter(t)
	}
	c.tasks.Insert([]byte(t.ID), t)
}

// drop removes a task and everything that leads to it.
func (c *change) drop(t *task.Task) {
	c.leave(t)
	c.accepted.remove(position{seq: t.Seq})
	c.owners.remove(owned{owner: t.Owner, seq: t.Seq})
	if t.Key != "" {
		c.keys.remove(keyed{owner: t.Owner, key: t.Key})
	}
	c.tasks.Delete([]byte(t.ID))
}

// enter counts a task in the state it has come to.
func (c *change) enter(t *task.Task) {
	switch {
	case t.BackingOff:
		c.counts.BackingOff++
		c.counts.BackingOffBytes += Size(t)
		c.queue(t, 1)
	case t.State == task.Pending:
		c.counts.Pending++
		c.counts.PendingBytes += Size(t)
		c.queue(t, 1)
		c.pending.Insert(seqKey(t.Seq), t)
	case t.State == task.Finished:
		c.counts.Finished++
		c.counts.FinishedBytes += Size(t)
		c.ended.insert(position{at: taskwire.FromTime(t.FinishedAt), seq: t.Seq, id: t.ID})
	default:
		live := t.Live()
		c.counts.Live++
		c.on.Insert(liveKey(live.Node, t.ID), t)
		c.reserve(live.Node, t.Spec.Resources, 1)
	}
	if at, ok := Deadline(t); ok {
		c.due.insert(position{at: at.UnixNano(), seq: t.Seq, id: t.ID})
	}
}

// leave undoes enter.
func (c *change) leave(t *task.Task) {
	switch {
	case t.BackingOff:
		c.counts.BackingOff--
		c.counts.BackingOffBytes -= Size(t)
		c.queue(t, -1)
	case t.State == task.Pending:
		c.counts.Pending--
		c.counts.PendingBytes -= Size(t)
		c.queue(t, -1)
		c.pending.Delete(seqKey(t.Seq))
	case t.State == task.Finished:
		c.counts.Finished--
		c.counts.FinishedBytes -= Size(t)
		c.ended.remove(position{at: taskwire.FromTime(t.FinishedAt), seq: t.Seq})
	default:
		live := t.Live()
		c.counts.Live--
		c.on.Delete(liveKey(live.Node, t.ID))
		c.reserve(live.Node, t.Spec.Resources, -1)
	}
	if at, ok := Deadline(t); ok {
		c.due.remove(position{at: at.UnixNano(), seq: t.Seq})
	}
}

// retime moves a task that stays live to its new deadline.
func (c *change) retime(old, t *task.Task) {
	before, had := Deadline(old)
	after, has := Deadline(t)
	if had == has && before.Equal(after) {
		return
	}
	if had {
		c.due.remove(position{at: before.UnixNano(), seq: old.Seq})
	}
	if has {
		c.due.insert(position{at: after.UnixNano(), seq: t.Seq, id: t.ID})
	}
}

// reserve adds (sign 1) or gives back (sign -1) what one attempt holds.
func (c *change) reserve(id task.NodeID, r task.Resources, sign int64) {
	n := *c.node(id)
	n.Reserved.MilliCPU += sign * r.MilliCPU
	n.Reserved.Memory += sign * r.Memory
	n.Reserved.Pids += sign * r.Pids
	n.Attempts += int(sign)
	c.putNode(&n)
}

func (c *change) putNode(n *task.Node) {
	c.nodes.Insert([]byte(n.ID), n)
	last, known := c.touches[n.ID]
	if !known {
		// A place of its own in the tree, for as long as the record knows the
		// node: without one, who watches a node that runs nothing is woken by
		// its neighbours' tasks.
		c.on.Insert(nodePrefix(n.ID), nil)
	}
	if !known || last != c.index {
		c.touched.remove(touch{index: last, node: n.ID})
		c.touched.insert(touch{index: c.index, node: n.ID})
		c.touches[n.ID] = c.index
	}
}

// dropNode removes a node that holds nothing.
func (c *change) dropNode(id task.NodeID) {
	c.nodes.Delete([]byte(id))
	c.on.Delete(nodePrefix(id))
	if last, known := c.touches[id]; known {
		c.touched.remove(touch{index: last, node: id})
		delete(c.touches, id)
	}
}

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// nodePrefix begins the keys of a node's live tasks. Node IDs hold no zero
// byte, so no node's prefix begins another's.
func nodePrefix(node task.NodeID) []byte { return append([]byte(node), 0) }

func liveKey(node task.NodeID, id task.ID) []byte { return append(nodePrefix(node), id...) }

// Size is about what a record costs in memory, in bytes. It need not be exact,
// only the same on every node and growing with the record.
func Size(t *task.Task) int64 {
	const fixed = 2 << 10 // structs, indexes, short strings
	n := fixed + len(t.CID) + len(t.Owner) + len(t.Key) + len(t.BodyMAC) + 256*len(t.Attempts) + 8*len(t.Spec.RetryExitCodes)
	s := &t.Spec
	n += len(s.Image) + len(s.Workdir) + len(s.User) + len(s.Secrets) + len(s.Stdin)
	for i := range s.Files {
		n += 64 + len(s.Files[i].Path) + len(s.Files[i].Content)
	}
	for _, list := range [][]string{s.Command, s.Entrypoint, s.Env, s.CapAdd, s.Placement.Zones, s.SecretEnvNames, s.Outputs} {
		for _, v := range list {
			n += 16 + len(v)
		}
	}
	for k, v := range s.Labels { // a sum does not depend on the order
		n += 48 + len(k) + len(v)
	}
	if r := t.Result; r != nil {
		n += 256 + len(r.Reason) + len(r.Stdout.Head) + len(r.Stderr.Head)
		if r.Outputs != nil {
			n += 128 + 8*len(r.Outputs.Missing) + len(r.Outputs.Lost)
		}
	}
	return int64(n)
}
