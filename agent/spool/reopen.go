package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"ecs/internal/task"
)

// counts keeps how much a record's streams have taken where that is more than
// their files hold: eight bytes for each. It is safe for concurrent use.
type counts struct {
	mu     sync.Mutex
	file   *os.File
	closed bool
}

// countsSize is the size of the file.
const countsSize = 16

// set writes down that a stream has taken so many bytes.
func (c *counts) set(r *record, suffix string, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	var err error
	if c.file == nil {
		if c.file, err = os.OpenFile(r.file(suffixCounts), os.O_WRONLY|os.O_CREATE, 0o600); err != nil {
			c.file = nil
		}
	}
	if err == nil {
		at := int64(0)
		if suffix == suffixStderr {
			at = countsSize / 2
		}
		_, err = c.file.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(bytes)), at)
	}
	if err != nil {
		c.closed = true // once is enough
		r.warn("output would be counted wrong after a restart of the agent", err)
	}
}

func (c *counts) close(r *record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.file == nil {
		return
	}
	if err := c.file.Close(); err != nil {
		r.warn("output counts did not close well", err)
	}
	c.file = nil
}

// read gives what set wrote, of stdout and stderr; zeros where it did not.
func (c *counts) read(path string) (taken [2]int64, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return taken, nil
	}
	if err != nil {
		return taken, err
	}
	data = append(data, make([]byte, countsSize)...)
	for i := range taken {
		n := int64(binary.LittleEndian.Uint64(data[i*countsSize/2:]))
		if n < 0 {
			return [2]int64{}, fmt.Errorf("a count of %d bytes", n)
		}
		taken[i] = n
	}
	return taken, nil
}

// Reopen takes up the entry of that name which an earlier process began for the
// attempt, with everything that was to outlive that process, and says how many
// bytes of each stream that is. A tar is dropped. An entry that is not there is
// begun anew.
func (s *Spool) Reopen(tok task.Token, name string, maxOutput int64) (e *Entry, stdout, stderr int64, err error) {
	if name != fileName(tok, serialOf(name)) {
		return nil, 0, 0, fmt.Errorf("reopen output: %q is no name of an entry of %v", name, tok)
	}
	s.mu.Lock()
	finished := s.mu.records[tok]
	if finished != nil && finished.name == name {
		s.forgetLocked(finished)
	} else {
		finished = nil
	}
	delete(s.mu.orphans, name)
	s.mu.serial = max(s.mu.serial, serialOf(name))
	s.mu.Unlock()
	s.Release(tok)
	r := newRecord(s, tok, name, maxOutput)
	r.foundOnDisk()
	if finished != nil {
		if err := finished.revert(r); err != nil {
			return nil, 0, 0, fmt.Errorf("reopen output: %w", err)
		}
	}
	if err := r.remove(suffixOutputs); err != nil { // it is made again
		return nil, 0, 0, fmt.Errorf("reopen output: %w", err)
	}
	s.mu.Lock()
	s.mu.records[tok] = r
	s.mu.Unlock()
	taken, err := r.counts.read(r.path(suffixCounts))
	for i, st := range r.streams {
		if err == nil {
			taken[i], err = st.resume(taken[i])
		}
	}
	if err != nil {
		s.Release(tok)
		return nil, 0, 0, fmt.Errorf("reopen output: %w", err)
	}
	return &Entry{record: r}, taken[0], taken[1], nil
}

// revert makes the files of a finished record those of a live one, r.
func (finished *record) revert(r *record) error {
	for _, st := range finished.streams {
		if bytes, kept := st.sizes(); bytes > kept {
			r.counts.set(r, st.suffix, bytes)
		}
	}
	return finished.remove(suffixMeta)
}

// resume makes a stream what it was when it had taken so many bytes, or more if
// its file has more, and says how many they are.
func (s *stream) resume(taken int64) (int64, error) {
	f, err := os.OpenFile(s.record.path(s.suffix), os.O_RDWR, 0o600)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	s.writing.secured = true
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		// It is written on from where reading has ended.
		s.mu.head, err = io.ReadAll(io.LimitReader(f, task.HeadBytes))
		if err != nil {
			return 0, errors.Join(err, f.Close())
		}
		s.writing.sum.Write(s.mu.head)
		rest, err := io.Copy(s.writing.sum, f)
		if err != nil {
			return 0, errors.Join(err, f.Close())
		}
		s.writing.file = f
		s.mu.kept = int64(len(s.mu.head)) + rest
		if rest > 0 {
			s.writing.counted, s.mu.file = true, true
			s.record.spool.claim(s.record, s.mu.kept)
		}
	}
	s.mu.bytes = max(taken, s.mu.kept)
	s.writing.full = s.mu.bytes > s.mu.kept
	return s.mu.bytes, nil
}
