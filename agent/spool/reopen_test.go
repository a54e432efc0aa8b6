package spool_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"ecs/agent/spool"
	"ecs/internal/task"
)

// reopen is what the next process does with an entry after a kill.
func reopen(t *testing.T, dir string, before *spool.Spool, e *spool.Entry, max int64) (*spool.Spool, *spool.Entry, int64, int64) {
	t.Helper()
	name := e.Name()
	before.Abandon()
	write(t, e.Stdout(), noise(99, 5000), 999) // of a dead process
	e.Finish()
	before.Release(token(1))
	s := open(t, dir, big)
	again, stdout, stderr, err := s.Reopen(token(1), name, max)
	if err != nil {
		t.Fatal(err)
	}
	return s, again, stdout, stderr
}

func TestReopenedEntriesGoOnAsIfNothingHadHappened(t *testing.T) {
	const max = 50_000
	sizes := []int{0, 1, task.HeadBytes - 1, task.HeadBytes, task.HeadBytes + 1, 20_000, max - 1, max, max + 1, 2 * max}
	for _, first := range sizes {
		for _, second := range sizes {
			t.Run(fmt.Sprintf("%d and %d", first, second), func(t *testing.T) {
				goOn(t, first, second, max, midway)
			})
		}
	}
	for _, max := range []int{1, 3} {
		for _, first := range []int{0, 1, 2, 3, 4, 100} {
			for _, when := range []int{midway, atTheEnd} {
				t.Run(fmt.Sprintf("%d of %d secured %d", first, max, when), func(t *testing.T) {
					goOn(t, first, 0, max, when)
				})
			}
		}
	}
}

// When an entry is secured.
const (
	never = iota
	midway
	atTheEnd
)

// What is no more than a head is written again by whoever still holds it.
func TestOfWhatIsNotSecuredOnlyMoreThanAHeadIsTaken(t *testing.T) {
	sizes := []int{0, 1, task.HeadBytes, task.HeadBytes + 1, 20_000}
	for _, max := range []int{1, 3, 50_000} {
		for _, first := range sizes {
			for _, second := range sizes {
				t.Run(fmt.Sprintf("%d and %d of %d", first, second, max), func(t *testing.T) {
					goOn(t, first, second, max, never)
				})
			}
		}
	}
}

// goOn has an entry go on in another process, and its end be as if it had not.
func goOn(t *testing.T, first, second, max, secured int) {
	dir := t.TempDir()
	s := open(t, dir, big)
	e := s.Create(token(1), int64(max))
	wrote := noise(7, first+second)
	write(t, e.Stdout(), wrote[:first/2], 3000)
	if secured == midway {
		e.Secure()
	}
	write(t, e.Stdout(), wrote[first/2:first], 3000)
	write(t, e.Stderr(), []byte("err"), 3)
	if secured == atTheEnd {
		e.Secure()
	}
	wantOut, wantErr := int64(first), int64(3)
	if secured == never {
		wantErr = 0
		if first <= task.HeadBytes {
			wantOut = 0
			wantNoFile(t, dir)
		}
	}
	s, e, stdout, stderr := reopen(t, dir, s, e, int64(max))
	if stdout != wantOut || stderr != wantErr {
		t.Fatalf("got %d and %d bytes taken, want %d and %d", stdout, stderr, wantOut, wantErr)
	}
	write(t, e.Stdout(), wrote[stdout:], 3000)
	write(t, e.Stderr(), []byte("err")[stderr:], 3)
	out, errs := e.Finish()
	wantStream(t, out, wrote, wrote[:min(len(wrote), max)])
	wantStream(t, errs, []byte("err"), []byte("err")[:min(3, max)])
	got, last, err := read(s, token(1), spool.Stdout, 0, 0, true)
	if err != nil || !bytes.Equal(got, wrote[:min(len(wrote), max)]) || last.Bytes != int64(len(wrote)) {
		t.Errorf("read: got %d bytes of %d, %v, want all that is kept", len(got), last.Bytes, err)
	}
	s.Release(token(1))
	wantEmpty(t, s, dir)
}

func wantNoFile(t *testing.T, dir string) {
	t.Helper()
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("got %d files, %v, want none for what is no more than a head", len(files), err)
	}
}

