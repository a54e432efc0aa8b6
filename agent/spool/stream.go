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
		// secured: what is kept is to outlive the process, see Write.
		secured bool
		// file has everything that is kept, from the first byte on. Without it,
		// as before the stream is secured and when it could not be made, the
		// head is in memory only.
		file    *os.File
		failed  bool // the file could not be made for the head
		counted bool // what is in the file is reserved: it is more than a head
		sum     hash.Hash
		full    bool // keeps nothing more
		ended   bool
	}

	mu struct {
		sync.Mutex
		head        []byte // the first task.HeadBytes; nil once it is in the file only
		kept, bytes int64
		file        bool // the file is accounted for, and holds everything kept
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

// Write keeps what it may of p and counts all of it. When it returns, both
// outlive the process, once more than task.HeadBytes have come or the entry is
// secured: most programs write less and end at once, and are spared the file.
func (s *stream) Write(p []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.writing.ended || s.record.spool.left.Load() {
		return len(p), nil
	}
	bytes, kept := s.sizes()
	if bytes+int64(len(p)) > task.HeadBytes {
		s.secureLocked()
	}
	head, n := s.keep(p[:min(int64(len(p)), max(0, s.max-kept))], kept)
	s.writing.sum.Write(p[:n])
	s.publish(head, n, int64(len(p)))
	return len(p), nil
}

// Skip counts bytes that are lost: an earlier process took them and could not
// keep them. Nothing is kept of what follows.
func (s *stream) Skip(n int64) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if n <= 0 || s.writing.ended || s.record.spool.left.Load() {
		return
	}
	if !s.writing.full {
		s.stop(fmt.Errorf("%d bytes of an earlier run of the agent are lost", n))
	}
	s.publish(nil, 0, n)
}

// publish lets readers see n more bytes kept, of which head is the part that
// belongs to the head, out of took.
func (s *stream) publish(head []byte, n int, took int64) {
	s.mu.Lock()
	s.mu.head = append(s.mu.head, head...)
	s.mu.kept += int64(n)
	s.mu.bytes += took
	s.mu.file = s.writing.counted
	kept, bytes := s.mu.kept, s.mu.bytes
	s.wakeLocked()
	s.mu.Unlock()
	s.count(bytes, kept)
}

// count writes down that more was taken than is kept, for a later process. It
// must not say so of bytes that would be lost: whoever still has them would not
// write them again.
func (s *stream) count(bytes, kept int64) {
	if bytes > kept && s.writing.secured && !s.writing.failed {
		s.record.counts.set(s.record, s.suffix, bytes)
	}
}

// secure has what is kept up to now, and from now on, outlive the process.
func (s *stream) secure() {
	s.writing.Lock()
	defer s.writing.Unlock()
	if !s.writing.ended && !s.record.spool.left.Load() {
		s.secureLocked()
	}
}

// secureLocked is secure for who holds writing.
func (s *stream) secureLocked() {
	if s.writing.secured {
		return
	}
	s.writing.secured = true
	s.mu.Lock()
	head, kept, bytes := s.mu.head, s.mu.kept, s.mu.bytes
	s.mu.Unlock()
	if len(head) > 0 {
		s.through(head)
	}
	s.count(bytes, kept)
}

// keep puts p, which comes after the kept bytes, where it belongs. It returns
// the part that belongs to the head, and how much of p is kept.
func (s *stream) keep(p []byte, kept int64) (head []byte, n int) {
	if s.writing.full || len(p) == 0 {
		return nil, 0
	}
	head = p[:min(int64(len(p)), max(0, task.HeadBytes-kept))]
	rest := p[len(head):]
	if len(rest) == 0 {
		s.through(head)
		return head, len(head)
	}
	if err := s.spread(head); err != nil {
		s.stop(err)
		return head, len(head)
	}
	written, err := s.append(rest)
	if err != nil {
		s.stop(err)
	}
	return head, len(head) + written
}

// through writes a part of the head of a secured stream through to the file. The
// head is kept without it, too.
func (s *stream) through(head []byte) {
	if s.writing.failed || !s.writing.secured {
		return
	}
	err := s.begin()
	if err == nil {
		_, err = s.writing.file.Write(head)
	}
	if err != nil {
		s.unmake()
		s.record.warn("output would not survive a restart of the agent", err)
	}
}

// spread gets the file ready for more than a head: all of that is in it, with
// more, the part that is not published yet, and accounted for.
func (s *stream) spread(more []byte) error {
	if s.writing.counted {
		return nil
	}
	s.mu.Lock()
	whole := slices.Concat(s.mu.head, more)
	s.mu.Unlock()
	if !s.record.spool.reserve(s.record, int64(len(whole))) {
		s.through(more)
		return errNoRoom
	}
	missing := whole
	if s.writing.file != nil {
		missing = more // the rest has gone through
	}
	err := s.begin()
	if err == nil {
		_, err = s.writing.file.Write(missing)
	}
	if err != nil {
		s.record.spool.unreserve(s.record, int64(len(whole)))
		s.unmake()
		return err
	}
	s.writing.counted, s.writing.failed = true, false
	return nil
}

// begin makes the file, if it is not there yet.
func (s *stream) begin() error {
	if s.writing.file != nil {
		return nil
	}
	f, err := os.OpenFile(s.record.file(s.suffix), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	s.writing.file = f
	return nil
}

// unmake leaves nothing of a file that can't hold even the head.
func (s *stream) unmake() {
	s.writing.failed = true
	if f := s.writing.file; f != nil {
		s.writing.file = nil
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			s.record.warn("output file stays behind", err)
		}
	}
}

// append writes p to the file and says how much of it got there.
func (s *stream) append(p []byte) (int, error) {
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

// spill accounts for an ended stream that is no more than a head, and sees to
// it that all of it is in its file.
func (s *stream) spill() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	_, kept := s.sizes()
	if s.writing.counted || kept == 0 {
		return nil
	}
	if s.writing.file != nil { // and closed, at the end
		if !s.record.spool.reserve(s.record, kept) {
			return errNoRoom
		}
		s.writing.counted = true
	} else {
		if err := s.spread(nil); err != nil {
			return err
		}
		if err := s.writing.file.Close(); err != nil {
			return err
		}
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
	s.writing.full, s.writing.secured = true, true // no file is made any more
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
