// Package spool keeps what programs write, byte for byte, until the record
// holds it or nobody wants it any more.
//
// The first task.HeadBytes of a stream stay in memory until the entry has
// finished. Once more has come, or the entry is secured, all that a Write has
// returned for is in a file too and outlives the process; before that whoever
// writes must be able to do it again. What is no more than a head is not accounted
// for. A later process takes a live entry up with Reopen.
//
// Writers never wait for readers, and never fail: what does not fit (the task's own
// cap, the spool's limit, a full disk) is counted and dropped, and the stream says
// that it is truncated. What is kept of a stream is always its beginning.
//
// The spool starts no goroutine.
package spool

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ecs/internal/task"
)

// ErrLost says that the spool does not hold the stream: it never did, or it was
// released or evicted.
var ErrLost = errors.New("the output is not held here (any more)")

// ErrRequest says that what was asked for can't exist: another stream than
// those below, a negative offset or limit.
var ErrRequest = errors.New("not a request for output")

// The names of what can be read.
const (
	Stdout = "stdout"
	Stderr = "stderr"
	// Outputs is the tar of the files that were left.
	Outputs = "outputs"
)

const (
	// ChunkBytes is the most that one Chunk carries.
	ChunkBytes = 32 << 10
	// heldBytes bounds the memory of finished entries that are not released.
	// They are all in the record's heads, or soon will be.
	heldBytes = 32 << 20
	// heldEntries bounds how many finished entries are known of either kind,
	// in files and in memory.
	heldEntries = 16 << 10
)

// Spool holds the output of one agent's attempts. All its methods are safe for
// concurrent use.
type Spool struct {
	dir   string
	limit int64
	// entries is heldEntries, but for tests.
	entries int
	log     *slog.Logger
	left    atomic.Bool // see Abandon

	mu struct {
		sync.Mutex
		records map[task.Token]*record
		// Finished records, the longest finished first.
		inFiles, inMemory list.List
		disk              int64 // bytes in files, live records' too
		memory            int64 // bytes of finished records' heads
		serial            uint64
		beyond            bool // a Taking is on its way that has no room yet
		// orphans are the names of entries that an earlier process has not
		// finished, until they are reopened, kept or swept.
		orphans map[string]bool
	}
}

// Open opens the spool in dir, which it makes if need be. Entries that an
// earlier process finished are there again; what it left unfinished waits for
// Reopen or Sweep; what is reopened only after the Sweep needs a Keep before it.
// limit is in bytes on disk; at the limit the entry that finished longest ago
// goes first, and a live one never. Beside it there may be one output that comes from
// another node, see Take.
func Open(dir string, limit int64, log *slog.Logger) (*Spool, error) {
	s := &Spool{dir: dir, limit: limit, entries: heldEntries, log: log}
	s.mu.records, s.mu.orphans = map[task.Token]*record{}, map[string]bool{}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the output spool: %w", err)
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("open the output spool %s: %w", dir, err)
	}
	return s, nil
}

// Create begins the entry of an attempt, of which the first maxOutput bytes of
// each stream are kept. An entry that the token already has is dropped.
func (s *Spool) Create(tok task.Token, maxOutput int64) *Entry {
	s.Release(tok)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.serial++
	r := newRecord(s, tok, fileName(tok, s.mu.serial), maxOutput)
	s.mu.records[tok] = r
	return &Entry{record: r}
}

// Abandon leaves everything as it is, as the end of the process would: nothing
// more is written or removed. Readers go on.
func (s *Spool) Abandon() { s.left.Store(true) }

// Release drops an attempt's output now: it is all in the record, or the task
// is forgotten. Readers that have begun get what they can.
func (s *Spool) Release(tok task.Token) {
	s.mu.Lock()
	r := s.mu.records[tok]
	if r != nil {
		s.forgetLocked(r)
	}
	s.mu.Unlock()
	if r != nil {
		r.drop()
	}
}

// Usage says how many entries the spool knows and how many bytes they have in
// files.
func (s *Spool) Usage() (entries int, disk int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.records), s.mu.disk
}

