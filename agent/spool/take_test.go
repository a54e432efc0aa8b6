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

// crowded is a spool that has no room: three outputs of 10,000 bytes that finished
// one, two and three hours ago.
func crowded(t *testing.T) (dir string, s *Spool, tokens []task.Token) {
	t.Helper()
	dir = t.TempDir()
	s = openAt(t, dir, 30_000)
	for i, id := range []task.ID{"one", "two", "three"} {
		tok, out := task.Token{Task: id, Attempt: 1, Epoch: 1}, filler(10_000, byte(i))
		taking, err := s.Take(tok, time.Now().Add(-time.Duration(i+1)*time.Hour), heldOf(out), Held{}, Held{})
		if err == nil {
			err = errors.Join(taking.Write(Stdout, out), taking.Keep())
		}
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, tok)
	}
	return dir, s, tokens
}

var comes = task.Token{Task: "comes", Attempt: 1, Epoch: 1}

func wantHeld(t *testing.T, s *Spool, tokens ...task.Token) {
	t.Helper()
	for _, tok := range tokens {
		if got := all(t, s, tok, Stdout); len(got) != 10_000 {
			t.Errorf("got %d bytes of %s, want all", len(got), tok.Task)
		}
	}
	if n, disk := s.Usage(); n != len(tokens) || disk != int64(10_000*len(tokens)) {
		t.Errorf("got %d entries of %d bytes, want %d", n, disk, len(tokens))
	}
}

func TestRoomIsMadeOnlyWhenAllHasCome(t *testing.T) {
	dir, s, tokens := crowded(t)
	out := filler(10_000, 9)
	for _, spoilt := range []bool{true, false} {
		taking, err := s.Take(comes, time.Now(), heldOf(out), Held{}, Held{})
		if err != nil {
			t.Fatal(err)
		}
		if err := taking.Write(Stdout, out[:9000]); err != nil {
			t.Fatal(err)
		}
		wantHeld(t, s, tokens...)
		if _, err := s.Take(task.Token{Task: "other", Attempt: 1, Epoch: 1}, time.Now(), heldOf(out), Held{}, Held{}); !errors.Is(err, ErrBusy) {
			t.Errorf("a second one without room: got %v, want it to wait", err)
		}
		if spoilt {
			if err := taking.Keep(); err == nil {
				t.Error("got a part kept")
			}
			taking.Drop()
			wantHeld(t, s, tokens...)
			continue
		}
		if err := errors.Join(taking.Write(Stdout, out[9000:]), taking.Keep()); err != nil {
			t.Fatal(err)
		}
		wantHeld(t, s, tokens[0], tokens[1], comes)
	}
	if metas, _ := filepath.Glob(filepath.Join(dir, "*"+suffixMeta)); len(metas) != 3 {
		t.Errorf("got the files %v, want three entries'", metas)
	}
	if taking, err := s.Take(task.Token{Task: "other", Attempt: 1, Epoch: 1}, time.Now(), heldOf(out), Held{}, Held{}); err != nil {
		t.Errorf("the next one: got %v, want it to come", err)
	} else {
		taking.Drop()
	}
}

// A spool that knows as many entries as it may takes nothing that is older than all of
// them: that would be the first to go.
func TestTheNumberOfEntriesIsARoom(t *testing.T) {
	_, s, tokens := crowded(t)
	s.entries, s.limit = len(tokens), 100_000
	out := filler(10_000, 9)
	keep := func(age time.Duration) error {
		taking, err := s.Take(comes, time.Now().Add(-age), heldOf(out), Held{}, Held{})
		if err != nil {
			return err
		}
		return errors.Join(taking.Write(Stdout, out), taking.Keep())
	}
	if err := keep(1000 * time.Hour); !errors.Is(err, ErrFull) {
		t.Errorf("got %v of what is older than all, want ErrFull", err)
	}
	wantHeld(t, s, tokens...)
	if err := keep(0); err != nil {
		t.Errorf("got %v of what is newer than all", err)
	}
	wantHeld(t, s, append(tokens[:2], comes)...) // the third is the oldest
}

// What was older than what comes has made room for others meanwhile.
func TestWhatHasNoRoomAfterAllIsDropped(t *testing.T) {
	dir, s, tokens := crowded(t)
	out := filler(10_000, 9)
	taking, err := s.Take(comes, time.Now().Add(-150*time.Minute), heldOf(out), Held{}, Held{})
	if err != nil {
		t.Fatal(err)
	}
	e := s.Create(task.Token{Task: "live", Attempt: 1, Epoch: 1}, 20_000)
	if n, err := e.Stdout().Write(filler(10_000, 3)); n != 10_000 || err != nil {
		t.Fatal(n, err)
	}
	if err := errors.Join(taking.Write(Stdout, out), taking.Keep()); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want it full", err)
	}
	taking.Drop()
	e.Finish()
	wantHeld(t, s, tokens[0], tokens[1], task.Token{Task: "live", Attempt: 1, Epoch: 1})
	if left, _ := filepath.Glob(filepath.Join(dir, "comes*")); len(left) != 0 {
		t.Errorf("got the files %v left", left)
	}
}

// A crash at any step of Keep leaves the old output, or the new one and what has
// room beside it.
func TestACrashWhileRoomIsMadeLosesNothingNew(t *testing.T) {
	dir, s, tokens := crowded(t)
	out := filler(10_000, 9)
	taking, err := s.Take(comes, time.Now(), heldOf(out), Held{}, Held{})
	if err != nil {
		t.Fatal(err)
	}
	if err := taking.Write(Stdout, out); err != nil {
		t.Fatal(err)
	}
	// before is all of it with nothing said about it; after is all of it beside what
	// it takes the place of.
	before, after := t.TempDir(), t.TempDir()
	if err := errors.Join(os.CopyFS(before, os.DirFS(dir)), os.CopyFS(after, os.DirFS(dir))); err != nil {
		t.Fatal(err)
	}
	if err := taking.Keep(); err != nil {
		t.Fatal(err)
	}
	metas, err := filepath.Glob(filepath.Join(dir, "comes*"+suffixMeta))
	if err != nil || len(metas) != 1 {
		t.Fatal(metas, err)
	}
	data, err := os.ReadFile(metas[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(after, filepath.Base(metas[0])), data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, crashed := range []string{before, after} { // a copy's times are of the copying
		for i, tok := range tokens {
			at := time.Now().Add(-time.Duration(i+1) * time.Hour)
			old, _ := filepath.Glob(filepath.Join(crashed, string(tok.Task)+"*"+suffixMeta))
			if err := os.Chtimes(old[0], at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	s = openAt(t, before, 30_000)
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	wantHeld(t, s, tokens...)
	s = openAt(t, after, 30_000)
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	wantHeld(t, s, tokens[0], tokens[1], comes)
}
