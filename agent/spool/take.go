package spool

import (
	"container/list"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"ecs/internal/task"
)

// ErrFull says that the spool has no room: what it holds is live, or finished
// later than what was to be taken.
var ErrFull = errors.New("the spool has no room for it")

// ErrBusy says that the spool could make room, but another output is on its way
// already that it will have to make room for.
var ErrBusy = errors.New("the spool has no more room until another output is here")

// errAltered says that what came is not what was to come.
var errAltered = errors.New("it is not what the record says")

// Held is what there is to know of a finished stream, or of a tar.
type Held struct {
	Bytes, Kept int64
	SHA256      [sha256.Size]byte // of the kept bytes
}

// Taking is the output of an attempt that another node finished, on its way here.
// It can be read once Keep has returned. One goroutine uses it.
type Taking struct {
	record *record
	parts  [3]taken // as record.parts
	at     time.Time
	size   int64
	beyond bool // room for it is made by Keep; guarded by spool.mu
}

// taken is one part of it.
type taken struct {
	stream *stream
	want   Held
	file   *os.File
	got    int64
}

// parts are what a record has, in the order of a Taking's.
func (r *record) parts() [3]*stream { return [3]*stream{r.streams[0], r.streams[1], r.tar} }

// partNames are their names for Read.
func partNames() [3]string { return [3]string{Stdout, Stderr, Outputs} }

// Take begins to take over what another node holds of an attempt of a task that
// finished at that time. Where there is no room, what finished before that is
// dropped for it, and nothing else; ErrFull: that is not enough. That is done by
// Keep, when all of it has come, so until then it is beyond the spool's limit; which
// one at a time may be, others get ErrBusy. A nil Taking without an error says that
// all of it is here already.
func (s *Spool) Take(tok task.Token, finished time.Time, stdout, stderr, outputs Held) (*Taking, error) {
	want := [3]Held{stdout, stderr, outputs}
	size := int64(0)
	for _, h := range want {
		if h.Kept < 0 || h.Bytes < h.Kept {
			return nil, fmt.Errorf("%w: %d bytes kept of %d", ErrRequest, h.Kept, h.Bytes)
		}
		size += h.Kept
	}
	if now := time.Now(); finished.After(now) {
		finished = now // by another's clock
	}
	s.mu.Lock()
	if old := s.mu.records[tok]; old != nil {
		s.mu.Unlock()
		return nil, old.sameAs(want)
	}
	s.mu.serial++
	r := newRecord(s, tok, fileName(tok, s.mu.serial), 0)
	beyond, err := s.admitLocked(r, size, finished)
	s.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("%w: %d bytes", err, size)
	}
	t := &Taking{record: r, at: finished, size: size, beyond: beyond}
	for i, st := range r.parts() {
		t.parts[i] = taken{stream: st, want: want[i]}
	}
	return t, nil
}

// admitLocked has room ready for n bytes, or knows that Keep can make it.
func (s *Spool) admitLocked(r *record, n int64, then time.Time) (beyond bool, err error) {
	victims, ok := s.olderLocked(n, then)
	switch {
	case !ok:
		return false, ErrFull
	case len(victims) == 0:
		s.mu.disk += n
		r.disk = n
		return false, nil
	case s.mu.beyond:
		return false, ErrBusy
	}
	s.mu.beyond = true
	return true, nil
}

// sameAs reports whether a record of this spool is what another node holds.
func (r *record) sameAs(want [3]Held) error {
	for i, st := range r.parts() {
		if v := st.view(0, false); !v.ended && st != r.tar || v.kept != want[i].Kept {
			return fmt.Errorf("another output of the same attempt is here: %w", errAltered)
		}
	}
	return nil
}

// olderLocked finds the oldest records, of those that finished before then, that have
// to go for one more of n bytes to have room; not ok when that is not enough.
func (s *Spool) olderLocked(n int64, then time.Time) (victims []*record, ok bool) {
	free, places := s.limit-s.mu.disk, s.entries-s.mu.inFiles.Len()
	for e := s.mu.inFiles.Front(); e != nil && (free < n || places < 1); e = e.Next() {
		r := e.Value.(*record)
		if !r.at.Before(then) {
			break
		}
		victims, free, places = append(victims, r), free+r.disk, places+1
	}
	return victims, free >= n && places >= 1
}

// Write takes the next bytes of a stream, or of the tar. After an error the Taking
// can only be dropped.
func (t *Taking) Write(name string, p []byte) error {
	for i, known := range partNames() {
		if known == name {
			return t.parts[i].write(p)
		}
	}
	return fmt.Errorf("%w: stream %q", ErrRequest, name)
}

