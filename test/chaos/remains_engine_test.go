package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// What an engine of a run's own ran is in no namespace that has a name: it is known
// by its cgroup, and its mounts by where they are.
func TestWhatAKilledEngineLeftIsRemoved(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("cgroups and mounts need root")
	}
	tag := fmt.Sprintf("ecjt%d", os.Getpid()%10000) // of no real run
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "pids")); err == nil {
		root = filepath.Join(root, "pids")
	}
	group, point := filepath.Join(root, tag, "inner"), filepath.Join(runsDir, tag, "merged")
	for _, dir := range []string{group, point} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	defer os.RemoveAll(filepath.Dir(point))
	if err := syscall.Mount("none", point, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	process := exec.Command("sleep", "1000")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(process.Process.Pid)), 0o600); err != nil {
		t.Error(err)
	}
	if err := sweep(t.Context(), tag, false); err != nil {
		t.Error(err)
	}
	_ = process.Wait() // it ends only if it was killed
	if s, ok := process.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		t.Errorf("its process ended by %v, want SIGKILL", process.ProcessState)
	}
	if _, err := os.Stat(filepath.Dir(group)); !os.IsNotExist(err) {
		t.Errorf("its cgroup: got %v, want none", err)
	}
	if text, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(text), point) {
		t.Errorf("%s is still mounted (%v)", point, err)
	}
}

func TestInnerMountsGoFirst(t *testing.T) {
	text := "20 1 254:0 / / rw - ext4 /dev/vda rw\n21 20 0:5 / /tmp/ecsx1/a rw - tmpfs none rw\n22 21 0:6 / /tmp/ecsx1/a/b rw - overlay none rw\n23 20 0:7 / /tmp/other rw - tmpfs none rw\n"
	if got, want := mountsUnder(text, "/tmp/ecsx"), []string{"/tmp/ecsx1/a/b", "/tmp/ecsx1/a"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
