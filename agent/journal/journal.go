// Package journal lets an agent that was killed take up what it left running:
// one file for each attempt that may have begun, until its result has been
// acknowledged, and one for the lease.
//
// It is to outlive the process and not the machine: nothing is forced to disk,
// and what belongs to another boot is of no use. Nothing secret is in it. A file
// that can't be read is refused, said and removed.
package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ecs/internal/task"
)

const (
	// maxRecords and maxRecord bound the journal: more attempts, or a larger
	// one, are not begun.
	maxRecords = 4096
	maxRecord  = 8 << 20

	suffixRecord = ".attempt"
	suffixTemp   = ".tmp"
	leaseName    = "lease"
	probeName    = "probe" + suffixTemp
)

// Record is what is known of one attempt that may have begun.
type Record struct {
	Token      task.Token
	Spec       task.Spec // wiped of what only the attempt may know
	CID, Owner string
	Begun      time.Time // when its program was about to begin
	Digest     string    // of its image
	Output     string    // the name of its entry in the spool
	Bill       task.Bill // so far
	// Stop is what it was being ended as, if it was.
	Stop *Stop
	// Result is there once it has ended, with the times of that.
	Result             *task.Result
	StartedAt, EndedAt time.Time
}

// Stop says what an attempt is to end as.
type Stop struct {
	Outcome task.Outcome `json:"outcome"`
	Reason  string       `json:"reason"`
}

// Lease is the node's lease as it last stood.
type Lease struct {
	Boot    string        // tells one boot of the machine from the next
	Epoch   uint64        // 0: none to resume
	Contact time.Duration // since boot
	Length  time.Duration
}

// Journal is one agent's. Its methods are safe for concurrent use. With an
// empty directory it keeps nothing.
type Journal struct {
	dir  string
	log  *slog.Logger
	left atomic.Bool // see Abandon

	mu struct {
		sync.Mutex
		records map[task.Token]bool
		failed  error // of the last Put
	}
	lease struct {
		sync.Mutex
		file *os.File
	}
}

// New makes a journal in dir. It does nothing before Load.
func New(dir string, log *slog.Logger) *Journal {
	j := &Journal{dir: dir, log: log}
	j.mu.records = map[task.Token]bool{}
	return j
}

// Left is what an earlier process left.
type Left struct {
	Records []Record
	Lease   Lease
	// Refused counts the attempts that can't be read: what they were, and
	// whether they ran, is not known.
	Refused int
}

// Load reads what an earlier process left. An error is the directory's.
func (j *Journal) Load() (left Left, err error) {
	if j.dir == "" {
		return Left{}, nil
	}
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		return Left{}, fmt.Errorf("make the journal: %w", err)
	}
	files, err := os.ReadDir(j.dir)
	if err != nil {
		return Left{}, fmt.Errorf("read the journal: %w", err)
	}
	clear(j.mu.records)
	for _, f := range files {
		name := f.Name()
		switch {
		case name == leaseName:
			_, err = j.read(name, func(data []byte) (err error) { left.Lease, err = decodeLease(data); return err })
		case strings.HasSuffix(name, suffixTemp):
			err = j.drop(name)
		case strings.HasSuffix(name, suffixRecord):
			var taken bool
			taken, err = j.read(name, func(data []byte) error {
				r, err := decode(data)
				if err == nil {
					err = j.admit(name, r)
				}
				if err == nil {
					left.Records = append(left.Records, r)
				}
				return err
			})
			if !taken {
				left.Refused++
			}
		}
		if err != nil {
			return Left{}, fmt.Errorf("read the journal: %w", err)
		}
	}
	return left, nil
}

// admit takes a record that was read into the books.
func (j *Journal) admit(name string, r Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case fileName(r.Token) != name:
		return fmt.Errorf("it is of %v, which has another name", r.Token)
	case len(j.mu.records) >= maxRecords:
		return fmt.Errorf("there are %d others", maxRecords)
	}
	j.mu.records[r.Token] = true
	return nil
}

