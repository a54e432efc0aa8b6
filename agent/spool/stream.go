package spool

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"os"
	"slices"
	"sync"

	"ecs/internal/task"
)

var errNoRoom = errors.New("the spool is at its limit and everything in it is live")

// stream is one output stream. The writer does its work, also on disk, holding
// only writing; readers look only at what is published under mu, so neither
// waits for the other's I/O.
type stream struct {
	record *record
	suffix string
	max    int64

	writing struct {
		sync.Mutex
		file  *os.File // nil while everything is in the head
		sum   hash.Hash
		full  bool // keeps nothing more
		ended bool
	}

	mu struct {
		sync.Mutex
		head        []byte // the first task.HeadBytes; nil once it is in the file only
		kept, bytes int64
		file        bool // the file holds everything kept, from the first byte
		ended       bool
		lost        bool          // dropped before its end
		changed     chan struct{} // closed on the next change; nil: nobody waits
	}
}

func newStream(r *record, suffix string, max int64) *stream {
	s := &stream{record: r, suffix: suffix, max: max}
	s.writing.sum = sha256.New()
	return s
}

// Write keeps what it may of p and counts all of it.
func (s *stream) Write(p []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.writing.ended {
		return len(p), nil
	}
	_, kept := s.sizes()
	head, n := s.keep(p[:min(int64(len(p)), max(0, s.max-kept))], kept)
	s.writing.sum.Write(p[:n])

	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.head = append(s.mu.head, head...)
	s.mu.kept += int64(n)
	s.mu.bytes += int64(len(p))
	s.mu.file = s.writing.file != nil
	s.wakeLocked()
	return len(p), nil
}

// keep puts p, which comes after the kept bytes, where it belongs. It returns
// the part that belongs to the head, and how much of p is kept.
func (s *stream) keep(p []byte, kept int64) (head []byte, n int) {
	head = p[:min(int64(len(p)), max(0, task.HeadBytes-kept))]
	rest := p[len(head):]
	if len(rest) == 0 || s.writing.full {
		return head, len(head)
	}
	if s.writing.file == nil {
		if err := s.begin(head); err != nil {
			s.stop(err)
			return head, len(head)
		}
	}
	written, err := s.append(rest)
	if err != nil {
		s.stop(err)
	}
	return head, len(head) + written
}

// begin makes the file and puts the head into it, more being the part of the
// head that is not published yet. It leaves nothing behind when it can't.
func (s *stream) begin(more []byte) error {
	path := s.record.path(s.suffix)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	s.writing.file = f
	s.mu.Lock()
	head := slices.Concat(s.mu.head, more)
	s.mu.Unlock()
	if n, err := s.append(head); err != nil {
		s.writing.file = nil
		s.record.spool.unreserve(s.record, int64(n))
		return errors.Join(err, f.Close(), os.Remove(path))
	}
	return nil
}

// append writes p to the file and says how much of it got there.
func (s *stream) append(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	r := s.record
	if !r.spool.reserve(r, int64(len(p))) {
		return 0, errNoRoom
	}
	n, err := s.writing.file.Write(p)
	if err != nil {
		r.spool.unreserve(r, int64(len(p)-n))
	}
	return n, err
}

// stop keeps nothing more of the stream; only what comes is counted.
func (s *stream) stop(err error) {
	s.writing.full = true
	s.record.warn("output is cut short", fmt.Errorf("keep %s: %w", s.suffix[1:], err))
}

// finish ends the stream.
func (s *stream) finish() task.Stream {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.writing.ended = true
	if f := s.writing.file; f != nil {
		if err := f.Close(); err != nil {
			s.record.warn("output file did not close well", err)
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.ended = true
	s.wakeLocked()
	return task.Stream{
		Head:      s.mu.head[:len(s.mu.head):len(s.mu.head)],
		Bytes:     s.mu.bytes,
		Kept:      s.mu.kept,
		SHA256:    [32]byte(s.writing.sum.Sum(nil)),
		Truncated: s.mu.kept < s.mu.bytes,
	}
}

// spill puts an ended stream that is in memory into a file too.
func (s *stream) spill() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	_, kept := s.sizes()
	if s.writing.file != nil || kept == 0 {
		return nil
	}
	if err := s.begin(nil); err != nil {
		return err
	}
	if err := s.writing.file.Close(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.file = true
	return nil
}

// shrink lets go of the head of an ended stream whose file holds it too, and
// says how many bytes stay in memory.
func (s *stream) shrink() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.file {
		s.mu.head = nil
	}
	return int64(cap(s.mu.head))
}

// drop lets go of the stream, whatever state it is in.
func (s *stream) drop() {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.writing.full = true
	if f := s.writing.file; f != nil && !s.writing.ended {
		if err := f.Close(); err != nil {
			s.record.warn("output file did not close well", err)
		}
		s.writing.file = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.lost = !s.mu.ended
	s.wakeLocked()
}

func (s *stream) inFile() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.file
}

func (s *stream) sizes() (bytes, kept int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.bytes, s.mu.kept
}

func (s *stream) wakeLocked() {
	if s.mu.changed != nil {
		close(s.mu.changed)
		s.mu.changed = nil
	}
}
