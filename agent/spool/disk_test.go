package spool_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"ecs/agent/spool"
	"ecs/internal/task"
)

func TestLeftoversAreRemovedAndStrangersStay(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, big)
	e := s.Create(token(1), big)
	write(t, e.Stdout(), noise(1, 100_000), 8000)
	stranger := filepath.Join(dir, "README")
	if err := os.WriteFile(stranger, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, big) // as after a crash: the entry never finished
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Errorf("got %v, want nothing removed that may be reopened", files)
	}
	if err := again.Sweep(); err != nil {
		t.Fatal(err)
	}
	files, _ := os.ReadDir(dir)
	if len(files) != 1 || files[0].Name() != "README" {
		t.Errorf("got %v, want the stranger's file only", files)
	}
}

func TestFinishedEntriesSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, big)
	out, errs := noise(1, 100_000), noise(2, 77)
	odd := task.Token{Task: "../../etc/x", Attempt: 3, Epoch: 1 << 63}
	for _, tok := range []task.Token{token(1), odd} {
		e := s.Create(tok, 90_000)
		write(t, e.Stdout(), out, 8000)
		write(t, e.Stderr(), errs, 8000)
		e.Finish()
	}
	small := s.Create(token(2), big)
	write(t, small.Stdout(), errs, 10)
	small.Secure()
	small.Finish()

	again := open(t, dir, big)
	for _, tok := range []task.Token{token(1), odd} {
		got, last, err := read(again, tok, spool.Stdout, 0, 0, true)
		if err != nil || !bytes.Equal(got, out[:90_000]) || last.Bytes != 100_000 || !last.Truncated || !last.End {
			t.Errorf("%v: got %d bytes, %+v, %v after a restart", tok, len(got), last.Bytes, err)
		}
		got, _, err = read(again, tok, spool.Stderr, 0, 0, true)
		if err != nil || !bytes.Equal(got, errs) {
			t.Errorf("%v: got %d bytes of stderr, %v, want %d", tok, len(got), err, len(errs))
		}
	}
	if _, disk := again.Usage(); disk != 2*(90_000+77) {
		t.Errorf("got %d bytes in use, want %d", disk, 2*(90_000+77))
	}
	again.Release(token(1))
	again.Release(odd)
	if err := again.Sweep(); err != nil { // of the small one: the record has it
		t.Fatal(err)
	}
	wantEmpty(t, again, dir)
}

func TestDamagedEntriesAreDroppedAtOpen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, big)
	for i := range 2 {
		e := s.Create(token(i), big)
		write(t, e.Stdout(), noise(1, 50_000), 8000)
		e.Finish()
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.stdout"))
	if err != nil || len(names) != 2 {
		t.Fatalf("got %v, %v, want two files", names, err)
	}
	if err := os.Truncate(names[0], 49_999); err != nil {
		t.Fatal(err)
	}
	metas, _ := filepath.Glob(filepath.Join(dir, "*.meta"))
	if err := os.WriteFile(metas[1], []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, big)
	if err := again.Sweep(); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, again, dir)
}

func TestTheOldestFinishedGoesFirstAndTheLiveNever(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 100_000)
	live := s.Create(token(0), big)
	write(t, live.Stdout(), noise(0, 30_000), 8000)
	for i := 1; i <= 4; i++ {
		e := s.Create(token(i), big)
		write(t, e.Stdout(), noise(uint64(i), 30_000), 8000)
		e.Finish()
	}
	for i := range 5 {
		got, _, err := read(s, token(i), spool.Stdout, 0, 0, false)
		if i == 1 || i == 2 {
			if !errors.Is(err, spool.ErrLost) {
				t.Errorf("entry %d: got %v, want ErrLost", i, err)
			}
		} else if err != nil || !bytes.Equal(got, noise(uint64(i), 30_000)) {
			t.Errorf("entry %d: got %d bytes, %v, want all", i, len(got), err)
		}
	}
	// The order outlives a restart, and so does a lower limit.
	again := open(t, dir, 40_000)
	if _, _, err := read(again, token(3), spool.Stdout, 0, 0, false); !errors.Is(err, spool.ErrLost) {
		t.Errorf("got %v for the older one, want ErrLost", err)
	}
	if got, _, err := read(again, token(4), spool.Stdout, 0, 0, false); err != nil || len(got) != 30_000 {
		t.Errorf("got %d bytes, %v for the newer one, want all", len(got), err)
	}
}

