// Package seal encrypts what only control nodes may read (registry
// credentials, secret environment) before it enters the replicated log, and
// fingerprints request bodies so that the log holds no plain hash of a secret.
//
// It holds no state beyond its key and starts nothing.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// KeySize is the size of a cluster key in bytes.
const KeySize = 32

// ErrOpen says that sealed bytes can't be opened: they were sealed under
// another key, bound to something else, or are damaged. Which of them it was
// is not told, on purpose.
var ErrOpen = errors.New("sealed under another key, bound to something else, or damaged")

const (
	version1  = 1
	saltSize  = 16
	nonceSize = 12
	tagSize   = 16
	overhead  = 1 + saltSize + nonceSize + tagSize

	labelSeal = "ecs seal v1"
	labelMAC  = "ecs mac v1"
)

// NewKey draws a new cluster key of KeySize bytes.
func NewKey() ([]byte, error) {
	key := make([]byte, KeySize)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("draw a key: %w", err)
	}
	return key, nil
}

// Box seals and opens under one cluster key. It is safe for concurrent use.
type Box struct {
	seal []byte // input to the key of each message
	mac  []byte
}

// NewBox makes a Box of a cluster key, which must have KeySize bytes. The key
// itself is not used for anything but deriving others.
func NewBox(key []byte) (*Box, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("cluster key has %d bytes, want %d", len(key), KeySize)
	}
	sealKey, err := hkdf.Key(sha256.New, key, nil, labelSeal, KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive the sealing key: %w", err)
	}
	macKey, err := hkdf.Key(sha256.New, key, nil, labelMAC, KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive the fingerprint key: %w", err)
	}
	return &Box{seal: sealKey, mac: macKey}, nil
}

// Seal encrypts plain so that it opens only together with the same bound (the
// task's id), which is not part of the result. The result is longer than plain
// by a few dozen bytes and differs each time.
//
// Layout: version, salt, nonce, AES-256-GCM of plain. Every message has a key
// of its own, derived from the salt: under one key for all of them, random
// nonces would be safe for 2^32 messages only.
func (b *Box) Seal(plain, bound []byte) ([]byte, error) {
	sealed := make([]byte, 1+saltSize+nonceSize, overhead+len(plain))
	sealed[0] = version1
	if _, err := rand.Read(sealed[1:]); err != nil {
		return nil, fmt.Errorf("draw a salt: %w", err)
	}
	salt, nonce := sealed[1:1+saltSize], sealed[1+saltSize:]
	aead, err := b.messageCipher(salt)
	if err != nil {
		return nil, err
	}
	return aead.Seal(sealed, nonce, plain, bound), nil
}

// Open is the inverse of Seal. It fails with ErrOpen.
func (b *Box) Open(sealed, bound []byte) ([]byte, error) {
	if len(sealed) < overhead || sealed[0] != version1 {
		return nil, ErrOpen
	}
	salt := sealed[1 : 1+saltSize]
	nonce := sealed[1+saltSize : 1+saltSize+nonceSize]
	aead, err := b.messageCipher(salt)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nonce, sealed[1+saltSize+nonceSize:], bound)
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

// MAC is a keyed fingerprint of data, 32 bytes, the same on every node that
// has the cluster key.
func (b *Box) MAC(data []byte) []byte {
	h := hmac.New(sha256.New, b.mac)
	h.Write(data)
	return h.Sum(nil)
}

func (b *Box) messageCipher(salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, b.seal, salt, labelSeal, KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive a message key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("prepare AES: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("prepare GCM: %w", err)
	}
	return aead, nil
}
