package state

import (
	"fmt"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"ecs/internal/access"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// What the record keeps of keys, tokens and revocations at most.
const (
	MaxKeys        = 10_000 // that count
	maxRevokedKeys = 1_000  // the oldest make room
	maxTokens      = 1_000  // those that can't be used any more make room
	maxRevoked     = 10_000 // certificates; expired ones make room
)

// PutKey makes an API key. With First it does so only where there never was one,
// and names the one there is as its refusal's reason.
type PutKey struct {
	Key   access.Key
	First bool
}

// RevokeKey ends an API key. Its record stays for people, without the hash. The
// last key with the role admin can't be revoked.
type RevokeKey struct {
	ID string
	By string // the key that asks
}

// PutToken makes a join token.
type PutToken struct {
	Token access.Token
}

// SpendToken uses a join token up for one certificate request of one node. The
// same again changes nothing, so that a node whose answer was lost may ask again.
type SpendToken struct {
	Hash    [32]byte // of the token's secret
	Role    string
	Node    string
	Request [32]byte // SHA-256 of the certificate request
}

// WithdrawToken is the SpendToken that uses a token up for nobody. A certificate
// request has a hash that is never all zeros.
func WithdrawToken(t *access.Token, by string) SpendToken {
	return SpendToken{Hash: t.Hash, Role: t.Role, Node: "withdrawn by " + by}
}

// RevokeCertificate ends what certificates are good for; see access.Revoked. Its
// time is when the command was proposed.
type RevokeCertificate struct {
	Certificate access.Revoked
}

func (cmd PutKey) apply(c *change) Outcome {
	k := cmd.Key
	if k.ID == "" || k.Hash == "" {
		return refuse(task.CodeBadRequest, "a key needs an id and a hash")
	}
	if _, err := access.ParseRole(string(k.Role)); err != nil {
		return refuse(task.CodeBadRequest, "a key's role: "+err.Error())
	}
	keys := c.access.keysByID
	if known, ok := keys.Get([]byte(k.ID)); ok {
		if known.Hash == k.Hash {
			return Outcome{Existed: true}
		}
		return refuse(task.CodeKeyConflict, "there is or was a key of this id")
	}
	counting := 0
	for _, known := range valuesOf(keys) {
		if cmd.First {
			return refuse(task.CodeStale, "the first key was made before")
		}
		if known.Counts() {
			counting++
		}
	}
	if counting >= MaxKeys {
		return refuse(task.CodeTooMany, fmt.Sprintf("there are %d keys, which is all there may be; revoke some", counting))
	}
	k.CreatedAt, k.RevokedAt, k.RevokedBy = c.now, time.Time{}, ""
	keys.Insert([]byte(k.ID), &k)
	return Outcome{}
}

func (cmd RevokeKey) apply(c *change) Outcome {
	keys := c.access.keysByID
	old, ok := keys.Get([]byte(cmd.ID))
	switch {
	case !ok:
		return refuse(task.CodeNotFound, "there is no such key")
	case !old.Counts():
		return Outcome{Existed: true}
	}
	admins, revoked := 0, 0
	var oldest *access.Key
	for _, k := range valuesOf(keys) {
		switch {
		case k.Counts() && k.Role == access.Admin:
			admins++
		case !k.Counts():
			revoked++
			if oldest == nil || k.RevokedAt.Before(oldest.RevokedAt) {
				oldest = k
			}
		}
	}
	if old.Role == access.Admin && admins == 1 {
		return refuse(task.CodeLastAdmin, "it is the only admin key; make another one first")
	}
	if revoked >= maxRevokedKeys {
		keys.Delete([]byte(oldest.ID))
	}
	k := *old
	k.Hash, k.RevokedAt, k.RevokedBy = "", c.now, cmd.By
	keys.Insert([]byte(k.ID), &k)
	return Outcome{}
}

func (cmd PutToken) apply(c *change) Outcome {
	t := cmd.Token
	tokens := c.access.tokens
	if t.Hash == [32]byte{} || t.Role == "" || !t.ExpiresAt.After(c.now) {
		return refuse(task.CodeBadRequest, "a token needs a hash, a role and a time ahead")
	}
	if _, ok := tokens.Get(t.Hash[:]); ok {
		return Outcome{Existed: true}
	}
	if len(valuesOf(tokens)) >= maxTokens {
		for _, old := range valuesOf(tokens) {
			if !old.SpentAt.IsZero() || !old.ExpiresAt.After(c.now) {
				tokens.Delete(old.Hash[:])
			}
		}
		if n := len(valuesOf(tokens)); n >= maxTokens {
			return refuse(task.CodeTooMany, fmt.Sprintf("%d join tokens are open, which is all there may be", n))
		}
	}
	t.CreatedAt, t.SpentAt, t.Node, t.Request = c.now, time.Time{}, "", [32]byte{}
	tokens.Insert(t.Hash[:], &t)
	return Outcome{}
}

// apply says no more than that the token is refused: why is nobody's business
// who has no token that is good.
func (cmd SpendToken) apply(c *change) Outcome {
	refused := func() Outcome {
		return refuse(task.CodeToken, "the join token is unknown, used, too old, or for another role")
	}
	old, ok := c.access.tokens.Get(cmd.Hash[:])
	switch {
	case !ok || old.Role != cmd.Role || cmd.Node == "":
		return refused()
	case !old.SpentAt.IsZero():
		// A first use by a revoked node is refused before it is proposed: to do so
		// here would have nodes of different versions keep different records.
		_, revoked := c.access.revoked.Get(revokedKey(&access.Revoked{Node: cmd.Node}))
		if !revoked && old.Node == cmd.Node && old.Request == cmd.Request && c.now.Before(old.ExpiresAt) {
			return Outcome{Existed: true}
		}
		return refused()
	case !c.now.Before(old.ExpiresAt):
		return refused()
	}
	t := *old
	t.SpentAt, t.Node, t.Request = c.now, cmd.Node, cmd.Request
	c.access.tokens.Insert(t.Hash[:], &t)
	return Outcome{}
}

func (cmd RevokeCertificate) apply(c *change) Outcome {
	r := cmd.Certificate
	if r.Serial == "" && r.Node == "" {
		return refuse(task.CodeBadRequest, "a revocation needs a serial number or a node")
	}
	r.RevokedAt = c.now
	revoked := c.access.revoked
	key := revokedKey(&r)
	_, known := revoked.Get(key)
	switch {
	case known && r.Serial != "":
		return Outcome{Existed: true}
	case !known: // one of a node that is known counts up to now from here on
		n := 0
		for _, old := range valuesOf(revoked) {
			n++
			if !old.ExpiresAt.IsZero() && old.ExpiresAt.Before(c.now) {
				revoked.Delete(revokedKey(old))
				n--
			}
		}
		if n >= maxRevoked {
			return refuse(task.CodeTooMany, fmt.Sprintf("%d certificates are revoked, which is all there may be: make a new authority", n))
		}
	}
	revoked.Insert(key, &r)
	return Outcome{}
}

// accessToWire fills in the commands that this file knows.
func accessToWire(c Command, m *ecsv1.Command) {
	switch c := c.(type) {
	case PutKey:
		m.Kind = &ecsv1.Command_PutKey{PutKey: &ecsv1.PutKey{Key: taskwire.FromKey(&c.Key), First: c.First}}
	case RevokeKey:
		m.Kind = &ecsv1.Command_RevokeKey{RevokeKey: &ecsv1.RevokeKey{Id: c.ID, By: c.By}}
	case PutToken:
		m.Kind = &ecsv1.Command_PutToken{PutToken: &ecsv1.PutToken{Token: taskwire.FromJoinToken(&c.Token)}}
	case SpendToken:
		m.Kind = &ecsv1.Command_SpendToken{SpendToken: &ecsv1.SpendToken{Hash: c.Hash[:], Role: c.Role, Node: c.Node, Request: c.Request[:]}}
	case RevokeCertificate:
		m.Kind = &ecsv1.Command_RevokeCertificate{RevokeCertificate: &ecsv1.RevokeCertificate{Certificate: taskwire.FromRevoked(&c.Certificate)}}
	}
}

// accessFromWire is its inverse; nil for every other kind.
func accessFromWire(m *ecsv1.Command) Command {
	switch k := m.GetKind().(type) {
	case *ecsv1.Command_PutKey:
		c := PutKey{First: k.PutKey.GetFirst()}
		if key := taskwire.ToKey(k.PutKey.GetKey()); key != nil {
			c.Key = *key
		}
		return c
	case *ecsv1.Command_RevokeKey:
		return RevokeKey{ID: k.RevokeKey.GetId(), By: k.RevokeKey.GetBy()}
	case *ecsv1.Command_PutToken:
		var c PutToken
		if t := taskwire.ToJoinToken(k.PutToken.GetToken()); t != nil {
			c.Token = *t
		}
		return c
	case *ecsv1.Command_SpendToken:
		return SpendToken{Hash: taskwire.ToSum(k.SpendToken.GetHash()), Role: k.SpendToken.GetRole(),
			Node: k.SpendToken.GetNode(), Request: taskwire.ToSum(k.SpendToken.GetRequest())}
	case *ecsv1.Command_RevokeCertificate:
		var c RevokeCertificate
		if r := taskwire.ToRevoked(k.RevokeCertificate.GetCertificate()); r != nil {
			c.Certificate = *r
		}
		return c
	}
	return nil
}

// valuesOf lists what a transaction sees, by key, so that the caller may change
// it as it goes.
func valuesOf[T any](txn *iradix.Txn[T]) []T {
	var all []T
	it := txn.Root().Iterator()
	for _, v, ok := it.Next(); ok; _, v, ok = it.Next() {
		all = append(all, v)
	}
	return all
}
