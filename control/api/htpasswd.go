package api

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tg123/go-htpasswd"
	"golang.org/x/crypto/bcrypt"
)

const (
	// lookAgainAfter is how often the file is looked at for changes, at most
	// and only while requests come.
	lookAgainAfter = time.Second
	// maxSecret bounds what is hashed for a caller nobody knows yet.
	maxSecret = 256
	// maxHtpasswd bounds the file, in bytes.
	maxHtpasswd = 8 << 20
)

// Htpasswd is an Authenticator over an htpasswd file with bcrypt, $apr1$ or
// SHA-crypt hashes. The owner of a key is the key.
//
// A check of a hash costs tens of milliseconds on purpose. A pair that was
// right once is therefore remembered, as a keyed hash under a key of this
// process, until the file changes. All others queue for one core, so that
// guessing slows nobody down who is known, and a key that does not exist takes
// as long as a wrong secret.
type Htpasswd struct {
	path    string
	log     atomic.Pointer[slog.Logger] // nil: changes of the file go unlogged
	memory  []byte                      // the key that verified pairs are remembered under
	one     chan struct{}
	looking atomic.Bool // one request is looking at the file
	next    time.Time   // when it may be looked at again; the looking request's
	table   atomic.Pointer[passwords]
}

// passwords is one version of the file.
type passwords struct {
	users map[string]htpasswd.EncodedPasswd
	order []string // the keys, sorted
	info  os.FileInfo
	// verified holds, for each key, the keyed hash of the secret that was
	// right: one each, so it can't grow.
	verified sync.Map
}

// NewHtpasswd reads the file at path. The error names every line that can't be
// used, never what is in it.
func NewHtpasswd(path string) (*Htpasswd, error) {
	memory := make([]byte, sha256.Size)
	_, _ = rand.Read(memory) // never fails, see crypto/rand
	h := &Htpasswd{path: path, memory: memory, one: make(chan struct{}, 1)}
	p, bad, err := readPasswords(path)
	if err == nil {
		err = bad
	}
	if err != nil {
		return nil, err
	}
	h.table.Store(p)
	return h, nil
}

// logTo sets where a change of the file is logged, unless that was set before.
func (h *Htpasswd) logTo(log *slog.Logger) { h.log.CompareAndSwap(nil, log) }

// Authenticate reports whether key and secret belong together. When ctx ends
// before it is known, they do not.
func (h *Htpasswd) Authenticate(ctx context.Context, key, secret string) (string, bool) {
	p := h.current()
	if len(key) > maxSecret || len(secret) > maxSecret {
		return "", false
	}
	mac := h.mac(key, secret)
	if p.remembers(key, mac) {
		return key, true
	}
	select {
	case h.one <- struct{}{}:
		defer func() { <-h.one }()
	case <-ctx.Done():
		return "", false
	}
	if p.remembers(key, mac) { // a request before this one in the queue asked the same
		return key, true
	}
	password, known := p.users[key]
	if !known {
		// Somebody's hash, always the same one's for one key: the time it
		// takes says nothing about who exists.
		somebody := binary.BigEndian.Uint64(h.mac(key, "")) % uint64(len(p.order))
		password = p.users[p.order[somebody]]
	}
	if right := password.MatchesPassword(secret); !right || !known {
		return "", false
	}
	p.verified.Store(key, mac)
	return key, true
}

func (p *passwords) remembers(key string, mac []byte) bool {
	remembered, ok := p.verified.Load(key)
	return ok && hmac.Equal(remembered.([]byte), mac)
}

func (h *Htpasswd) mac(key, secret string) []byte {
	m := hmac.New(sha256.New, h.memory)
	m.Write(binary.BigEndian.AppendUint64(nil, uint64(len(key))))
	m.Write([]byte(key))
	m.Write([]byte(secret))
	return m.Sum(nil)
}

// current gives the present version of the file. A file that turns bad does not
// lock anybody out: what can still be used of it counts, and when that is
// nothing, the last good version stands.
func (h *Htpasswd) current() *passwords {
	p := h.table.Load()
	if !h.looking.CompareAndSwap(false, true) {
		return p // another request is looking
	}
	defer h.looking.Store(false)
	now := time.Now()
	if now.Before(h.next) {
		return p
	}
	h.next = now.Add(lookAgainAfter)
	info, err := os.Stat(h.path)
	if err == nil && os.SameFile(info, p.info) && info.ModTime().Equal(p.info.ModTime()) && info.Size() == p.info.Size() {
		return p
	}
	log := h.log.Load()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	changed, bad, err := readPasswords(h.path)
	if err != nil {
		log.Error("htpasswd file not usable, the last good version stands", "path", h.path, "err", err)
		return p
	}
	if bad != nil {
		log.Warn("lines of the htpasswd file left out", "path", h.path, "err", bad)
	}
	log.Info("htpasswd file read anew", "path", h.path, "keys", len(changed.order))
	h.table.Store(changed)
	return changed
}

// readPasswords reads the file. bad names the lines that can't be used; err
// says that nothing can.
func readPasswords(path string) (p *passwords, bad, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read htpasswd file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("read htpasswd file %s: %w", path, err)
	}
	if info.Size() > maxHtpasswd {
		return nil, nil, fmt.Errorf("htpasswd file %s has %d bytes, the most is %d", path, info.Size(), maxHtpasswd)
	}
	p = &passwords{users: make(map[string]htpasswd.EncodedPasswd), info: info}
	var faults []error
	lines := bufio.NewScanner(f)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, hash, _ := strings.Cut(line, ":")
		password, err := parseHash(hash)
		if err == nil && key == "" {
			err = errors.New("no key")
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("htpasswd file %s, line %d: %w", path, number, err))
			continue
		}
		p.users[key] = password
	}
	if err := lines.Err(); err != nil {
		return nil, nil, fmt.Errorf("read htpasswd file %s: %w", path, err)
	}
	bad = errors.Join(faults...)
	if len(p.users) == 0 {
		return nil, nil, errors.Join(fmt.Errorf("htpasswd file %s has no key that can be used", path), bad)
	}
	p.order = slices.Sorted(maps.Keys(p.users))
	return p, bad, nil
}

// parseHash takes the hashes that are safe to keep in a file; plain text and
// unsalted SHA-1 are not. Errors never show the hash.
func parseHash(hash string) (htpasswd.EncodedPasswd, error) {
	if strings.HasPrefix(hash, "$2") {
		if _, err := bcrypt.Cost([]byte(hash)); err != nil {
			return nil, errors.New("no bcrypt hash")
		}
	}
	for _, accept := range []htpasswd.PasswdParser{htpasswd.AcceptBcrypt, htpasswd.AcceptMd5, htpasswd.AcceptCryptSha} {
		if password, err := accept(hash); err == nil && password != nil {
			return password, nil
		}
	}
	return nil, errors.New("no bcrypt, apr1 or SHA-crypt hash")
}
