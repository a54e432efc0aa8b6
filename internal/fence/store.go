package fence

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	bootFile  = "/proc/sys/kernel/random/boot_id"
	lockFile  = "lock"
	entryFile = ".entry" // the end of the name of an entry's file
	newFile   = ".new"   // the same while it is being made
	// deadlineDigits is the width of a deadline in a file, so that it can be
	// written over in place.
	deadlineDigits = 20
)

// store keeps entries in a directory, one file each: deadline, boot id, id and
// cgroup, a line each. It is meant for a tmpfs: what it has to outlive is this
// process, not the machine, after whose end no process is left to be killed.
type store struct {
	dir  string
	boot string
	lock *os.File
}

// openStore takes the directory for this process alone.
func openStore(dir string) (*store, error) {
	boot, err := os.ReadFile(bootFile)
	if err != nil {
		return nil, fmt.Errorf("read the boot id: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock %s, which another fence may have: %w", dir, err)
	}
	return &store{dir: dir, boot: strings.TrimSpace(string(boot)), lock: lock}, nil
}

func (s *store) close() error { return s.lock.Close() }

func (s *store) file(id string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:16])+entryFile)
}

// save makes the file of an entry, whole or not at all.
func (s *store) save(e Entry) error {
	text := fmt.Appendf(nil, "%0*d\n%s\n%q\n%q\n", deadlineDigits, e.Deadline, s.boot, e.ID, e.Cgroup)
	name := s.file(e.ID)
	if err := os.WriteFile(name+newFile, text, 0o600); err != nil {
		return err
	}
	return os.Rename(name+newFile, name)
}

// move writes the deadline over the old one: few bytes in one page, so that the
// end of this process leaves the old or the new one.
func (s *store) move(id string, deadline time.Duration) error {
	f, err := os.OpenFile(s.file(id), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(fmt.Appendf(nil, "%0*d", deadlineDigits, deadline), 0)
	return errors.Join(err, f.Close())
}

// remove may be repeated.
func (s *store) remove(id string) error {
	if err := os.Remove(s.file(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// load gives the entries of this boot and removes all others, and what is left
// of a save that broke off. A file that can't be read stays where it is.
func (s *store) load(log *slog.Logger) ([]Entry, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("read the state directory: %w", err)
	}
	var entries []Entry
	for _, f := range files {
		name := filepath.Join(s.dir, f.Name())
		switch {
		case strings.HasSuffix(name, newFile):
			err = os.Remove(name)
		case strings.HasSuffix(name, entryFile):
			var text []byte
			var e Entry
			var boot string
			if text, err = os.ReadFile(name); err == nil {
				e, boot, err = parseEntry(text)
			}
			if err == nil && boot == s.boot {
				entries = append(entries, e)
			} else if err == nil {
				err = os.Remove(name)
			}
		}
		if err != nil {
			log.Error("an entry is not kept over the restart", "file", name, "err", err)
		}
	}
	return entries, nil
}

func parseEntry(text []byte) (e Entry, boot string, err error) {
	lines := bytes.Split(text, []byte("\n"))
	if len(lines) != 5 {
		return e, "", fmt.Errorf("%d lines: want 4", len(lines)-1)
	}
	deadline, err := strconv.ParseInt(string(lines[0]), 10, 64)
	if err != nil {
		return e, "", fmt.Errorf("deadline: %w", err)
	}
	e.Deadline = time.Duration(deadline)
	if e.ID, err = strconv.Unquote(string(lines[2])); err != nil {
		return e, "", fmt.Errorf("id: %w", err)
	}
	if e.Cgroup, err = strconv.Unquote(string(lines[3])); err != nil {
		return e, "", fmt.Errorf("cgroup: %w", err)
	}
	return e, string(lines[1]), nil
}
