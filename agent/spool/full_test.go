package spool_test

import (
	"os"
	"syscall"
	"testing"
)

func TestAFullDiskCutsOutputAndNothingElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small filesystem needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("mount a small filesystem: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
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
