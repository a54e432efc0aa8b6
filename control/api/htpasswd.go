package api

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tg123/go-htpasswd"
	"golang.org/x/crypto/bcrypt"
)

const (
	// lookAgainAfter is how often the file is looked at for changes, at most
	// and only while requests come.
	lookAgainAfter = time.Second
	// maxHtpasswd bounds the file, in bytes.
	maxHtpasswd = 8 << 20
)

// Htpasswd is an htpasswd file with bcrypt, $apr1$ or SHA-crypt hashes, read
// again when it changes. It is safe for concurrent use.
type Htpasswd struct {
	path    string
	log     atomic.Pointer[slog.Logger] // nil: changes of the file go unlogged
	looking atomic.Bool                 // one request is looking at the file
	next    time.Time                   // when it may be looked at again; the looking request's
	table   atomic.Pointer[passwords]
}

// passwords is one version of the file.
type passwords struct {
	users map[string]password
	order []string // the keys, sorted
	info  os.FileInfo
}

// password is one line.
type password struct {
	stored  string
	matches matching
}

// NewHtpasswd reads the file at path. The error names every line that can't be
// used, never what is in it.
func NewHtpasswd(path string) (*Htpasswd, error) {
	h := &Htpasswd{path: path}
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

// current gives the present version of the file. A file that turns bad does not
// lock anybody out: what can still be used of it counts, and when that is
// nothing, the last good version stands. A file without a fault that holds no key
// is none that turned bad: nobody is in it.
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
	if len(changed.order) == 0 && justNow(changed.info.ModTime(), now) {
		return p // perhaps it is being written
	}
	if bad != nil {
		log.Warn("lines of the htpasswd file left out", "path", h.path, "err", bad)
	}
	log.Info("htpasswd file read anew", "path", h.path, "keys", len(changed.order))
	h.table.Store(changed)
	return changed
}

// justNow reports whether a file changed so lately that more may be on its way.
func justNow(at, now time.Time) bool {
	age := now.Sub(at)
	return age >= 0 && age < lookAgainAfter
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
	p = &passwords{users: make(map[string]password), info: info}
	var faults []error
	lines := bufio.NewScanner(f)
	for number := 1; lines.Scan(); number++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		key, hash, _ := strings.Cut(text, ":")
		line, err := parseHash(hash)
		if err == nil && key == "" {
			err = errors.New("no key")
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("htpasswd file %s, line %d: %w", path, number, err))
			continue
		}
		p.users[key] = line
	}
	if err := lines.Err(); err != nil {
		return nil, nil, fmt.Errorf("read htpasswd file %s: %w", path, err)
	}
	bad = errors.Join(faults...)
	if len(p.users) == 0 && bad != nil {
		return nil, nil, errors.Join(fmt.Errorf("htpasswd file %s has no key that can be used", path), bad)
	}
	p.order = slices.Sorted(maps.Keys(p.users))
	return p, bad, nil
}

// parseHash takes the hashes that are safe to keep in a file; plain text and
// unsalted SHA-1 are not. Errors never show the hash.
func parseHash(hash string) (password, error) {
	if isBcrypt(hash) {
		if _, err := bcrypt.Cost([]byte(hash)); err != nil {
			return password{}, errors.New("no bcrypt hash")
		}
		return password{hash, matcher(hash)}, nil
	}
	for _, accept := range []htpasswd.PasswdParser{htpasswd.AcceptMd5, htpasswd.AcceptCryptSha} {
		if p, err := accept(hash); err == nil && p != nil {
			return password{hash, func(secret string, _ func(time.Duration)) bool { return p.MatchesPassword(secret) }}, nil
		}
	}
	return password{}, errors.New("no bcrypt, apr1 or SHA-crypt hash")
}