// read reads one file, and removes it if it is refused.
func (j *Journal) read(name string, decode func([]byte) error) (taken bool, err error) {
	f, err := os.Open(filepath.Join(j.dir, name))
	if err != nil {
		return false, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err = errors.Join(err, f.Close()); err == nil {
		err = decode(data)
	}
	if err == nil {
		return true, nil
	}
	j.log.Warn("what the journal says is refused and removed", "file", name, "err", err)
	return false, j.drop(name)
}

func (j *Journal) drop(name string) error {
	if err := os.Remove(filepath.Join(j.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// fileName is the file of an attempt.
func fileName(tok task.Token) string {
	sum := sha256.Sum256([]byte(tok.Task))
	return fmt.Sprintf("%s-%d-%d%s", hex.EncodeToString(sum[:16]), tok.Attempt, tok.Epoch, suffixRecord)
}

// Put writes a record down, in the place of an earlier one of the attempt. When
// it has returned nil, the record outlives the process.
func (j *Journal) Put(r Record) error {
	if j.dir == "" || j.left.Load() {
		return nil
	}
	err := j.put(r)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("write the journal: %w", err)
	}
	j.mu.failed = err
	return err
}

func (j *Journal) put(r Record) error {
	data, err := encode(r)
	if err != nil {
		return err
	}
	j.mu.Lock()
	known := j.mu.records[r.Token]
	full := !known && len(j.mu.records) >= maxRecords
	if !full {
		j.mu.records[r.Token] = true
	}
	j.mu.Unlock()
	if full {
		return fmt.Errorf("it has %d attempts, which is all it takes", maxRecords)
	}
	if err = j.write(fileName(r.Token), data); err != nil && !known {
		j.mu.Lock()
		delete(j.mu.records, r.Token)
		j.mu.Unlock()
	}
	return err
}

// write puts a file there whole or not at all.
func (j *Journal) write(name string, data []byte) error {
	path := filepath.Join(j.dir, name)
	if err := os.WriteFile(path+suffixTemp, data, 0o600); err != nil {
		return errors.Join(err, j.drop(name+suffixTemp))
	}
	return os.Rename(path+suffixTemp, path)
}

// Remove forgets an attempt.
func (j *Journal) Remove(tok task.Token) {
	j.mu.Lock()
	known := j.mu.records[tok]
	j.mu.Unlock()
	if !known || j.left.Load() {
		return
	}
	if err := j.drop(fileName(tok)); err != nil {
		j.log.Warn("journal of an attempt stays behind", "task", tok.Task, "attempt", tok.Attempt, "err", err)
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.mu.records, tok)
}

// SetLease writes the lease down.
func (j *Journal) SetLease(l Lease) error {
	if j.dir == "" || j.left.Load() {
		return nil
	}
	j.lease.Lock()
	defer j.lease.Unlock()
	if j.lease.file == nil {
		f, err := os.OpenFile(filepath.Join(j.dir, leaseName), os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return fmt.Errorf("write the lease down: %w", err)
		}
		j.lease.file = f
	}
	if _, err := j.lease.file.WriteAt(encodeLease(l), 0); err != nil {
		return fmt.Errorf("write the lease down: %w", err)
	}
	return nil
}

// Check says why nothing can be written down, and tries again if that was so.
func (j *Journal) Check() error {
	j.mu.Lock()
	err := j.mu.failed
	full := len(j.mu.records) >= maxRecords
	j.mu.Unlock()
	if err == nil || full {
		return err
	}
	if err = j.write(probeName, make([]byte, 4096)); err == nil {
		err = j.drop(probeName)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.mu.failed = err
	return err
}

// Attempts is how many attempts the journal has.
func (j *Journal) Attempts() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.mu.records)
}

// Abandon leaves everything as it is, as the end of the process would.
func (j *Journal) Abandon() { j.left.Store(true) }

// Close closes the lease's file.
func (j *Journal) Close() error {
	j.lease.Lock()
	defer j.lease.Unlock()
	f := j.lease.file
	j.lease.file = nil
	if f == nil {
		return nil
	}
	return f.Close()
}
