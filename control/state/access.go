package state

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
	"google.golang.org/protobuf/encoding/protodelim"

	"ecs/internal/access"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// Waiting is what one owner has waiting for a node, and what backs off, to be run
// again.
type Waiting struct {
	Tasks int
	Bytes int64

	BackingOff      int
	BackingOffBytes int64
	// Of those, the ones whose program failed. An attempt that was lost is nobody's
	// fault, and says nothing of its owner.
	Failed      int
	FailedBytes int64
}

// WaitingOf is what an owner has waiting.
func (sn *Snapshot) WaitingOf(owner string) Waiting {
	w, _ := sn.waiting.Get([]byte(owner))
	return w
}

// queue counts a task that begins (sign 1) or ceases (sign -1) to wait or to back
// off.
func (c *change) queue(t *task.Task, sign int) {
	owner := []byte(t.Owner)
	w, _ := c.waiting.Get(owner)
	if t.BackingOff {
		w.BackingOff += sign
		w.BackingOffBytes += int64(sign) * Size(t)
		if n := len(t.Attempts); n > 0 && !t.Attempts[n-1].Outcome.Infrastructure() {
			w.Failed += sign
			w.FailedBytes += int64(sign) * Size(t)
		}
	} else {
		w.Tasks += sign
		w.Bytes += int64(sign) * Size(t)
	}
	if w == (Waiting{}) {
		c.waiting.Delete(owner)
		return
	}
	c.waiting.Insert(owner, w)
}

// share refuses a task that would have to wait where its owner has its share of
// the queue already.
func (c *change) share(t *task.Task, quota int) error {
	if quota <= 0 {
		return nil
	}
	w, _ := c.waiting.Get([]byte(t.Owner))
	if w.Tasks >= quota {
		return &task.Error{Code: task.CodeQuota, Message: fmt.Sprintf("this key has %d tasks waiting for a node, which is all it may have", w.Tasks)}
	}
	if most := c.limits.MaxPendingBytes / 2; w.Bytes+Size(t) > most {
		return &task.Error{Code: task.CodeQuota, Message: fmt.Sprintf("the waiting tasks of this key hold %d MiB, one key may hold %d MiB", w.Bytes>>20, most>>20)}
	}
	return nil
}

// rest refuses a task whose owner has its share of those that back off already:
// they fill what there is of that for all, wherever they run.
func (c *change) rest(t *task.Task, quota int) error {
	if quota <= 0 {
		return nil
	}
	w, _ := c.waiting.Get([]byte(t.Owner))
	failed, size := w.Failed, w.FailedBytes
	if c.rules < sharesFailures {
		failed, size = w.BackingOff, w.BackingOffBytes
	}
	if failed >= quota || size >= c.limits.MaxPendingBytes/2 {
		return &task.Error{Code: task.CodeQuota, Message: fmt.Sprintf("this key has %d tasks of %d MiB whose program failed and waits to be run again, which is all it may have", failed, size>>20)}
	}
	return nil
}

// accessRecord is who may do what, as one snapshot has it.
type accessRecord struct {
	keysByID *iradix.Tree[*access.Key]
	tokens   *iradix.Tree[*access.Token]   // by Hash
	revoked  *iradix.Tree[*access.Revoked] // by revokedKey
}

func noAccess() accessRecord {
	return accessRecord{keysByID: iradix.New[*access.Key](), tokens: iradix.New[*access.Token](), revoked: iradix.New[*access.Revoked]()}
}

// Key finds an API key, also a revoked one, or nil.
func (sn *Snapshot) Key(id string) *access.Key {
	k, _ := sn.keysByID.Get([]byte(id))
	return k
}

// Keys gives every API key of the record, by ID.
func (sn *Snapshot) Keys() iter.Seq[*access.Key] { return values(sn.keysByID, nil) }

// KeyCount is how many there are, revoked ones included.
func (sn *Snapshot) KeyCount() int { return sn.keysByID.Len() }

// AccessKnown reports whether there is a key, a token or a revocation: every node
// that has come so far knows what those are.
func (sn *Snapshot) AccessKnown() bool {
	return sn.keysByID.Len() > 0 || sn.tokens.Len() > 0 || sn.revoked.Len() > 0
}

// WatchKeys gives a channel that closes when a key is made or revoked.
func (sn *Snapshot) WatchKeys() <-chan struct{} { return watchPrefix(sn.keysByID, nil) }

// Token finds a join token by the SHA-256 of its secret, or nil.
func (sn *Snapshot) Token(hash [32]byte) *access.Token {
	t, _ := sn.tokens.Get(hash[:])
	return t
}

// Tokens gives every join token of the record.
func (sn *Snapshot) Tokens() iter.Seq[*access.Token] { return values(sn.tokens, nil) }

// Revoked gives the certificates that no node accepts any more.
func (sn *Snapshot) Revoked() iter.Seq[*access.Revoked] { return values(sn.revoked, nil) }

