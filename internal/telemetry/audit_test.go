package telemetry

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
