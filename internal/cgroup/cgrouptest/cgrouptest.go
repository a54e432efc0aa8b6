// Package cgrouptest makes cgroups with real processes in them, for tests that
// kill.
package cgrouptest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ecs/internal/cgroup"
)

// Pids is the most processes a cgroup of Make has.
const Pids = 200

// parent holds the cgroups of v2: the fence kills none at the very top.
const parent = "ecs-test"

// Group is one cgroup.
type Group struct {
	Dir  string   // as package cgroup names it
	dirs []string // in all hierarchies
}

// Make makes an empty cgroup as an engine would, under v1 or v2 as this machine
// has it, and removes it with all that is in it when the test ends. Without root
// the test is skipped.
func Make(t testing.TB) *Group {
	t.Helper()
	if _, err := os.Stat(filepath.Join(cgroup.Root, "cgroup.controllers")); err == nil {
		return makeIn(t, filepath.Join(cgroup.Root, parent))
	}
	return makeIn(t, filepath.Join(cgroup.Root, "pids"), filepath.Join(cgroup.Root, "freezer"), filepath.Join(cgroup.Root, "cpu"))
}

// MakeUnified makes one of v2, on a machine that has v1 as well; where there is
// none the test is skipped.
func MakeUnified(t testing.TB) *Group {
	t.Helper()
	for _, top := range []string{cgroup.Root, filepath.Join(cgroup.Root, "unified")} {
		if _, err := os.Stat(filepath.Join(top, "cgroup.controllers")); err != nil {
			continue
		}
		tops := []string{filepath.Join(top, parent)}
		// Beside v1 the limit of processes is there, and a fork bomb without one
		// takes the machine along.
		if v1 := filepath.Join(cgroup.Root, "pids"); exists(v1) {
			tops = append(tops, v1)
		}
		return makeIn(t, tops...)
	}
	t.Skip("this machine has no cgroup v2")
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// limitable has the cgroups below a directory of v2 limit their processes.
func limitable(dir string) {
	for _, above := range []string{filepath.Dir(dir), dir} {
		_ = os.WriteFile(filepath.Join(above, "cgroup.subtree_control"), []byte("+pids"), 0) // where it can't, v1 does
	}
}

func makeIn(t testing.TB, tops ...string) *Group {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("cgroups need root")
	}
	g := new(Group)
	name := fmt.Sprintf("ecs-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	t.Cleanup(func() { g.remove(t) })
	for _, top := range tops {
		dir := filepath.Join(top, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if filepath.Base(top) == parent {
			limitable(top)
		}
		g.dirs = append(g.dirs, dir)
	}
	g.Dir = g.dirs[0]
	if err := g.Set("pids.max", fmt.Sprint(Pids)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		t.Fatal(err)
	}
	return g
}

// Set writes a file of the cgroup, in the hierarchy that has it.
func (g *Group) Set(name, value string) error {
	err := fs.ErrNotExist
	for _, dir := range g.dirs {
		if _, stat := os.Stat(filepath.Join(dir, name)); stat == nil {
			err = os.WriteFile(filepath.Join(dir, name), []byte(value), 0)
		}
	}
	return err
}

// Run runs a shell script in the cgroup.
func (g *Group) Run(t testing.TB, script string) *exec.Cmd {
	t.Helper()
	enter := "for d; do echo 0 >$d/cgroup.procs || exit 99; done; " + script
	cmd := exec.Command("sh", append([]string{"-c", enter, "sh"}, g.dirs...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed
	}()
	t.Cleanup(func() {
		if err := cgroup.Kill(context.Background(), g.Dir); err != nil {
			t.Error(err)
		}
		<-ended
	})
	return cmd
}

// Await waits until the cgroup has at least n processes.
func (g *Group) Await(t testing.TB, n int) {
	t.Helper()
	g.Until(t, 10*time.Second, fmt.Sprintf("%d processes", n), func(pids []int) bool { return len(pids) >= n })
}

// Until waits for the cgroup's processes to be as wanted, and gives the time it
// took.
func (g *Group) Until(t testing.TB, within time.Duration, want string, cond func(pids []int) bool) time.Duration {
	t.Helper()
	for began := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		pids, err := cgroup.Pids(g.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if cond(pids) {
			return time.Since(began)
		}
		if time.Since(began) > within {
			t.Fatalf("got %d processes after %s, want %s", len(pids), within, want)
		}
	}
}

// Gone removes the cgroup itself, as an engine does after a container.
func (g *Group) Gone(t testing.TB) { g.remove(t) }

func (g *Group) remove(t testing.TB) {
	for _, dir := range g.dirs {
		if !strings.HasPrefix(filepath.Base(dir), "ecs-test-") {
			t.Fatalf("%s is not a test's", dir)
		}
		var all []string
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		slices.Reverse(all)
		for _, one := range all {
			removeOne(t, one)
		}
		if top := filepath.Dir(dir); filepath.Base(top) == parent {
			_ = os.Remove(top) // the last one does
		}
	}
}

func removeOne(t testing.TB, dir string) {
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Since(began) > 5*time.Second {
			t.Error(err)
			return
		}
	}
}
