package spool_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"ecs/agent/spool"
)

// collected gives the entry a tar of so many bytes.
func collected(t *testing.T, e *spool.Entry, data []byte) {
	t.Helper()
	tar, err := e.Tar()
	if err != nil {
		t.Fatal(err)
	}
	if !tar.Reserve(int64(len(data)) + 1000) {
		t.Fatal("got no room")
	}
	write(t, tar, data, 999)
	if err := tar.Keep(); err != nil {
		t.Fatal(err)
	}
}

func TestTarIsReadInRangesAndSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, big)
	e := s.Create(token(1), big)
	write(t, e.Stdout(), []byte("out"), 3)
	if _, _, err := read(s, token(1), spool.Outputs, 0, 0, false); !errors.Is(err, spool.ErrLost) {
		t.Errorf("got %v of a tar that is not there, want ErrLost", err)
	}
	data := noise(3, 100_000)
	collected(t, e, data)
	e.Finish()
	if e.InHead() {
		t.Error("got it all in the record, want the tar to be fetched")
	}
	for _, s := range []*spool.Spool{s, open(t, dir, big)} {
		got, last, err := read(s, token(1), spool.Outputs, 0, 0, false)
		if err != nil || !bytes.Equal(got, data) || !last.End || last.Bytes != 100_000 {
			t.Errorf("got %d bytes, %+v, %v", len(got), last, err)
		}
		if got, _, err := read(s, token(1), spool.Outputs, 70_000, 7, false); err != nil || !bytes.Equal(got, data[70_000:70_007]) {
			t.Errorf("got %d bytes of a range, %v, want 7", len(got), err)
		}
		if got, _, err := read(s, token(1), spool.Stdout, 0, 0, false); err != nil || string(got) != "out" {
			t.Errorf("got %q, %v beside the tar", got, err)
		}
		if _, disk := s.Usage(); disk != 100_003 {
			t.Errorf("got %d bytes accounted, want 100003: what was not written is given back", disk)
		}
	}
	s.Release(token(1))
	wantEmpty(t, s, dir)
}

func TestTarIsChargedToTheSpool(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 10_000)
	old := s.Create(token(2), big)
	write(t, old.Stdout(), noise(1, 9000), 9000)
	old.Finish()
	e := s.Create(token(1), big)
	tar, err := e.Tar()
	if err != nil {
		t.Fatal(err)
	}
	if !tar.Reserve(8000) || tar.Reserve(2001) {
		t.Error("want room for 8000 bytes, the oldest finished entry's, and no more")
	}
	if _, _, err := read(s, token(2), spool.Stdout, 0, 0, false); !errors.Is(err, spool.ErrLost) {
		t.Errorf("got %v, want the finished entry evicted", err)
	}
	if _, err := tar.Write(make([]byte, 8001)); err == nil {
		t.Error("got more written than was reserved")
	}
	tar.Drop()
	e.Finish()
	if _, disk := s.Usage(); disk != 0 || !e.InHead() {
		t.Errorf("got %d bytes accounted for a tar that was dropped", disk)
	}
	s.Release(token(1))
	wantEmpty(t, s, dir)
}

func TestReleasedEntryTakesNoTar(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, big)
	e := s.Create(token(1), big)
	tar, err := e.Tar()
	if err != nil || !tar.Reserve(100) {
		t.Fatal(err)
	}
	s.Release(token(1))
	if _, err := tar.Write(make([]byte, 10)); !errors.Is(err, spool.ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
	if err := tar.Keep(); !errors.Is(err, spool.ErrLost) || tar.Reserve(1) {
		t.Errorf("got %v, want ErrLost and no room", err)
	}
	tar.Drop()
	if _, err := e.Tar(); !errors.Is(err, spool.ErrLost) {
		t.Errorf("got %v, want no other one", err)
	}
	e.Finish()
	wantEmpty(t, s, dir)
}

// TestTarIsMadeAgainByTheNextProcess kills one while it collects, and one that
// had collected and finished but not told anybody.
func TestTarIsMadeAgainByTheNextProcess(t *testing.T) {
	for _, kept := range []bool{false, true} {
		dir := t.TempDir()
		s := open(t, dir, big)
		e := s.Create(token(1), big)
		write(t, e.Stdout(), noise(5, 20_000), 5000)
		if kept {
			collected(t, e, noise(1, 5000))
			e.Finish()
		} else if tar, err := e.Tar(); err != nil || !tar.Reserve(5000) {
			t.Fatal(err)
		} else {
			write(t, tar, noise(1, 4000), 4000)
		}
		s, e, stdout, _ := reopen(t, dir, s, e, big)
		if stdout != 20_000 {
			t.Errorf("kept: %v: got %d bytes of stdout, want 20000", kept, stdout)
		}
		if _, err := os.Stat(filepath.Join(dir, e.Name()+".outputs")); !os.IsNotExist(err) {
			t.Errorf("kept: %v: got %v, want the old tar gone", kept, err)
		}
		again := noise(2, 3000)
		collected(t, e, again)
		e.Finish()
		if got, _, err := read(s, token(1), spool.Outputs, 0, 0, false); err != nil || !bytes.Equal(got, again) {
			t.Errorf("kept: %v: got %d bytes, %v, want the second tar", kept, len(got), err)
		}
		if _, disk := s.Usage(); disk != 23_000 {
			t.Errorf("kept: %v: got %d bytes accounted, want 23000", kept, disk)
		}
		s.Release(token(1))
		wantEmpty(t, s, dir)
	}
}

func TestHalfATarIsSweptWithItsEntry(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, big)
	tar, err := s.Create(token(1), big).Tar()
	if err != nil || !tar.Reserve(100) {
		t.Fatal(err)
	}
	write(t, tar, make([]byte, 100), 100)
	again := open(t, dir, big)
	if err := again.Sweep(); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, again, dir)
}