// Read sends a stream of an attempt, or its tar of outputs, in chunks of at most
// ChunkBytes, from offset on, limit bytes at most (0: all). At least one chunk
// is sent; the last one tells Bytes, and End when the stream has ended. With
// follow, Read stays until the stream ends or limit is reached.
//
// ErrLost: there is nothing (any more) to send. ErrRequest: there never will
// be. An error of send or of ctx ends the Read and is returned.
func (s *Spool) Read(ctx context.Context, tok task.Token, stream string, offset, limit int64, follow bool, send func(Chunk) error) error {
	if offset < 0 || limit < 0 {
		return fmt.Errorf("%w: offset %d, limit %d", ErrRequest, offset, limit)
	}
	if !slices.Contains([]string{Stdout, Stderr, Outputs}, stream) {
		return fmt.Errorf("%w: stream %q, want %s, %s or %s", ErrRequest, stream, Stdout, Stderr, Outputs)
	}
	s.mu.Lock()
	r := s.mu.records[tok]
	s.mu.Unlock()
	if r == nil || r.readable(stream) == nil {
		return ErrLost
	}
	rd := reader{from: r.readable(stream), offset: offset, left: limit, all: limit == 0, follow: follow}
	defer rd.close()
	return rd.run(ctx, send)
}

func (s *Spool) holds(r *record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.records[r.tok] == r
}

// finished lets a record be evicted from now on. It reports false for one that
// was released.
func (s *Spool) finished(r *record, memory int64) bool {
	s.mu.Lock()
	held := s.mu.records[r.tok] == r
	var victims []*record
	if held {
		s.holdLocked(r, memory, time.Now())
		victims = s.overdueLocked(0)
	}
	s.mu.Unlock()
	dropAll(victims)
	return held
}

func (s *Spool) holdLocked(r *record, memory int64, at time.Time) {
	r.list = &s.mu.inMemory
	if r.disk > 0 {
		r.list = &s.mu.inFiles
	}
	r.at = at
	r.place = insertByAge(r.list, r)
	r.memory = memory
	s.mu.memory += memory
}

// reserve asks for n more bytes on disk and evicts for them what it may.
func (s *Spool) reserve(r *record, n int64) bool {
	s.mu.Lock()
	if s.mu.records[r.tok] != r {
		s.mu.Unlock()
		return false
	}
	victims := s.overdueLocked(n)
	ok := s.mu.disk+n <= s.limit
	if ok {
		s.mu.disk += n
		r.disk += n
	}
	s.mu.Unlock()
	dropAll(victims)
	return ok
}

// claim accounts for bytes that are on disk already.
func (s *Spool) claim(r *record, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.records[r.tok] == r {
		s.mu.disk += n
		r.disk += n
	}
}

// unreserve gives back what could not be written after all.
func (s *Spool) unreserve(r *record, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.records[r.tok] == r {
		s.mu.disk -= n
		r.disk -= n
	}
}

// overdueLocked takes finished records out, oldest first, until n more bytes
// have room on disk and the other bounds hold.
func (s *Spool) overdueLocked(n int64) (victims []*record) {
	take := func(l *list.List) {
		r := l.Front().Value.(*record)
		s.forgetLocked(r)
		victims = append(victims, r)
	}
	for l := &s.mu.inFiles; l.Len() > s.entries || (l.Len() > 0 && s.mu.disk+n > s.limit); {
		take(l)
	}
	for l := &s.mu.inMemory; l.Len() > s.entries || (l.Len() > 0 && s.mu.memory > heldBytes); {
		take(l)
	}
	return victims
}

// forgetLocked takes a record out of the books. Its files are removed by drop,
// outside the lock.
func (s *Spool) forgetLocked(r *record) {
	delete(s.mu.records, r.tok)
	s.mu.disk -= r.disk
	s.mu.memory -= r.memory
	r.disk, r.memory = 0, 0
	if r.place != nil {
		r.list.Remove(r.place)
		r.place = nil
	}
}

func dropAll(records []*record) {
	for _, r := range records {
		r.drop()
	}
}
