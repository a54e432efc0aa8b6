package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAuditAppendsAndFollowsARotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(path, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := OpenAudit(path, slog.New(slog.NewTextHandler(io.Discard, nil)), slog.String("node", "c1"))
	if err != nil {
		t.Fatal(err)
	}
	a.Note(WithCID(context.Background(), "c"), "first", slog.String("who", "alice"), slog.String("password", "hunter2"))
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	a.file.looked = time.Now().Add(-2 * lookAgain)
	a.Note(context.Background(), "second")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	old, fresh := read(t, path+".1"), read(t, path)
	if !strings.HasPrefix(old, "before\n{") || !strings.Contains(old, `"msg":"first","node":"c1","who":"alice","password":"[redacted]","cid":"c"}`) {
		t.Errorf("got %q, want the first record behind what was there", old)
	}
	if strings.Count(fresh, "\n") != 1 || !strings.Contains(fresh, `"second"`) {
		t.Errorf("got %q, want the second record in a new file", fresh)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", info.Mode(), err)
	}
}

func TestLostAuditRecordsAreToldOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var told bytes.Buffer
	a, err := OpenAudit(filepath.Join(dir, "audit.log"), slog.New(slog.NewTextHandler(&told, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	a.file.looked = time.Time{}
	a.Note(context.Background(), "lost")
	a.Note(context.Background(), "lost too")
	if n := strings.Count(told.String(), "audit records are lost"); n != 1 {
		t.Errorf("got %q, want it told once", &told)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a.Note(context.Background(), "kept")
	if !strings.Contains(told.String(), "kept again") || !strings.Contains(read(t, filepath.Join(dir, "audit.log")), `"kept"`) {
		t.Errorf("got %q, want the record, and word of it", &told)
	}
}

// A record that the disk had no room for is lost alone.
func TestHalfARecordSpoilsNoOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	a, err := OpenAudit(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	a.Note(context.Background(), "before")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	fileLimit(t, uint64(info.Size())+20, func() { a.Note(context.Background(), "lost") })
	a.Note(context.Background(), "after")
	whole := 0
	for line := range strings.Lines(read(t, path)) {
		if json.Valid([]byte(line)) {
			whole++
		}
	}
	if text := read(t, path); whole != 2 || !strings.Contains(text, `"after"`) {
		t.Errorf("got %q, want the records before and after whole", text)
	}
}

// fileLimit runs f while no file may grow beyond size.
func fileLimit(t *testing.T, size uint64, f func()) {
	t.Helper()
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
			t.Error(err)
		}
	}()
	f()
}

func TestNoAuditTakesEverything(t *testing.T) {
	var a *Audit
	a.Note(context.Background(), "nothing")
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
