package api

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"ecs/control/state"
	"ecs/internal/access"
)

const (
	// maxSecret bounds what is hashed for a caller nobody knows yet.
	maxSecret = 256
	// maxRemembered bounds the pairs that are remembered: more than there may be
	// keys.
	maxRemembered = 2 * state.MaxKeys
	// guessBurst is how many wrong secrets an address may send at once, and
	// guessesPerMinute how many after that.
	guessBurst       = 20
	guessesPerMinute = 30
	// guiltyFor is how long an address that was wrong comes after all others to have a
	// secret checked, unless one of its secrets is right.
	guiltyFor = 5 * time.Minute
	// maxAddresses bounds the addresses that are remembered for their guesses.
	maxAddresses = 10_000
)

// Attempt is a key and a secret that came with a request.
type Attempt struct {
	Key, Secret string
	From        string // the address: who guesses is slowed down by it
}

// ErrBehind says that this node does not know whether a key counts: its record is
// older than what was committed, and can't be brought up to date now.
var ErrBehind = errors.New("the record of keys is not up to date")

// Record is where keys are looked up. It may be called by many goroutines.
type Record interface {
	Snapshot() *state.Snapshot
	// Sync waits until Snapshot holds everything committed before the call, for
	// some seconds at most.
	Sync(ctx context.Context) error
	// CaughtUp reports whether Sync has succeeded since this node started.
	CaughtUp() bool
}

// ErrWrongSecret says that key and secret do not belong together, or that there
// is no such key: which of the two is not told.
var ErrWrongSecret = errors.New("wrong key or secret")

// Keyring is the Authenticator: keys of the record, and those of an htpasswd
// file beside them. The owner of a key's tasks is the key.
//
// A check of a hash costs tens of milliseconds on purpose. A pair that was
// right once is therefore remembered, as a keyed hash under a key of this
// process over key, secret and stored hash, so that it counts for no longer than
// that hash is there. All others queue, while somebody guesses for half of one core
// (see queue), and an address that guesses is refused before that, so that guessing
// slows nobody down who is known. A key that does not exist takes as long as a wrong secret. Nobody is
// refused by a record that may be older than his key: it is brought up to date first.
type Keyring struct {
	file     *Htpasswd
	fileRole access.Role
	record   Record
	memory   []byte // the key that verified pairs are remembered under
	queue    *queue
	guesses  *limiter
	guessing bound

	mu       sync.Mutex
	verified map[string][sha256.Size]byte // by key
}

// NewKeyring makes an authenticator of an htpasswd file, whose keys all have the
// one role, and of the record; either may be nil.
func NewKeyring(file *Htpasswd, role access.Role, record Record) *Keyring {
	memory := make([]byte, sha256.Size)
	_, _ = rand.Read(memory) // never fails, see crypto/rand
	k := &Keyring{
		file: file, fileRole: role, record: record, memory: memory,
		verified: make(map[string][sha256.Size]byte),
		guesses:  newLimiter(maxAddresses),
		guessing: bound{rate: float64(guessesPerMinute) / 60, burst: guessBurst},
	}
	k.queue = newQueue(func(from string) bool { return k.guesses.blamedOf(from, time.Now().Add(-guiltyFor)) })
	return k
}

// lock is what is known of one key.
type lock struct {
	access.Principal
	stored  string // the hash as it is kept
	matches matching
}

// matching compares a secret with a hash. It rests in between, if it takes long.
type matching func(secret string, rest func(worked time.Duration)) bool

// find looks a key up, in the record first.
func (k *Keyring) find(key string) (lock, bool) {
	if k.record != nil {
		if r := k.record.Snapshot().Key(key); r != nil {
			if !r.Counts() {
				return lock{}, false // also where a file has it: revoked is revoked
			}
			return lock{access.Principal{Owner: r.ID, Role: r.Role, Limits: r.Limits, Proof: sha256.Sum256([]byte(r.Hash))}, r.Hash, matcher(r.Hash)}, true
		}
	}
	if k.file == nil {
		return lock{}, false
	}
	p, ok := k.file.current().users[key]
	if !ok {
		return lock{}, false
	}
	return lock{access.Principal{Owner: key, Role: k.fileRole, Proof: sha256.Sum256([]byte(p.stored))}, p.stored, p.matches}, true
}

// Holder gives who a key is whose secret was checked before; stamp is the stored
// hash.
func (k *Keyring) Holder(key string) (who access.Principal, stamp string, ok bool) {
	l, ok := k.find(key)
	return l.Principal, l.stored, ok
}

func matcher(hash string) matching {
	return func(secret string, rest func(time.Duration)) bool { return matchesBcrypt(hash, secret, rest) }
}

// Remembered reports who holds a pair that was right before and still counts. It
// costs microseconds.
func (k *Keyring) Remembered(key, secret string) (access.Principal, bool) {
	if len(key) > maxSecret || len(secret) > maxSecret {
		return access.Principal{}, false
	}
	l, ok := k.find(key)
	if !ok || !k.remembers(key, k.mac(key, secret, l.stored)) {
		return access.Principal{}, false
	}
	return l.Principal, true
}

// Counts reports whether who was let in would still be.
func (k *Keyring) Counts(who access.Principal) bool {
	l, ok := k.find(who.Owner)
	return ok && l.Principal == who
}

// Holds reports whether a key counts and may do what a role may.
func (k *Keyring) Holds(key string, role access.Role) bool {
	l, ok := k.find(key)
	return ok && l.Role.May(role)
}

