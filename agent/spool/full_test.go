package spool_test

import (
	"os"
	"syscall"
	"testing"
)

// smallDisk is a directory on a disk of that size.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small filesystem needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("mount a small filesystem: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// What could not be written down is not said to have been taken: whoever wrote it
// still has it, and a later process may have room.
func TestAFullDiskDoesNotMakeTheWriterForget(t *testing.T) {
	for _, secured := range []bool{false, true} {
		dir := smallDisk(t, "4k")
		s := open(t, dir, big)
		const max = 5000 // more than the disk has
		e := s.Create(token(1), max)
		data := noise(1, 9000)
		write(t, e.Stdout(), data[:6000], 1000)
		if secured {
			e.Secure()
		}
		write(t, e.Stdout(), data[6000:], 1000)
		s.Abandon()
		s = open(t, dir, big)
		e, stdout, _, err := s.Reopen(token(1), e.Name(), max)
		if err != nil || stdout != 0 {
			t.Fatalf("secured: %t: got %d bytes taken, %v, want none", secured, stdout, err)
		}
		write(t, e.Stdout(), data, 1000)
		out, _ := e.Finish()
		wantStream(t, out, data, data[:max])
	}
}

func TestAFullDiskCutsOutputAndNothingElse(t *testing.T) {
	dir := smallDisk(t, "256k")
	s := open(t, dir, big)
	data := noise(1, 1<<20)
	first := s.Create(token(1), big)
	write(t, first.Stdout(), data, 30_000)
	out, _ := first.Finish()
	if out.Kept < 200_000 || out.Kept > 256<<10 {
		t.Fatalf("got %d bytes kept on a disk of 256 KiB", out.Kept)
	}
	wantStream(t, out, data, data[:out.Kept])
	if got, last, err := read(s, token(1), "stdout", 0, 0, false); err != nil || len(got) != int(out.Kept) || !last.Truncated {
		t.Errorf("got %d bytes, truncated %v, %v, want %d", len(got), last.Truncated, err, out.Kept)
	}
	// The accounting follows the disk, so that what is released can be used.
	if _, disk := s.Usage(); disk != out.Kept {
		t.Errorf("got %d bytes accounted, want %d", disk, out.Kept)
	}
	s.Release(token(1))
	second := s.Create(token(2), big)
	write(t, second.Stdout(), data[:100_000], 30_000)
	out, _ = second.Finish()
	wantStream(t, out, data[:100_000], data[:100_000])
}
