package cgroup_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"ecs/internal/cgroup"
	"ecs/internal/cgroup/cgrouptest"
)

// bomb forks until the limit of processes stops it, and goes on trying.
const bomb = `f() { f & f & while :; do sleep 1 & wait; done; }; f 2>/dev/null`

// killSoon kills and wants that to take no longer than a loaded machine may.
func killSoon(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	began := time.Now()
	if err := cgroup.Kill(ctx, dir); err != nil {
		t.Fatal(err)
	}
	if !cgroup.Empty(dir) {
		t.Error("got processes after the kill, want none")
	}
	t.Logf("killed in %s", time.Since(began))
}

func kinds(t *testing.T, test func(t *testing.T, g *cgrouptest.Group)) {
	t.Run("engine's", func(t *testing.T) { test(t, cgrouptest.Make(t)) })
	t.Run("v2", func(t *testing.T) { test(t, cgrouptest.MakeUnified(t)) })
}

func TestProcessesOfACgroupAreFoundAndKilled(t *testing.T) {
	kinds(t, func(t *testing.T, g *cgrouptest.Group) {
		cmd := g.Run(t, "trap '' TERM INT HUP; sleep 60 & sleep 60 & wait; sleep 60")
		g.Await(t, 3)
		if dir, err := cgroup.Of(cmd.Process.Pid); err != nil || filepath.Base(dir) != filepath.Base(g.Dir) && filepath.Base(filepath.Dir(g.Dir)) != "ecs-test" {
			t.Errorf("got %s, %v, want %s", dir, err, g.Dir)
		}
		if pids, err := cgroup.Pids(g.Dir); err != nil || !slices.Contains(pids, cmd.Process.Pid) || cgroup.Empty(g.Dir) {
			t.Errorf("got %v, %v, want %d among them", pids, err, cmd.Process.Pid)
		}
		killSoon(t, g.Dir)
	})
}

func TestForkBombDoesNotOutrunTheKill(t *testing.T) {
	kinds(t, func(t *testing.T, g *cgrouptest.Group) {
		g.Run(t, bomb)
		g.Await(t, 50)
		killSoon(t, g.Dir)
	})
}

func TestForkBombWithLittleProcessorTimeDiesAtOnce(t *testing.T) {
	g := cgrouptest.Make(t)
	if err := g.Set("cpu.cfs_quota_us", "5000"); err != nil {
		t.Skip("this machine has no quota of v1:", err)
	}
	g.Run(t, bomb)
	g.Await(t, 20)
	killSoon(t, g.Dir)
}

func TestStoppedAndFrozenProcessesDie(t *testing.T) {
	kinds(t, func(t *testing.T, g *cgrouptest.Group) {
		g.Run(t, "sleep 60 & kill -STOP $! $$")
		g.Await(t, 2)
		killSoon(t, g.Dir)
	})
	kinds(t, func(t *testing.T, g *cgrouptest.Group) {
		g.Run(t, "sleep 60 & wait")
		g.Await(t, 2)
		if g.Set("freezer.state", "FROZEN") != nil {
			if err := g.Set("cgroup.freeze", "1"); err != nil {
				t.Fatal(err)
			}
		}
		killSoon(t, g.Dir)
	})
}

func TestProcessesBelowDieToo(t *testing.T) {
	kinds(t, func(t *testing.T, g *cgrouptest.Group) {
		g.Run(t, "sleep 60 & for d; do mkdir -p $d/below/deep; echo $! >$d/below/deep/cgroup.procs; done; wait")
		g.Await(t, 2)
		g.Until(t, 5*time.Second, "one below", func([]int) bool {
			below, _ := cgroup.Pids(filepath.Join(g.Dir, "below"))
			return len(below) == 1
		})
		killSoon(t, g.Dir)
	})
}

func TestKillEndsWithItsContext(t *testing.T) {
	// Of a process nobody can kill there is none to be had: this one is in a
	// directory that only looks like a cgroup.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("2147483646\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := cgroup.Kill(ctx, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestKernelOfV2IsAskedToKill(t *testing.T) {
	// A kernel without cgroup.kill gets the cgroup frozen and its pids signalled.
	for file, want := range map[string]string{"cgroup.kill": "1", "cgroup.freeze": "1"} {
		dir := t.TempDir()
		for name, text := range map[string]string{"cgroup.procs": "2147483646\n", "cgroup.controllers": "", "cpu.max": "", file: ""} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_ = cgroup.Kill(ctx, dir) // nobody empties the file
		for name, want := range map[string]string{file: want, "cpu.max": "max"} {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
				t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
			}
		}
	}
}

func TestWhatIsGoneIsEmpty(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	if pids, err := cgroup.Pids(dir); err != nil || len(pids) != 0 {
		t.Errorf("got %v, %v, want none", pids, err)
	}
	if err := cgroup.Kill(context.Background(), dir); err != nil || !cgroup.Empty(dir) || cgroup.Exists(dir) {
		t.Errorf("got %v, want it to be done", err)
	}
	if err := cgroup.Kill(context.Background(), ""); !errors.Is(err, cgroup.ErrUnknown) {
		t.Errorf("got %v, want %v", err, cgroup.ErrUnknown)
	}
	if _, err := cgroup.Of(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
	if dir := cgroup.OfContainer("no such container"); dir != "" {
		t.Errorf("got %s, want none", dir)
	}
}

func TestKillsForMemoryAreCounted(t *testing.T) {
	if n, err := cgroup.MachineOOMKills(); err != nil || n < 0 {
		t.Errorf("got %d, %v, want a number", n, err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"cgroup.controllers": "", "memory.events": "low 1\noom 3\noom_kill 2\noom_group_kill 0\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := cgroup.OOMKills(dir); err != nil || n != 2 {
		t.Errorf("got %d, %v, want 2", n, err)
	}
	if _, err := cgroup.OOMKills(t.TempDir()); !errors.Is(err, cgroup.ErrUnknown) {
		t.Errorf("got %v, want %v", err, cgroup.ErrUnknown)
	}
}