// Changed gives a channel that closes when the record says something else of keys,
// and when to look again at the file, which tells nobody; 0: there is none.
func (k *Keyring) Changed() (changed <-chan struct{}, again time.Duration) {
	if k.record != nil {
		changed = k.record.Snapshot().WatchKeys()
	}
	if k.file != nil {
		again = lookAgainAfter
	}
	return changed, again
}

// Authenticate finds out who holds a pair. ErrWrongSecret: nobody; ErrBehind: this
// node can't tell now; *Excess: too many were wrong that came from this address;
// else ctx ended first.
func (k *Keyring) Authenticate(ctx context.Context, a Attempt) (access.Principal, error) {
	if p, ok := k.Remembered(a.Key, a.Secret); ok {
		return p, nil
	}
	if k.record != nil && !k.record.CaughtUp() {
		return access.Principal{}, ErrBehind
	}
	seen, p, err := k.check(ctx, a, true)
	if !errors.Is(err, ErrWrongSecret) || k.record == nil {
		return p, err
	}
	// The guess is paid for by now: so many at once can't ask the leader for more
	// than there are. It is given back to who was right.
	if err := k.record.Sync(ctx); err != nil {
		return access.Principal{}, errors.Join(ErrBehind, err)
	}
	if l, _ := k.find(a.Key); l.stored == seen {
		return access.Principal{}, ErrWrongSecret
	}
	if _, p, err = k.check(ctx, a, false); err == nil {
		k.guesses.refund(a.From, k.guessing, time.Now())
	}
	return p, err
}

// check compares a pair with what is known here, when its turn has come, and says
// what that was. With pay a wrong one is a guess of its address.
func (k *Keyring) check(ctx context.Context, a Attempt, pay bool) (stored string, p access.Principal, err error) {
	spare := func() error {
		if !pay {
			return nil
		}
		return k.guesses.spare(a.From, k.guessing, time.Now())
	}
	if err := spare(); err != nil {
		return "", p, err
	}
	for had := again; had == again; {
		if had, err = k.queue.enter(ctx, a.From, a.Key); err != nil {
			return "", p, err
		}
		if p, ok := k.Remembered(a.Key, a.Secret); ok { // a request before this one in the queue asked the same
			if had == turn {
				k.queue.leave()
			}
			return "", p, nil
		}
	}
	defer k.queue.leave()
	// Again: a hundred guesses may have come to the queue at once.
	if err := spare(); err != nil {
		return "", p, err
	}
	l, right := k.opens(a)
	if right {
		k.guesses.forgive(a.From)
		k.queue.right(a.Key)
		return l.stored, l.Principal, nil
	}
	k.queue.wrong()
	if pay {
		k.guesses.spend(a.From, k.guessing, time.Now())
		k.guesses.blame(a.From, time.Now())
	}
	return l.stored, p, ErrWrongSecret
}

// opens hashes a secret. The key is looked up again behind that, which takes long
// enough for it to be revoked.
func (k *Keyring) opens(a Attempt) (l lock, right bool) {
	if len(a.Key) > maxSecret || len(a.Secret) > maxSecret {
		return lock{}, false
	}
	l, known := k.find(a.Key)
	if !known {
		l.matches = k.somebodys(a.Key)
	}
	if right := l.matches(a.Secret, k.queue.rest); !right || !known {
		return l, false
	}
	if now, _ := k.find(a.Key); now.stored != l.stored {
		return l, false
	}
	k.remember(a.Key, k.mac(a.Key, a.Secret, l.stored))
	return l, true
}

// somebodys is what an unknown key's secret is checked against: always the same
// hash for one key, and as often of a kind as there are of it. So the time it
// takes says nothing about who exists.
func (k *Keyring) somebodys(key string) matching {
	var file *passwords
	var inFile, inRecord int
	if k.file != nil {
		file = k.file.current()
		inFile = len(file.order)
	}
	if k.record != nil {
		inRecord = k.record.Snapshot().KeyCount()
	}
	drawn := k.mac(key, "", "")
	n := binary.BigEndian.Uint64(drawn[:]) % uint64(max(inFile+inRecord, 1))
	if file != nil && n < uint64(inFile) {
		return file.users[file.order[n]].matches
	}
	return matcher(nobodysHash)
}

// nobodysHash has the cost of the hashes in the record, and is of a secret that
// was thrown away.
const nobodysHash = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"

func (k *Keyring) mac(key, secret, stored string) (sum [sha256.Size]byte) {
	m := hmac.New(sha256.New, k.memory)
	var size [8]byte
	for _, part := range []string{key, secret, stored} {
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		m.Write(size[:])
		m.Write([]byte(part))
	}
	m.Sum(sum[:0])
	return sum
}

func (k *Keyring) remembers(key string, mac [sha256.Size]byte) bool {
	k.mu.Lock()
	was, ok := k.verified[key]
	k.mu.Unlock()
	return ok && hmac.Equal(was[:], mac[:])
}

func (k *Keyring) remember(key string, mac [sha256.Size]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.verified) >= maxRemembered {
		clear(k.verified) // of keys that are gone, for the most part
	}
	k.verified[key] = mac
}

// HashSecret makes the hash of a new key's secret.
func HashSecret(secret string) (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.DefaultCost)
	return string(hash), err
}

// isBcrypt tells the hashes that look at maxBcrypt bytes only.
func isBcrypt(hash string) bool { return strings.HasPrefix(hash, "$2") }
