package spool

import (
	"container/list"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ecs/internal/task"
)

// Entry takes the output of one attempt. The spool itself keeps less of it, so
// whoever made it should let go of it after the end.
type Entry struct {
	record *record

	once   sync.Once
	result [2]task.Stream
}

// Stdout is where the attempt's standard output goes. Its Write never fails and
// never waits for a reader; it is safe for concurrent use.
func (e *Entry) Stdout() io.Writer { return e.record.streams[0] }

// Stderr is Stdout for standard error.
func (e *Entry) Stderr() io.Writer { return e.record.streams[1] }

// Secure has what was written up to now, and what will be, outlive the process,
// however little it is. It is safe for concurrent use, and after the end does
// nothing.
func (e *Entry) Secure() {
	for _, s := range e.record.streams {
		s.secure()
	}
}

// Name is what Reopen finds the entry by after a restart.
func (e *Entry) Name() string { return e.record.name }

// Finish ends both streams and says what became of them. Later writes are
// dropped without being counted. It is idempotent.
func (e *Entry) Finish() (stdout, stderr task.Stream) {
	e.once.Do(func() {
		for i, s := range e.record.streams {
			e.result[i] = s.finish()
		}
		e.record.settle()
	})
	return e.result[0], e.result[1]
}

// InHead reports whether the record's heads hold everything that is kept, so
// that nothing is left to fetch. It is meaningful after Finish.
func (e *Entry) InHead() bool {
	return e.result[0].Kept <= task.HeadBytes && e.result[1].Kept <= task.HeadBytes && !e.record.tar.inFile()
}

// record is what the spool itself holds of an entry.
type record struct {
	spool   *Spool
	tok     task.Token
	name    string // of its files, without the suffix
	streams [2]*stream
	tar     *stream // see Tar; its writer does not use the stream's Write
	counts  counts
	made    atomic.Uint32 // a bit for each of suffixes that a file may be there under

	// Under spool.mu.
	list         *list.List // where it is while finished
	place        *list.Element
	disk, memory int64     // what is accounted for it
	at           time.Time // when it finished
}

func newRecord(s *Spool, tok task.Token, name string, maxOutput int64) *record {
	r := &record{spool: s, tok: tok, name: name}
	for i, suffix := range []string{suffixStdout, suffixStderr} {
		r.streams[i] = newStream(r, suffix, maxOutput)
	}
	r.tar = newStream(r, suffixOutputs, 0)
	return r
}

// readable finds what Read calls by that name, or nil.
func (r *record) readable(name string) *stream {
	switch {
	case name == Stdout:
		return r.streams[0]
	case name == Stderr:
		return r.streams[1]
	case name == Outputs && r.tar.inFile():
		return r.tar
	}
	return nil
}

// file is path for a file that is about to be made.
func (r *record) file(suffix string) string {
	r.made.Or(1 << slices.Index(suffixes(), suffix))
	return r.path(suffix)
}

// foundOnDisk says that an earlier process may have made any of the files.
func (r *record) foundOnDisk() { r.made.Store(1<<len(suffixes()) - 1) }

func (r *record) path(suffix string) string { return filepath.Join(r.spool.dir, r.name+suffix) }

// settle puts a finished record into files or leaves it in memory, never half
// and half: either all of it can be read after a restart or none need be.
func (r *record) settle() {
	r.counts.close(r)
	if r.spool.left.Load() || !r.spool.holds(r) {
		return // released while it ran
	}
	if r.streams[0].inFile() || r.streams[1].inFile() || r.tar.inFile() {
		if err := r.persist(); err != nil {
			r.warn("output will not survive a restart of the agent", err)
		}
	}
	var memory int64
	for _, s := range r.streams {
		memory += s.shrink()
	}
	if !r.spool.finished(r, memory) {
		r.drop() // released meanwhile, perhaps before the last file was made
	}
}

func (r *record) persist() error {
	m := meta{Task: string(r.tok.Task), Attempt: r.tok.Attempt, Epoch: r.tok.Epoch}
	for i, into := range []*metaStream{&m.Stdout, &m.Stderr} {
		s := r.streams[i]
		if err := s.spill(); err != nil {
			return err
		}
		into.Bytes, into.Kept = s.sizes()
	}
	m.Outputs.Bytes, m.Outputs.Kept = r.tar.sizes()
	if err := m.write(r.file(suffixMeta)); err != nil {
		return err
	}
	return r.remove(suffixCounts)
}

// remove removes a file if one was made.
func (r *record) remove(suffix string) error {
	if r.made.Load()&(1<<slices.Index(suffixes(), suffix)) == 0 {
		return nil
	}
	if err := os.Remove(r.path(suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// drop ends what still goes on and removes the files.
func (r *record) drop() {
	for _, s := range r.streams {
		s.drop()
	}
	r.tar.drop()
	r.counts.close(r)
	if r.spool.left.Load() {
		return
	}
	for _, suffix := range suffixes() {
		if err := r.remove(suffix); err != nil {
			r.warn("output file stays behind", err)
		}
	}
}

func (r *record) warn(message string, err error) {
	r.spool.log.Warn(message, slog.String("task", string(r.tok.Task)), slog.Int("attempt", r.tok.Attempt), slog.Any("err", err))
}
