package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Audit is an append-only stream of who did what, apart from the log: one JSON
// object a line, each written at once. Its methods are safe for concurrent use,
// and do nothing on nil.
type Audit struct {
	log  *slog.Logger
	file *auditFile
}

// OpenAudit appends to the file at path, which it makes readable to its owner
// alone. The file may be moved away, by logrotate say: it is made anew within a
// second's records. A record that can't be written is told to faults, once until
// one can be again.
func OpenAudit(path string, faults *slog.Logger, attrs ...slog.Attr) (*Audit, error) {
	f := &auditFile{path: path, faults: faults}
	if err := f.open(); err != nil {
		return nil, fmt.Errorf("open the audit stream: %w", err)
	}
	return &Audit{log: NewLogger(f, slog.LevelInfo, attrs...), file: f}, nil
}

// NewAudit writes to w.
func NewAudit(w io.Writer, attrs ...slog.Attr) *Audit {
	return &Audit{log: NewLogger(w, slog.LevelInfo, attrs...)}
}

// Note writes that something was done. ctx gives the correlation id.
func (a *Audit) Note(ctx context.Context, what string, attrs ...slog.Attr) {
	if a != nil {
		a.log.LogAttrs(ctx, slog.LevelInfo, what, attrs...)
	}
}

// Close closes the file.
func (a *Audit) Close() error {
	if a == nil || a.file == nil {
		return nil
	}
	return a.file.close()
}

// lookAgain is how often a write looks whether the file is still at its path.
const lookAgain = time.Second

type auditFile struct {
	path   string
	faults *slog.Logger

	mu     sync.Mutex
	file   *os.File
	looked time.Time
	broken bool
	torn   bool // the last record is there in part
}

func (f *auditFile) open() error {
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if f.file != nil {
		_ = f.file.Close() // what was written to it is with the kernel
	}
	f.file, f.looked, f.torn = file, time.Now(), false
	return nil
}

// Write implements io.Writer for a handler that writes one line each time.
func (f *auditFile) Write(line []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.follow()
	n := 0
	if err == nil {
		n, err = f.append(line)
	}
	if err != nil && !f.broken {
		f.faults.Error("audit records are lost", "path", f.path, "err", err)
	}
	if err == nil && f.broken {
		f.faults.Info("audit records are kept again", "path", f.path)
	}
	f.broken = err != nil
	return n, err
}

// append writes a line. Where the one before is there in part, on a disk that was
// full say, that is ended first: it alone is lost, and not this one too.
func (f *auditFile) append(line []byte) (int, error) {
	if f.torn {
		if _, err := f.file.Write([]byte("\n")); err != nil {
			return 0, err
		}
		f.torn = false
	}
	n, err := f.file.Write(line)
	f.torn = err != nil && n > 0
	return n, err
}

// follow opens the file anew when another, or none, is at its path.
func (f *auditFile) follow() error {
	if f.file == nil {
		return os.ErrClosed
	}
	if time.Since(f.looked) < lookAgain && !f.broken {
		return nil
	}
	f.looked = time.Now()
	there, err := os.Stat(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return f.open()
	}
	if err != nil {
		return err
	}
	mine, err := f.file.Stat()
	if err != nil || !os.SameFile(there, mine) {
		return f.open()
	}
	return nil
}

func (f *auditFile) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.file.Close()
	f.file = nil
	return err
}