func (p *taken) write(data []byte) (err error) {
	if p.got+int64(len(data)) > p.want.Kept {
		return fmt.Errorf("more than %d bytes came: %w", p.want.Kept, errAltered)
	}
	if p.stream.record.spool.left.Load() {
		return ErrLost
	}
	if p.file == nil {
		if p.file, err = os.OpenFile(p.stream.record.file(p.stream.suffix), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
			return err
		}
	}
	n, err := p.file.Write(data)
	p.got += int64(n)
	p.stream.writing.sum.Write(data[:n])
	return err
}

// Keep makes sure that everything has come and is what it should be, forces it to
// disk, makes room for it and lets readers have it: it outlives a crash of the
// machine. After an error, ErrFull when there is no room for it after all, the Taking
// is to be dropped.
//
// What is dropped for it is on disk until it is itself. After a crash between the
// two, Open drops the oldest.
func (t *Taking) Keep() error {
	r := t.record
	m := meta{Task: string(r.tok.Task), Attempt: r.tok.Attempt, Epoch: r.tok.Epoch}
	into := [3]*metaStream{&m.Stdout, &m.Stderr, &m.Outputs}
	for i := range t.parts {
		p := &t.parts[i]
		if err := p.settle(); err != nil {
			return fmt.Errorf("keep %s: %w", partNames()[i], err)
		}
		*into[i] = metaStream{Bytes: p.want.Bytes, Kept: p.want.Kept}
	}
	if r.spool.left.Load() {
		return ErrLost
	}
	if err := m.force(r.file(suffixMeta), t.at); err != nil {
		return err
	}
	for i := range t.parts {
		if err := t.parts[i].stream.revive(*into[i]); err != nil {
			return err
		}
	}
	return r.spool.adopt(t)
}

// settle checks one part and forces it to disk.
func (p *taken) settle() error {
	if p.got != p.want.Kept {
		return fmt.Errorf("%d bytes came of %d: %w", p.got, p.want.Kept, errAltered)
	}
	if p.got == 0 {
		return nil
	}
	if [sha256.Size]byte(p.stream.writing.sum.Sum(nil)) != p.want.SHA256 {
		return fmt.Errorf("%d bytes with another hash came: %w", p.got, errAltered)
	}
	f := p.file
	p.file = nil
	return errors.Join(f.Sync(), f.Close())
}

// force is write, forced to disk with the directory and the data in it. The file's
// time says how old the entry is, also to a later process.
func (m meta) force(path string, at time.Time) error {
	if err := m.write(path); err != nil {
		return err
	}
	if err := os.Chtimes(path, at, at); err != nil {
		return err
	}
	for _, name := range []string{path, filepath.Dir(path)} {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("force %s to disk: %w", name, err)
		}
	}
	return nil
}

// adopt puts a record that came whole into the books, by its age, and drops what it
// has no room beside.
func (s *Spool) adopt(t *Taking) error {
	s.mu.Lock()
	victims, err := s.adoptLocked(t)
	s.mu.Unlock()
	dropAll(victims)
	return err
}

func (s *Spool) adoptLocked(t *Taking) ([]*record, error) {
	r := t.record
	if s.mu.records[r.tok] != nil {
		return nil, errors.New("the same output came twice at once")
	}
	more := int64(0) // bytes that are not counted yet
	if t.beyond {
		more = t.size
	}
	victims, ok := s.olderLocked(more, t.at)
	if !ok {
		return nil, fmt.Errorf("%w: %d bytes, others have come meanwhile", ErrFull, t.size)
	}
	for _, old := range victims {
		s.forgetLocked(old)
	}
	if t.beyond {
		t.beyond, s.mu.beyond = false, false
		s.mu.disk += t.size
		r.disk = t.size
	}
	s.mu.records[r.tok] = r
	s.holdLocked(r, 0, t.at)
	return victims, nil // what is newer has no claim on its room
}

// Drop leaves nothing of what did not come whole.
func (t *Taking) Drop() {
	for i := range t.parts {
		if f := t.parts[i].file; f != nil {
			_ = f.Close() // it is removed
			t.parts[i].file = nil
		}
	}
	s := t.record.spool
	s.mu.Lock()
	s.mu.disk -= t.record.disk
	t.record.disk = 0
	if t.beyond {
		t.beyond, s.mu.beyond = false, false
	}
	s.mu.Unlock()
	t.record.drop()
}

// insertByAge puts a finished record behind those that finished before it.
func insertByAge(l *list.List, r *record) *list.Element {
	for e := l.Back(); e != nil; e = e.Prev() {
		if !e.Value.(*record).at.After(r.at) {
			return l.InsertAfter(r, e)
		}
	}
	return l.PushFront(r)
}

// Free is how many bytes have room beside what is held.
func (s *Spool) Free() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(0, s.limit-s.mu.disk)
}
