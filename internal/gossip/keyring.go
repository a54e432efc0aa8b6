package gossip

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
)

// Ring is the keys that a member gossips with, of KeySize bytes each: the first
// encrypts, all decrypt. Two are the most; there are two while one takes the
// other's place.
type Ring struct {
	Version uint64 // by which the cluster tells rings apart; 0: from a file, the cluster has given none
	Keys    [][]byte
}

// KeyID names a key without telling it.
func KeyID(key []byte) string {
	sum := sha256.Sum256(append([]byte("ecs gossip key "), key...))
	return hex.EncodeToString(sum[:8])
}

// Validate reports a ring that nobody can gossip with.
func (r Ring) Validate() error {
	if len(r.Keys) < 1 || len(r.Keys) > 2 {
		return fmt.Errorf("a gossip ring of %d keys, want 1 or 2", len(r.Keys))
	}
	for _, key := range r.Keys {
		if len(key) != KeySize {
			return fmt.Errorf("the gossip key has %d bytes, want %d: gossip is always encrypted", len(key), KeySize)
		}
	}
	return nil
}

// Keyring is the ring of a member, which changes while it gossips. Its methods are
// safe for concurrent use.
type Keyring struct {
	keep func(Ring) error
	mu   struct {
		sync.Mutex
		ring Ring
	}
	list *memberlist.Keyring // what memberlist reads
}

// NewKeyring makes a keyring. keep writes a new ring down before it is used, so
// that a restart comes back with it.
func NewKeyring(start Ring, keep func(Ring) error) (*Keyring, error) {
	if err := start.Validate(); err != nil {
		return nil, err
	}
	list, err := memberlist.NewKeyring(start.Keys, start.Keys[0])
	if err != nil {
		return nil, fmt.Errorf("gossip keys: %w", err)
	}
	k := &Keyring{keep: keep, list: list}
	k.mu.ring = start
	return k, nil
}

// Ring is the present one.
func (k *Keyring) Ring() Ring {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mu.ring
}

// Install has the member gossip with another ring from now on, once that is kept. A
// ring that is no newer than the present one changes nothing.
func (k *Keyring) Install(next Ring) error {
	if err := next.Validate(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if next.Version <= k.mu.ring.Version {
		return nil
	}
	if err := k.keep(next); err != nil {
		return fmt.Errorf("keep the gossip keys: %w", err)
	}
	k.mu.ring = next
	return k.use(next.Keys)
}

// use changes what memberlist reads. It removes a key only from the end: from
// elsewhere memberlist moves keys while others read them.
func (k *Keyring) use(keys [][]byte) error {
	have := k.list.GetKeys()
	if last := have[len(have)-1]; !contains(keys, have[0]) && contains(keys, last) {
		if err := k.list.UseKey(last); err != nil { // so that the one to go is at the end
			return err
		}
	}
	return errors.Join(
		k.dropLast(keys),
		k.list.AddKey(keys[0]),
		k.list.UseKey(keys[0]),
		k.dropLast(keys),
		k.list.AddKey(keys[len(keys)-1]),
	)
}

// dropLast removes the last key, unless it is wanted or the only one.
func (k *Keyring) dropLast(wanted [][]byte) error {
	have := k.list.GetKeys()
	last := have[len(have)-1]
	if len(have) == 1 || contains(wanted, last) {
		return nil
	}
	return k.list.RemoveKey(last)
}

func contains(keys [][]byte, key []byte) bool {
	return slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
}
