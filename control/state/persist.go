package state

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// format is that of the snapshot's stream. A reader refuses any other.
const format = 1

// Write writes the whole record: a header, the nodes by ID, the tasks by Seq, the
// wishes by image, then keys, tokens, revoked certificates, and the ring of gossip
// keys with who confirmed it. Equal records give equal bytes. It may run beside Apply for as long as it
// likes.
func (sn *Snapshot) Write(w io.Writer) error {
	out := bufio.NewWriterSize(w, 64<<10)
	header := &ecsv1.SnapshotHeader{
		Format: format,
		Index:  sn.index,
		Nodes:  uint64(sn.nodes.Len()),
		Tasks:  uint64(sn.tasks.Len()),
		Wishes: uint64(len(sn.wishes)),

		Cluster:     sn.cluster,
		Incarnation: sn.incarnation,
		Recovery:    sn.recovery,
		RecoveredAt: sn.recoveredAt,

		Keys:    uint64(sn.keysByID.Len()),
		Tokens:  uint64(sn.tokens.Len()),
		Revoked: uint64(sn.revoked.Len()),

		GossipKeys:    sn.GossipKeys() != nil,
		GossipHolders: uint64(sn.holders.Len()),
	}
	err := writeRecord(out, &ecsv1.SnapshotRecord{Kind: &ecsv1.SnapshotRecord_Header{Header: header}})
	for n := range sn.Nodes() {
		if err != nil {
			break
		}
		err = writeRecord(out, &ecsv1.SnapshotRecord{Kind: &ecsv1.SnapshotRecord_Node{Node: taskwire.FromNode(n)}})
	}
	sn.accepted.Ascend(func(p position) bool {
		if err == nil {
			m := taskwire.FromTask(sn.Task(p.id))
			err = writeRecord(out, &ecsv1.SnapshotRecord{Kind: &ecsv1.SnapshotRecord_Task{Task: m}})
		}
		return err == nil
	})
	for _, w := range sn.wishes {
		if err == nil {
			err = writeRecord(out, &ecsv1.SnapshotRecord{Kind: &ecsv1.SnapshotRecord_Wish{Wish: FromWish(w)}})
		}
	}
	for _, records := range []iter.Seq[*ecsv1.SnapshotRecord]{sn.accessRecord.records(), sn.gossipRecord.records()} {
		for m := range records {
			if err != nil {
				break
			}
			err = writeRecord(out, m)
		}
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return fmt.Errorf("write snapshot %d: %w", sn.index, err)
	}
	return nil
}

func writeRecord(w io.Writer, m *ecsv1.SnapshotRecord) error {
	opts := protodelim.MarshalOptions{MarshalOptions: proto.MarshalOptions{Deterministic: true}}
	_, err := opts.MarshalTo(w, m)
	return err
}

// Hash is the SHA-256 of what Write writes. Replicas with the same index have
// the same hash. It reads the whole record.
func (sn *Snapshot) Hash() [32]byte {
	h := sha256.New()
	if err := sn.Write(h); err != nil {
		panic(err) // a hash takes every write, and every record can be marshalled
	}
	return [32]byte(h.Sum(nil))
}

// Restore replaces the whole record by what Write wrote. On an error nothing
// has changed. Everybody who watches the old record is woken.
func (s *Store) Restore(r io.Reader) error {
	c := newChange(s.latest.Load(), newIndexes(), s.limits, 0)
	c.counts, c.wishes = Counts{}, nil
	// Deleting within the old trees, rather than starting new ones, is what
	// wakes their watchers.
	c.tasks.DeletePrefix(nil)
	c.pending.DeletePrefix(nil)
	c.on.DeletePrefix(nil)
	c.nodes.DeletePrefix(nil)
	c.waiting.DeletePrefix(nil)
	c.access.clear()
	c.gossip.clear()
	if err := c.read(bufio.NewReaderSize(r, 64<<10)); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	after, notify := c.commit()
	s.indexes = c.indexes
	s.latest.Store(after)
	notify()
	return nil
}

