package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// processes are the pids in a container's pid namespace.
func processes(t testing.TB, c *container) []string {
	t.Helper()
	want, err := os.Readlink("/proc/" + strconv.Itoa(c.cmd.Process.Pid) + "/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	var in []string
	for _, path := range all {
		if got, err := os.Readlink(path); err == nil && got == want {
			in = append(in, strings.Split(path, "/")[2])
		}
	}
	return in
}

// inPidsCgroup puts the container into a cgroup with a limit of processes.
func inPidsCgroup(t testing.TB, limit int) option {
	t.Helper()
	parent := "/sys/fs/cgroup/pids"
	if _, err := os.Stat(parent); err != nil {
		parent = "/sys/fs/cgroup"
	}
	dir, err := os.MkdirTemp(parent, "ecs-init-test")
	if err != nil {
		t.Fatalf("make a cgroup: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("remove the cgroup: %v", err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "pids.max"), []byte(strconv.Itoa(limit)), 0); err != nil {
		t.Fatalf("limit the cgroup: %v", err)
	}
	return func(c *exec.Cmd) { c.Env = append(c.Env, pidsEnv+"="+filepath.Join(dir, "cgroup.procs")) }
}

// statusOf reads a field of /proc/<pid>/status, in kB where it is a size.
func statusOf(t testing.TB, pid int, field string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in\n%s", field, text)
	return 0
}

// waitFor polls for what no event tells.
func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %s until %s", patience, what)
		}
	}
}