// RevokedSerial finds the revocation of one certificate, or nil.
func (sn *Snapshot) RevokedSerial(serial string) *access.Revoked {
	r, _ := sn.revoked.Get(revokedKey(&access.Revoked{Serial: serial}))
	return r
}

// RevokedNode finds the revocation of all certificates of a node up to some
// time, or nil.
func (sn *Snapshot) RevokedNode(node string) *access.Revoked {
	r, _ := sn.revoked.Get(revokedKey(&access.Revoked{Node: node}))
	return r
}

// WatchRevoked gives a channel that closes when a certificate is revoked.
func (sn *Snapshot) WatchRevoked() <-chan struct{} { return watchPrefix(sn.revoked, nil) }

// revokedKey tells serials from nodes.
func revokedKey(r *access.Revoked) []byte {
	if r.Serial != "" {
		return []byte("s" + r.Serial)
	}
	return []byte("n" + r.Node)
}

// records gives what a snapshot holds of it, in a fixed order.
func (a accessRecord) records() iter.Seq[*ecsv1.SnapshotRecord] {
	return func(yield func(*ecsv1.SnapshotRecord) bool) {
		for k := range values(a.keysByID, nil) {
			if !yield(&ecsv1.SnapshotRecord{Kind: &ecsv1.SnapshotRecord_Key{Key: taskwire.FromKey(k)}}) {
				return
			}
		}
		for t := range values(a.tokens, nil) {
			if !yield(&ecsv1.SnapshotRecord{Kind: &ecsv1.SnapshotRecord_Token{Token: taskwire.FromJoinToken(t)}}) {
				return
			}
		}
		for r := range values(a.revoked, nil) {
			if !yield(&ecsv1.SnapshotRecord{Kind: &ecsv1.SnapshotRecord_Revoked{Revoked: taskwire.FromRevoked(r)}}) {
				return
			}
		}
	}
}

// accessChange collects what an entry does to it.
type accessChange struct {
	keysByID *iradix.Txn[*access.Key]
	tokens   *iradix.Txn[*access.Token]
	revoked  *iradix.Txn[*access.Revoked]
}

func (a accessRecord) change() accessChange {
	return accessChange{keysByID: tracked(a.keysByID), tokens: a.tokens.Txn(), revoked: tracked(a.revoked)}
}

func (a accessChange) commit() accessRecord {
	return accessRecord{keysByID: a.keysByID.CommitOnly(), tokens: a.tokens.CommitOnly(), revoked: a.revoked.CommitOnly()}
}

func (a accessChange) notify() {
	a.keysByID.Notify()
	a.revoked.Notify()
}

func (a accessChange) clear() {
	a.keysByID.DeletePrefix(nil)
	a.tokens.DeletePrefix(nil)
	a.revoked.DeletePrefix(nil)
}

// readAccess reads what records wrote.
func (c *change) readAccess(r *bufio.Reader, h *ecsv1.SnapshotHeader) error {
	read := func(n uint64, what string, take func(*ecsv1.SnapshotRecord) error) error {
		for i := range n {
			var m ecsv1.SnapshotRecord
			err := protodelim.UnmarshalFrom(r, &m)
			if err == nil {
				err = take(&m)
			}
			if err != nil {
				return fmt.Errorf("%s %d of %d: %w", what, i+1, n, err)
			}
		}
		return nil
	}
	return errors.Join(
		read(h.GetKeys(), "key", c.readKey),
		read(h.GetTokens(), "token", c.readToken),
		read(h.GetRevoked(), "revoked certificate", c.readRevoked))
}

func (c *change) readKey(m *ecsv1.SnapshotRecord) error {
	k := taskwire.ToKey(m.GetKey())
	if k == nil || k.ID == "" {
		return fmt.Errorf("another record in its place: %T", m.GetKind())
	}
	if _, twice := c.access.keysByID.Insert([]byte(k.ID), k); twice {
		return fmt.Errorf("key %s appears twice", k.ID)
	}
	return nil
}

func (c *change) readToken(m *ecsv1.SnapshotRecord) error {
	t := taskwire.ToJoinToken(m.GetToken())
	if t == nil {
		return fmt.Errorf("another record in its place: %T", m.GetKind())
	}
	if _, twice := c.access.tokens.Insert(t.Hash[:], t); twice {
		return fmt.Errorf("token %s appears twice", hex.EncodeToString(t.Hash[:4]))
	}
	return nil
}

func (c *change) readRevoked(m *ecsv1.SnapshotRecord) error {
	r := taskwire.ToRevoked(m.GetRevoked())
	if r == nil || (r.Serial == "" && r.Node == "") {
		return fmt.Errorf("another record in its place: %T", m.GetKind())
	}
	if _, twice := c.access.revoked.Insert(revokedKey(r), r); twice {
		return fmt.Errorf("the revocation of %s%s appears twice", r.Serial, r.Node)
	}
	return nil
}