func (c *change) read(r *bufio.Reader) error {
	var first ecsv1.SnapshotRecord
	if err := protodelim.UnmarshalFrom(r, &first); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	header := first.GetHeader()
	if header.GetFormat() != format {
		return fmt.Errorf("header: format %d, this version reads %d", header.GetFormat(), format)
	}
	c.index = header.GetIndex()
	c.cluster, c.incarnation, c.recovery = header.GetCluster(), header.GetIncarnation(), header.GetRecovery()
	c.recoveredAt = header.GetRecoveredAt()
	for i := range header.GetNodes() {
		if err := c.readNode(r); err != nil {
			return fmt.Errorf("node %d of %d: %w", i+1, header.GetNodes(), err)
		}
	}
	var seq uint64
	for i := range header.GetTasks() {
		t, err := c.readTask(r, seq)
		if err != nil {
			return fmt.Errorf("task %d of %d: %w", i+1, header.GetTasks(), err)
		}
		seq = t.Seq
	}
	if err := c.readWishes(r, header.GetWishes()); err != nil {
		return err
	}
	if err := c.readAccess(r, header); err != nil {
		return err
	}
	if err := c.readGossipKeys(r, header); err != nil {
		return err
	}
	switch _, err := r.ReadByte(); {
	case err == nil:
		return errors.New("more follows after the last record")
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

func (c *change) readWishes(r *bufio.Reader, n uint64) error {
	if n > MaxWishes {
		return fmt.Errorf("%d wishes, the most is %d", n, MaxWishes)
	}
	for i := range n {
		var m ecsv1.SnapshotRecord
		if err := protodelim.UnmarshalFrom(r, &m); err != nil {
			return fmt.Errorf("wish %d of %d: %w", i+1, n, err)
		}
		w := toWish(m.GetWish())
		switch {
		case m.GetWish() == nil:
			return fmt.Errorf("wish %d of %d: another record in its place: %T", i+1, n, m.GetKind())
		case w.Spec.Image == "" || w.Count == 0 || w.Count > MaxWishCount:
			return fmt.Errorf("wish %d of %d: %d containers of image %q", i+1, n, w.Count, w.Spec.Image)
		case i > 0 && w.Spec.Image <= c.wishes[i-1].Spec.Image:
			return fmt.Errorf("wish %d of %d: image %q follows %q", i+1, n, w.Spec.Image, c.wishes[i-1].Spec.Image)
		}
		c.wishes = append(c.wishes, w)
	}
	return nil
}

func (c *change) readNode(r *bufio.Reader) error {
	var m ecsv1.SnapshotRecord
	if err := protodelim.UnmarshalFrom(r, &m); err != nil {
		return err
	}
	n := taskwire.ToNode(m.GetNode())
	switch {
	case n == nil:
		return fmt.Errorf("another record in its place: %T", m.GetKind())
	case !validNodeID(n.ID):
		return fmt.Errorf("node id %q", n.ID)
	case c.node(n.ID) != nil:
		return fmt.Errorf("node %s appears twice", n.ID)
	}
	c.putNode(n)
	return nil
}

func (c *change) readTask(r *bufio.Reader, after uint64) (*task.Task, error) {
	var m ecsv1.SnapshotRecord
	if err := protodelim.UnmarshalFrom(r, &m); err != nil {
		return nil, err
	}
	t := taskwire.ToTask(m.GetTask())
	if t == nil {
		return nil, fmt.Errorf("another record in its place: %T", m.GetKind())
	}
	if err := c.sound(t); err != nil {
		return nil, fmt.Errorf("task %s: %w", t.ID, err)
	}
	if t.Seq <= after {
		return nil, fmt.Errorf("task %s: seq %d follows %d", t.ID, t.Seq, after)
	}
	c.add(t)
	return t, nil
}

// sound reports what would break the rules' assumptions if it were restored.
func (c *change) sound(t *task.Task) error {
	switch {
	case t.ID == "" || c.task(t.ID) != nil:
		return errors.New("no id, or one that another task has")
	case t.Key != "" && c.byKey(t.Owner, t.Key) != nil:
		return errors.New("another task has its idempotency key")
	case t.State < task.Pending || t.State > task.Finished:
		return fmt.Errorf("state %d", t.State)
	case t.BackingOff && (t.State != task.Pending || t.RetryAt().IsZero()):
		return fmt.Errorf("state %s, backing off until nothing", t.State)
	case (t.State == task.Finished) != (t.Result != nil):
		return fmt.Errorf("state %s, result %v", t.State, t.Result != nil)
	case t.State != task.Assigned && t.State != task.Running:
		return nil
	}
	live := t.Live()
	if live == nil {
		return fmt.Errorf("state %s without an attempt", t.State)
	}
	if c.node(live.Node) == nil {
		return fmt.Errorf("its node %q is unknown", live.Node)
	}
	return nil
}

func validNodeID(id task.NodeID) bool { return id != "" && !strings.ContainsRune(string(id), 0) }
