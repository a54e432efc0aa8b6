package spool

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ecs/internal/task"
)

func heldOf(p []byte) Held {
	return Held{Bytes: int64(len(p)), Kept: int64(len(p)), SHA256: sha256.Sum256(p)}
}

func filler(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i%251) + seed
	}
	return p
}

func openAt(t *testing.T, dir string, limit int64) *Spool {
	t.Helper()
	s, err := Open(dir, limit, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// all reads a stream whole.
func all(t *testing.T, s *Spool, tok task.Token, stream string) []byte {
	t.Helper()
	var got bytes.Buffer
	if err := s.Read(t.Context(), tok, stream, 0, 0, false, func(c Chunk) error { got.Write(c.Data); return nil }); err != nil {
		t.Fatalf("read %s of %v: %v", stream, tok, err)
	}
	return got.Bytes()
}

func leftovers(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

func TestTakenOutputIsReadAlsoAfterARestart(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, 1<<20)
	tok := task.Token{Task: "t1", Attempt: 2, Epoch: 7}
	out, tar := filler(100_000, 1), filler(5000, 2)
	truncated := heldOf(out)
	truncated.Bytes = 1 << 30
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	taking, err := s.Take(tok, at, truncated, Held{}, heldOf(tar))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Read(t.Context(), tok, Stdout, 0, 0, false, func(Chunk) error { return nil }); !errors.Is(err, ErrLost) {
		t.Errorf("read of what is on its way: got %v, want it lost", err)
	}
	for rest := out; len(rest) > 0; rest = rest[min(len(rest), 7000):] {
		if err := taking.Write(Stdout, rest[:min(len(rest), 7000)]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(taking.Write(Outputs, tar), taking.Keep()); err != nil {
		t.Fatal(err)
	}
	for _, again := range []bool{false, true} {
		if again {
			s = openAt(t, dir, 1<<20)
		}
		if !bytes.Equal(all(t, s, tok, Stdout), out) || !bytes.Equal(all(t, s, tok, Outputs), tar) || len(all(t, s, tok, Stderr)) != 0 {
			t.Errorf("after a restart %v: what is read is not what came", again)
		}
		if n, disk := s.Usage(); n != 1 || disk != int64(len(out)+len(tar)) {
			t.Errorf("got %d entries of %d bytes, want 1 of %d", n, disk, len(out)+len(tar))
		}
		if taking, err := s.Take(tok, at, truncated, Held{}, heldOf(tar)); taking != nil || err != nil {
			t.Errorf("taken again: got %v, %v, want it to be here", taking, err)
		}
		if s.mu.inFiles.Front().Value.(*record).at.Sub(at).Abs() > time.Second {
			t.Errorf("got the age %s, want %s", s.mu.inFiles.Front().Value.(*record).at, at)
		}
	}
}

func TestNothingStaysOfWhatDidNotComeWhole(t *testing.T) {
	out := filler(10_000, 3)
	for name, tc := range map[string]struct {
		write []byte
		says  string
	}{
		"short":   {out[:9999], "9999 bytes came of 10000"},
		"long":    {append(bytes.Clone(out), 1), "more than 10000"},
		"altered": {filler(10_000, 4), "another hash"},
		"nothing": {nil, "0 bytes came"},
	} {
		dir := t.TempDir()
		s := openAt(t, dir, 1<<20)
		taking, err := s.Take(task.Token{Task: "t1", Attempt: 1, Epoch: 1}, time.Now(), heldOf(out), Held{}, Held{})
		if err != nil {
			t.Fatal(err)
		}
		err = taking.Write(Stdout, tc.write)
		if err == nil {
			err = taking.Keep()
		}
		if err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: got %v, want %q", name, err, tc.says)
		}
		taking.Drop()
		if n, disk := s.Usage(); n != 0 || disk != 0 || s.Free() != 1<<20 || len(leftovers(t, dir)) != 0 {
			t.Errorf("%s: got %d entries, %d bytes and the files %v, want none", name, n, disk, leftovers(t, dir))
		}
	}
}

// A crash in the middle leaves files that nobody wants.
func TestOutputThatWasOnItsWayIsSweptAfterACrash(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, 1<<20)
	taking, err := s.Take(task.Token{Task: "t1", Attempt: 1, Epoch: 1}, time.Now(), heldOf(filler(9000, 1)), Held{}, Held{})
	if err != nil {
		t.Fatal(err)
	}
	if err := taking.Write(Stdout, filler(4000, 1)); err != nil {
		t.Fatal(err)
	}
	s.Abandon()
	s = openAt(t, dir, 1<<20)
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, dir); len(left) != 0 {
		t.Errorf("got the files %v, want none", left)
	}
}

func TestOnlyOlderOutputMakesRoomForWhatIsTaken(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, 30_000)
	now := time.Now()
	take := func(id task.ID, age time.Duration, size int) error {
		out := filler(size, 1)
		taking, err := s.Take(task.Token{Task: id, Attempt: 1, Epoch: 1}, now.Add(-age), heldOf(out), Held{}, Held{})
		if err != nil {
			return err
		}
		return errors.Join(taking.Write(Stdout, out), taking.Keep())
	}
	for _, tc := range []struct {
		id   task.ID
		age  time.Duration
		size int
		full bool
		left int
	}{
		{"hours", 3 * time.Hour, 10_000, false, 1},
		{"hour", time.Hour, 10_000, false, 2},
		{"older", 5 * time.Hour, 10_000, false, 3},
		{"oldest", 6 * time.Hour, 10_000, true, 3}, // nothing here is older
		{"day", 24 * time.Hour, 1, true, 3},
		{"new", time.Minute, 10_000, false, 3},      // in the place of older
		{"large", time.Second, 30_001, true, 3},     // drops nothing in vain
		{"middle", 2 * time.Hour, 10_000, false, 3}, // in the place of hours
		{"wide", 90 * time.Minute, 15_000, true, 3},
	} {
		err := take(tc.id, tc.age, tc.size)
		if errors.Is(err, ErrFull) != tc.full || err != nil && !tc.full {
			t.Errorf("%s: got %v, want full %v", tc.id, err, tc.full)
		}
		if n, disk := s.Usage(); n != tc.left || disk > 30_000 {
			t.Errorf("%s: got %d entries of %d bytes, want %d", tc.id, n, disk, tc.left)
		}
	}
	for _, id := range []task.ID{"hour", "new", "middle"} {
		all(t, s, task.Token{Task: id, Attempt: 1, Epoch: 1}, Stdout)
	}
	if metas, _ := filepath.Glob(filepath.Join(dir, "*"+suffixMeta)); len(metas) != 3 {
		t.Errorf("got the files %v, want three entries'", metas)
	}
}
