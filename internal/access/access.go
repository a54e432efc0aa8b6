// Package access holds the words of who may do what: API keys, their roles and
// limits, join tokens, and certificates that count no more.
//
// It is pure and uses the standard library only.
package access

import (
	"fmt"
	"time"
)

// Role is what the holder of a key may do. Each role may do what those before
// it may.
type Role string

// The roles.
const (
	Run     Role = "run"     // its own tasks
	Operate Role = "operate" // sees and stops all tasks; nodes and drains
	Admin   Role = "admin"   // keys, join tokens and the cluster itself
)

// Roles lists them, least first.
func Roles() []Role { return []Role{Run, Operate, Admin} }

// ParseRole reads a role.
func ParseRole(s string) (Role, error) {
	if r := Role(s); r.rank() > 0 {
		return r, nil
	}
	return "", fmt.Errorf("%q: want %s, %s or %s", s, Run, Operate, Admin)
}

// May reports whether this role includes another. The empty role includes none.
func (r Role) May(other Role) bool { return other.rank() > 0 && r.rank() >= other.rank() }

func (r Role) rank() int {
	for i, known := range Roles() {
		if r == known {
			return i + 1
		}
	}
	return 0
}

// NoLimit, as one of Limits, is no limit at all.
const NoLimit = -1

// MaxLimit bounds what a limit may be set to.
const MaxLimit = 1_000_000

// Limits are what one key may take. 0 is the daemon's default.
type Limits struct {
	Rate        int // requests a second, of each control node
	Concurrency int // requests at once, at each control node
	Quota       int // tasks that wait for a node
}

// Over fills what is 0 from defaults.
func (l Limits) Over(defaults Limits) Limits {
	pick := func(own, otherwise int) int {
		if own != 0 {
			return own
		}
		return otherwise
	}
	return Limits{Rate: pick(l.Rate, defaults.Rate), Concurrency: pick(l.Concurrency, defaults.Concurrency), Quota: pick(l.Quota, defaults.Quota)}
}

// Principal is who calls, once that is known.
type Principal struct {
	Owner  string // of the tasks: the key
	Role   Role
	Limits Limits
	// Proof changes with what the secret was compared with: whose key has another
	// one by now was let in by a secret that counts no more.
	Proof [32]byte
}

// Key is an API key in the record. Its secret is nowhere but with its holder.
type Key struct {
	ID     string
	Name   string // for people
	Role   Role
	Hash   string // bcrypt of the secret; empty once revoked
	Limits Limits

	CreatedAt time.Time
	CreatedBy string    // a key; empty: the cluster itself, at its founding
	RevokedAt time.Time // zero: the key counts
	RevokedBy string
}

// Counts reports whether the key opens anything.
func (k *Key) Counts() bool { return k.RevokedAt.IsZero() }

// Token lets one node get its first certificate, once.
type Token struct {
	Hash      [32]byte // SHA-256 of its secret
	Role      string   // of the node: control or agent
	CreatedAt time.Time
	CreatedBy string
	ExpiresAt time.Time

	SpentAt time.Time // zero: it can be used
	Node    string    // that used it
	Request [32]byte  // SHA-256 of that node's certificate request
}

// Withdrawn reports whether the token was taken back before a node used it.
func (t *Token) Withdrawn() bool { return !t.SpentAt.IsZero() && t.Request == [32]byte{} }

// Revoked is a certificate that no node accepts any more.
type Revoked struct {
	Serial    string // hexadecimal; empty: all of Node's from before RevokedAt
	Node      string
	RevokedAt time.Time
	RevokedBy string
	ExpiresAt time.Time // when it can be forgotten: the certificate is void by then
}
