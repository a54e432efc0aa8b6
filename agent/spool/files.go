package spool

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"ecs/internal/task"
)

// An entry's files are <name>.stdout, <name>.stderr, <name>.outputs with the
// task's files, <name>.counts while it is live and more was taken than its files
// hold, and, written last, when it has finished, <name>.meta. Data without a meta
// file is of a live entry, or a leftover.
const (
	suffixStdout  = ".stdout"
	suffixStderr  = ".stderr"
	suffixOutputs = ".outputs"
	suffixMeta    = ".meta"
	suffixCounts  = ".counts"
	suffixTemp    = ".tmp"
)

func suffixes() []string {
	return []string{suffixMeta, suffixStdout, suffixStderr, suffixOutputs, suffixCounts}
}

// fileName makes a name that no other entry has, now or after a restart: the
// serial tells apart what the token does not.
func fileName(tok task.Token, serial uint64) string {
	return fmt.Sprintf("%s-%d-%d-%d", safe(string(tok.Task)), tok.Attempt, tok.Epoch, serial)
}

// safe keeps an id that is fit to be a file name, and replaces any other one.
func safe(id string) string {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
	}
	if id != "" && len(id) <= 64 && strings.IndexFunc(id, func(c rune) bool { return !plain(c) }) < 0 {
		return id
	}
	h := fnv.New64a()
	h.Write([]byte(id))
	return "x" + hex.EncodeToString(h.Sum(nil))
}

// serialOf reads the serial back out of a name.
func serialOf(name string) uint64 {
	n, err := strconv.ParseUint(name[strings.LastIndexByte(name, '-')+1:], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// meta is what a finished entry's meta file says.
type meta struct {
	Task    string     `json:"task"`
	Attempt int        `json:"attempt"`
	Epoch   uint64     `json:"epoch"`
	Stdout  metaStream `json:"stdout"`
	Stderr  metaStream `json:"stderr"`
	Outputs metaStream `json:"outputs,omitzero"`
}

type metaStream struct {
	Bytes int64 `json:"bytes"`
	Kept  int64 `json:"kept"`
}

// write puts the file there whole or not at all. It is not forced to disk:
// after a crash of the machine load compares it with the data.
func (m meta) write(path string) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+suffixTemp, data, 0o600); err != nil {
		return errors.Join(err, os.Remove(path+suffixTemp))
	}
	return os.Rename(path+suffixTemp, path)
}

func decodeMeta(data []byte) (meta, error) {
	var m meta
	if err := json.Unmarshal(data, &m); err != nil {
		return meta{}, err
	}
	for _, s := range []metaStream{m.Stdout, m.Stderr, m.Outputs} {
		if s.Kept < 0 || s.Bytes < s.Kept {
			return meta{}, fmt.Errorf("%d bytes kept of %d", s.Kept, s.Bytes)
		}
	}
	if m.Task == "" {
		return meta{}, errors.New("no task id")
	}
	return m, nil
}

// loaded is a record found on disk.
type loaded struct {
	*record
	disk int64
	at   time.Time
}

// load takes up what an earlier process finished, and notes what it left.
func (s *Spool) load() error {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var found []loaded
	var rest []string
	for _, f := range files {
		name, isMeta := strings.CutSuffix(f.Name(), suffixMeta)
		if !isMeta {
			rest = append(rest, f.Name())
			continue
		}
		l, err := s.loadOne(name)
		if err != nil {
			s.log.Warn("output of an earlier run is dropped", "file", f.Name(), "err", err)
			if err := os.Remove(filepath.Join(s.dir, f.Name())); err != nil {
				return err
			}
			continue
		}
		found = append(found, l)
	}
	slices.SortFunc(found, func(a, b loaded) int {
		return cmp.Or(a.at.Compare(b.at), strings.Compare(a.name, b.name))
	})
	return s.sort(rest, s.take(found))
}

// take puts the records, oldest first, into the books.
func (s *Spool) take(found []loaded) (names map[string]bool) {
	names = map[string]bool{}
	var victims []*record
	s.mu.Lock()
	for _, l := range found {
		if old := s.mu.records[l.tok]; old != nil {
			s.forgetLocked(old)
			victims = append(victims, old)
		}
		s.mu.records[l.tok] = l.record
		l.record.disk = l.disk
		s.mu.disk += l.disk
		s.holdLocked(l.record, 0, l.at)
		s.mu.serial = max(s.mu.serial, serialOf(l.name))
		names[l.name] = true
	}
	victims = append(victims, s.overdueLocked(0)...)
	s.mu.Unlock()
	dropAll(victims)
	return names
}

func (s *Spool) loadOne(name string) (loaded, error) {
	path := filepath.Join(s.dir, name)
	info, err := os.Stat(path + suffixMeta)
	if err != nil {
		return loaded{}, err
	}
	data, err := os.ReadFile(path + suffixMeta)
	if err != nil {
		return loaded{}, err
	}
	m, err := decodeMeta(data)
	if err != nil {
		return loaded{}, fmt.Errorf("decode %s: %w", name+suffixMeta, err)
	}
	tok := task.Token{Task: task.ID(m.Task), Attempt: m.Attempt, Epoch: m.Epoch}
	r := newRecord(s, tok, name, 0)
	r.foundOnDisk()
	for _, part := range []struct {
		stream *stream
		metaStream
	}{{r.streams[0], m.Stdout}, {r.streams[1], m.Stderr}, {r.tar, m.Outputs}} {
		if err := part.stream.revive(part.metaStream); err != nil {
			return loaded{}, err
		}
	}
	return loaded{record: r, disk: m.Stdout.Kept + m.Stderr.Kept + m.Outputs.Kept, at: info.ModTime()}, nil
}

// revive makes a stream what it was when it ended.
func (s *stream) revive(m metaStream) error {
	if m.Kept > 0 {
		info, err := os.Stat(s.record.path(s.suffix))
		if err != nil {
			return err
		}
		if info.Size() != m.Kept {
			return fmt.Errorf("%s has %d bytes, want %d", info.Name(), info.Size(), m.Kept)
		}
	}
	s.writing.ended, s.writing.full = true, true
	s.mu.ended, s.mu.file = true, m.Kept > 0
	s.mu.kept, s.mu.bytes = m.Kept, m.Bytes
	return nil
}

// sort notes the data of entries that have not finished, and removes files that
// can't be of any use. It touches nothing that is not named as the spool names
// its files.
func (s *Spool) sort(files []string, owned map[string]bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range files {
		if strings.HasSuffix(f, suffixMeta+suffixTemp) {
			if err := os.Remove(filepath.Join(s.dir, f)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			continue
		}
		for _, suffix := range []string{suffixStdout, suffixStderr, suffixOutputs, suffixCounts} {
			if name, ok := strings.CutSuffix(f, suffix); ok && !owned[name] {
				s.mu.orphans[name] = true
				s.mu.serial = max(s.mu.serial, serialOf(name))
			}
		}
	}
	return nil
}

// Keep spares the entry of that name from Sweep: it is going to be reopened.
func (s *Spool) Keep(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.orphans, name)
}

// Sweep removes what an earlier process left unfinished and nobody reopened or
// asked to keep.
func (s *Spool) Sweep() error {
	s.mu.Lock()
	orphans := s.mu.orphans
	s.mu.orphans = map[string]bool{}
	s.mu.Unlock()
	var errs []error
	for name := range orphans {
		for _, suffix := range suffixes() {
			if err := os.Remove(filepath.Join(s.dir, name+suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