func TestAtTheLimitWithOnlyLiveEntriesOutputIsCutNotBlocked(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 50_000)
	a, b := s.Create(token(1), big), s.Create(token(2), big)
	data := noise(1, 60_000)
	write(t, a.Stdout(), data[:40_000], 8000)
	write(t, b.Stdout(), data, 6000)
	write(t, a.Stdout(), data[40_000:], 8000)
	outA, _ := a.Finish()
	outB, _ := b.Finish()
	wantStream(t, outA, data, data[:40_000])
	wantStream(t, outB, data, data[:task.HeadBytes])
	if got, _, err := read(s, token(2), spool.Stdout, 0, 0, false); err != nil || !bytes.Equal(got, data[:task.HeadBytes]) {
		t.Errorf("got %d bytes, %v, want the head", len(got), err)
	}
	if _, disk := s.Usage(); disk > 50_000 {
		t.Errorf("got %d bytes accounted, want at most the limit", disk)
	}
}

func TestALostDirectoryDoesNotHurtTheProgram(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	s := open(t, dir, big)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	e := s.Create(token(1), big)
	data := noise(1, 50_000)
	write(t, e.Stdout(), data, 8000)
	out, _ := e.Finish()
	wantStream(t, out, data, data[:task.HeadBytes])
	if _, disk := s.Usage(); disk != 0 {
		t.Errorf("got %d bytes accounted, want 0", disk)
	}
}

func TestReadersThatHaveBegunOutliveEviction(t *testing.T) {
	s := open(t, t.TempDir(), big)
	e := s.Create(token(1), big)
	data := noise(1, 10*spool.ChunkBytes)
	write(t, e.Stdout(), data, 8000)
	e.Finish()
	var got []byte
	err := s.Read(context.Background(), token(1), spool.Stdout, 0, 0, false, func(c spool.Chunk) error {
		s.Release(token(1))
		got = append(got, c.Data...)
		return nil
	})
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, %v, want all %d", len(got), err, len(data))
	}
}

func TestFinishedHeadsAreBounded(t *testing.T) {
	s := open(t, t.TempDir(), big)
	head := noise(1, task.HeadBytes)
	const many = 6000 // 48 MiB of heads
	for i := range many {
		e := s.Create(token(i), big)
		write(t, e.Stdout(), head, len(head))
		e.Finish()
	}
	if entries, _ := s.Usage(); entries > 4100 || entries < 3000 {
		t.Errorf("got %d entries in memory, want about 32 MiB of them", entries)
	}
	if _, _, err := read(s, token(0), spool.Stdout, 0, 0, false); !errors.Is(err, spool.ErrLost) {
		t.Errorf("got %v for the oldest, want ErrLost", err)
	}
	if _, _, err := read(s, token(many-1), spool.Stdout, 0, 0, false); err != nil {
		t.Errorf("got %v for the newest, want its output", err)
	}
}

// A program that writes while others are evicted around it loses nothing.
func TestChurnAtTheLimit(t *testing.T) {
	s := open(t, t.TempDir(), 2<<20)
	deadline := time.Now().Add(time.Second)
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := 0; time.Now().Before(deadline); i++ {
				tok := token(w*1_000_000 + i)
				data := noise(uint64(i), 100_000)
				e := s.Create(tok, big)
				write(t, e.Stdout(), data, 32<<10)
				out, _ := e.Finish()
				wantStream(t, out, data, data)
				if i%3 == 0 {
					s.Release(tok)
				}
			}
		})
	}
	all.Wait()
	if _, disk := s.Usage(); disk > 2<<20 {
		t.Errorf("got %d bytes in use, want at most the limit", disk)
	}
}