func TestAnEntryThatHadJustFinishedCanBeReopened(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, big)
	e := s.Create(token(1), 20_000)
	data := noise(1, 30_000)
	write(t, e.Stdout(), data, 7000)
	first, _ := e.Finish()
	s, e, stdout, _ := reopen(t, dir, s, e, 20_000)
	if stdout != 30_000 {
		t.Errorf("got %d bytes taken, want 30000", stdout)
	}
	if out, _ := e.Finish(); out.SHA256 != first.SHA256 || out.Bytes != first.Bytes || out.Kept != first.Kept {
		t.Errorf("got %d bytes, %d kept, want the same as before", out.Bytes, out.Kept)
	}
	if _, disk := s.Usage(); disk != 20_000 {
		t.Errorf("got %d bytes accounted, want 20000", disk)
	}
}

func TestWhatIsSkippedIsCountedAndEndsTheKeeping(t *testing.T) {
	s := open(t, t.TempDir(), big)
	e := s.Create(token(1), big)
	write(t, e.Stdout(), []byte("kept"), 9)
	e.Stdout().(interface{ Skip(int64) }).Skip(10)
	write(t, e.Stdout(), []byte("more"), 9)
	out, _ := e.Finish()
	wantStream(t, out, append([]byte("kept"), make([]byte, 14)...), []byte("kept"))
}

func TestOnlyAnEntrysOwnNameReopensIt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, big)
	victim := filepath.Join(dir, "precious")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "../precious", "precious", "01task2-1-7-1", "01task1-1-7-x"} {
		if _, _, _, err := s.Reopen(token(1), name, big); err == nil {
			t.Errorf("%q: got none, want an error", name)
		}
	}
	if _, err := os.Stat(victim); err != nil {
		t.Error(err)
	}
}

func TestNamesAreNotUsedAgainWhileOrphansWait(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, big)
	e := s.Create(token(1), big)
	e.Secure()
	write(t, e.Stdout(), []byte("old"), 9)
	old := e.Name()
	s.Abandon()
	s = open(t, dir, big)
	e = s.Create(token(1), big)
	write(t, e.Stdout(), []byte("new"), 9)
	if e.Name() == old {
		t.Errorf("got the name %s twice", old)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if out, _ := e.Finish(); string(out.Head) != "new" {
		t.Errorf("got %q, want the new output", out.Head)
	}
}

func TestSweepSparesWhatIsKeptToBeReopened(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, big)
	e := s.Create(token(1), 60_000)
	wrote := noise(5, 100_000)
	write(t, e.Stdout(), wrote[:80_000], 8000)
	s.Abandon()
	s = open(t, dir, big)
	s.Keep(e.Name())
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	e, stdout, _, err := s.Reopen(token(1), e.Name(), 60_000)
	if err != nil || stdout != 80_000 {
		t.Fatalf("got %d bytes taken, %v, want 80000", stdout, err)
	}
	write(t, e.Stdout(), wrote[80_000:], 8000)
	out, _ := e.Finish()
	wantStream(t, out, wrote, wrote[:60_000])
	s.Release(token(1))
	wantEmpty(t, s, dir)
}

// BenchmarkShortOutput is what the spool costs a task that says hi.
func BenchmarkShortOutput(b *testing.B) {
	dir := b.TempDir()
	s, err := spool.Open(dir, big, discard())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		e := s.Create(token(1), big)
		if _, err := io.WriteString(e.Stdout(), "hi\n"); err != nil {
			b.Fatal(err)
		}
		e.Finish()
		s.Release(token(1))
	}
}

func FuzzCounts(f *testing.F) {
	f.Add([]byte("0123456789abcdef"))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		s := open(t, dir, big)
		e := s.Create(token(1), 1)
		write(t, e.Stdout(), []byte("ab"), 2)
		e.Secure()
		s.Abandon()
		if err := os.WriteFile(filepath.Join(dir, e.Name()+".counts"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		again, stdout, stderr, err := open(t, dir, big).Reopen(token(1), e.Name(), 1)
		if err == nil && (stdout < 1 || stderr < 0) {
			t.Errorf("got %d and %d bytes taken", stdout, stderr)
		}
		if err == nil {
			again.Finish()
		}
	})
}
