package spool

import (
	"fmt"
	"os"
)

// Tar takes the files that an attempt left, as one tar. Unlike a stream it is
// of no use in part: it can be read once Keep has returned, and does not outlive
// the process before its entry has finished. It is used by one goroutine.
type Tar struct {
	stream            *stream
	reserved, written int64
}

// Tar begins the entry's tar. What there is of one is dropped. ErrLost: the
// entry was released.
func (e *Entry) Tar() (*Tar, error) {
	s := e.record.tar
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.writing.full || s.writing.ended || s.record.spool.left.Load() {
		return nil, ErrLost
	}
	f, err := os.OpenFile(s.record.file(s.suffix), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	s.writing.file = f
	return &Tar{stream: s}, nil
}

// Reserve asks for room for n more bytes, within the spool's limit. What is
// reserved and not written is given back by Keep.
func (t *Tar) Reserve(n int64) bool {
	if !t.stream.record.spool.reserve(t.stream.record, n) {
		return false
	}
	t.reserved += n
	return true
}

// Write writes what room was reserved for. After an error the tar can only be
// dropped.
func (t *Tar) Write(p []byte) (int, error) {
	if t.written+int64(len(p)) > t.reserved {
		return 0, fmt.Errorf("write %d bytes with room for %d", len(p), t.reserved-t.written)
	}
	s := t.stream
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.writing.full || s.writing.file == nil || s.record.spool.left.Load() {
		return 0, ErrLost
	}
	n, err := s.writing.file.Write(p)
	t.written += int64(n)
	return n, err
}

// Keep lets readers have the tar as it is.
func (t *Tar) Keep() error {
	s := t.stream
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.writing.full || s.writing.file == nil || s.record.spool.left.Load() {
		return ErrLost
	}
	if err := s.writing.file.Close(); err != nil {
		return err
	}
	s.writing.ended, s.writing.counted = true, true
	s.record.spool.unreserve(s.record, t.reserved-t.written)
	t.reserved = t.written
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.kept, s.mu.bytes = t.written, t.written
	s.mu.ended, s.mu.file = true, true
	return nil
}

// Drop leaves nothing of a tar that was not kept.
func (t *Tar) Drop() {
	s := t.stream
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.writing.ended || s.writing.file == nil {
		return // kept, or dropped with its entry
	}
	_ = s.writing.file.Close() // it is removed
	s.writing.file = nil
	if s.record.spool.left.Load() {
		return
	}
	if err := s.record.remove(s.suffix); err != nil {
		s.record.warn("output file stays behind", err)
	}
	s.record.spool.unreserve(s.record, t.reserved)
}
