package clusterfiles

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"golang.org/x/crypto/bcrypt"
)

// Credentials are an API key and its secret.
type Credentials struct{ Key, Secret string }

// NewCredentials draws 128 random bits for each of key and secret, in hex.
func NewCredentials() Credentials {
	draw := func() string {
		raw := make([]byte, 16)
		rand.Read(raw) // never fails, see its documentation
		return hex.EncodeToString(raw)
	}
	return Credentials{Key: draw(), Secret: draw()}
}

// String gives key:secret, as people pass it on.
func (c Credentials) String() string { return c.Key + ":" + c.Secret }

// AppendHtpasswd adds keys with bcrypt hashes of their secrets to an htpasswd
// file, which it creates for its owner only.
func AppendHtpasswd(file string, keys ...Credentials) error {
	var text []byte
	for _, c := range keys {
		hash, err := bcrypt.GenerateFromPassword([]byte(c.Secret), bcrypt.DefaultCost)
		if err != nil {
			return fmt.Errorf("hash a secret: %w", err)
		}
		text = fmt.Appendf(text, "%s:%s\n", c.Key, hash)
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	missing, err := lacksNewline(f)
	if err == nil && missing {
		text = append([]byte("\n"), text...)
	}
	if err == nil {
		_, err = f.Write(text)
	}
	return errors.Join(err, f.Close())
}

// lacksNewline reports whether the last line of f, which people edit by hand,
// would run into the next one.
func lacksNewline(f *os.File) (bool, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return false, err
	}
	last := make([]byte, 1)
	_, err = f.ReadAt(last, info.Size()-1)
	return last[0] != '\n', err
}
