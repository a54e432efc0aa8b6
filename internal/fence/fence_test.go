package fence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ecs/internal/cgroup"
	"ecs/internal/cgroup/cgrouptest"
)

func TestDeadlineKillsOnASaturatedMachine(t *testing.T) {
	for name, script := range map[string]string{
		"program that computes": strings.Repeat("while :; do :; done & ", 4*runtime.NumCPU()) + "wait",
		"fork bomb":             `f() { f & f & while :; do :; done; }; f 2>/dev/null`,
		"stopped program":       "sleep 60 & sleep 60 & kill -STOP $! $$",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			process(t, dir)
			c, _ := connect(t, dir)
			g := cgrouptest.Make(t)
			e := mustAdd(t, c, "x", g, 3*time.Second)
			saturate(t, 2*runtime.NumCPU())
			g.Run(t, script)
			g.Await(t, 2)
			wantKilled(t, g, e)
		})
	}
}

func TestCrashedFenceKeepsDeadlines(t *testing.T) {
	dir := t.TempDir()
	first := process(t, dir)
	c, leave := connect(t, dir)
	passed, coming, renewed := cgrouptest.Make(t), cgrouptest.Make(t), cgrouptest.Make(t)
	for _, g := range []*cgrouptest.Group{passed, coming, renewed} {
		g.Run(t, "sleep 60 & wait")
		g.Await(t, 2)
	}
	p := mustAdd(t, c, "passed", passed, 300*time.Millisecond)
	f := mustAdd(t, c, "coming", coming, 3500*time.Millisecond)
	r := mustAdd(t, c, "renewed", renewed, time.Minute)
	r.Deadline = f.Deadline + 500*time.Millisecond
	c.Renew("renewed", r.Deadline)
	crash(first)
	first = process(t, dir) // the client tells it
	awaitOnDisk(t, dir, r)
	// Nobody is left to tell anything.
	leave()
	crash(first)
	process(t, dir)
	wantKilled(t, passed, p)
	wantKilled(t, coming, f)
	wantKilled(t, renewed, r)
}

func TestRenewalIsOnDiskWithinASecond(t *testing.T) {
	dir := t.TempDir()
	here(t, dir)
	c, _ := connect(t, dir)
	e := mustAdd(t, c, "x", cgrouptest.Make(t), time.Minute)
	for range 5 {
		e.Deadline += time.Second
		c.Renew(e.ID, e.Deadline)
	}
	awaitOnDisk(t, dir, e)
}

func TestLivingAgentKeepsWhatAStartingFenceWouldEnd(t *testing.T) {
	dir := t.TempDir()
	first := process(t, dir)
	c, _ := connect(t, dir)
	g := cgrouptest.Make(t)
	g.Run(t, "sleep 60")
	g.Await(t, 1)
	e := mustAdd(t, c, "x", g, 500*time.Millisecond)
	crash(first)
	await(t, "the deadline", func() bool { return boottime() > e.Deadline })
	e.Deadline = boottime() + 4*time.Second
	c.Renew(e.ID, e.Deadline)
	process(t, dir)
	wantAlive(t, g, e.Deadline-time.Second)
	wantKilled(t, g, e)
}

func TestClientTellsANewFenceEverything(t *testing.T) {
	dir := t.TempDir()
	first := process(t, dir)
	c, _ := connect(t, dir)
	e := mustAdd(t, c, "x", cgrouptest.Make(t), time.Minute)
	crash(first)
	if err := os.RemoveAll(filepath.Join(dir, "state")); err != nil {
		t.Fatal(err)
	}
	await(t, "the fence to be missed", func() bool { return c.Healthy() != nil })
	process(t, dir)
	await(t, "the entry to be there again", func() bool {
		held, err := c.List(soon(t))
		return err == nil && slices.Contains(held, e)
	})
	if err := c.Healthy(); err != nil {
		t.Errorf("got %v, want health", err)
	}
}

func TestRenewedEntryThatTheFenceLostIsAddedAgain(t *testing.T) {
	dir := t.TempDir()
	here(t, dir)
	c, _ := connect(t, dir)
	e := mustAdd(t, c, "x", cgrouptest.Make(t), time.Minute)
	other, _ := connect(t, dir)
	if err := other.Remove(soon(t), "x"); err != nil {
		t.Fatal(err)
	}
	e.Deadline += time.Second
	c.Renew("x", e.Deadline)
	await(t, "the entry to be there again", func() bool {
		held, err := other.List(soon(t))
		return err == nil && slices.Contains(held, e)
	})
}

func TestRenewMovesAndRemovePrevents(t *testing.T) {
	dir := t.TempDir()
	here(t, dir)
	c, _ := connect(t, dir)
	moved, removed := cgrouptest.Make(t), cgrouptest.Make(t)
	moved.Run(t, "sleep 60")
	removed.Run(t, "sleep 60")
	moved.Await(t, 1)
	removed.Await(t, 1)
	e, gone := mustAdd(t, c, "moved", moved, time.Second), mustAdd(t, c, "removed", removed, time.Second)
	for range 2 {
		if err := c.Remove(soon(t), gone.ID); err != nil {
			t.Fatal(err)
		}
	}
	first := e.Deadline
	e.Deadline += 1500 * time.Millisecond
	c.Renew(e.ID, e.Deadline)
	wantAlive(t, moved, first+time.Second)
	wantKilled(t, moved, e)
	wantAlive(t, removed, 0)
	if err := c.Add(soon(t), Entry{ID: e.ID, Cgroup: e.Cgroup, Deadline: boottime() + time.Minute}); !errors.Is(err, ErrEnded) {
		t.Errorf("add what has ended: got %v, want %v", err, ErrEnded)
	}
}

func TestKillIsNowAndForGood(t *testing.T) {
	dir := t.TempDir()
	stop := here(t, dir)
	c, _ := connect(t, dir)
	g := cgrouptest.Make(t)
	g.Run(t, "sleep 60")
	g.Await(t, 1)
	mustAdd(t, c, "x", g, time.Minute)
	if err := c.Kill(soon(t), "x"); err != nil || !cgroup.Empty(g.Dir) {
		t.Errorf("got %v, want nobody alive", err)
	}
	// What comes into the cgroup later is ended as well, also by the next fence.
	for range 2 {
		g.Run(t, "sleep 60")
		g.Until(t, 5*time.Second, "none", func(pids []int) bool { return len(pids) == 0 })
		stop()
		stop = here(t, dir)
	}
	g.Gone(t)
	await(t, "the entry to be dropped", func() bool {
		held, err := c.List(soon(t))
		return err == nil && len(held) == 0
	})
	if err := c.Kill(soon(t), "y"); err == nil || !strings.Contains(err.Error(), "does not hold y") {
		t.Errorf("got %v, want it not to be known", err)
	}
}

func TestDangerousCgroupsAreRefused(t *testing.T) {
	dir := t.TempDir()
	here(t, dir)
	c, _ := connect(t, dir)
	own := cgrouptest.Make(t)
	for _, path := range []string{"", "/", "/tmp/x", cgroup.Root, cgroup.Root + "/pids", cgroup.Root + "/pids/", cgroup.Root + "/pids/..", cgroup.Root + "/pids/x/../..", "pids/x"} {
		if err := c.Add(soon(t), Entry{ID: "x", Cgroup: path, Deadline: boottime() + time.Minute}); err == nil {
			t.Errorf("%q: got no error, want a refusal", path)
		}
	}
	for name, bad := range map[string]Entry{
		"is gone":  {ID: "x", Cgroup: own.Dir + "-gone", Deadline: boottime() + time.Minute},
		"an id of": {ID: "", Cgroup: own.Dir, Deadline: boottime() + time.Minute},
		"deadline": {ID: "x", Cgroup: own.Dir},
	} {
		if err := c.Add(soon(t), bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
	s := NewServer(config(dir))
	s.pid = own.Run(t, "sleep 60").Process.Pid
	own.Await(t, 1)
	if err := s.mayKill(own.Dir, 0); err == nil || !strings.Contains(err.Error(), "holds the machine's first process, the fence or its client") {
		t.Errorf("got %v, want the fence's own cgroup refused", err)
	}
}

func TestGarbageOnTheSocketHarmsNobody(t *testing.T) {
	dir := t.TempDir()
	here(t, dir)
	c, _ := connect(t, dir)
	g := cgrouptest.Make(t)
	g.Run(t, "sleep 60")
	g.Await(t, 1)
	e := mustAdd(t, c, "x", g, 1500*time.Millisecond)
	for _, garbage := range []string{"\n", "{", "\x00\xff\xfe\n", `{"op":"format"}` + "\n", `{"op":"add","id":7}` + "\n", strings.Repeat("a", 2*maxLine),
		`{"op":"renew","renewals":[{"id":"x","deadline":-1}]}` + "\n"} {
		conn, err := net.Dial("unix", filepath.Join(dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, garbage) // it may hang up meanwhile
		_ = conn.(*net.UnixConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}
	wantKilled(t, g, e)
	if err := c.Healthy(); err != nil {
		t.Errorf("got %v, want health", err)
	}
}

func TestOnlyRootIsServed(t *testing.T) {
	cgrouptest.Make(t) // skips without root
	dir, err := os.MkdirTemp("", "fence")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	here(t, dir)
	c, _ := connect(t, dir)
	await(t, "health", func() bool { return c.Healthy() == nil })
	socket := filepath.Join(dir, "s")
	if got := asNobody(t, socket); !strings.Contains(got, "permission denied") {
		t.Errorf("got %s, want the socket to be closed to others", got)
	}
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := asNobody(t, socket); !strings.Contains(got, "only root may use the fence, not user 65534") {
		t.Errorf("got %s, want a refusal", got)
	}
}

func TestEntriesAreBounded(t *testing.T) {
	dir := t.TempDir()
	here(t, dir)
	c, _ := connect(t, dir)
	g, short := cgrouptest.Make(t), cgrouptest.Make(t)
	mustAdd(t, c, "short", short, time.Hour)
	for i := range maxEntries - 1 {
		mustAdd(t, c, fmt.Sprint(i), g, time.Hour)
	}
	one := Entry{ID: "one too many", Cgroup: g.Dir, Deadline: boottime() + time.Hour}
	if err := c.Add(soon(t), one); err == nil || !strings.Contains(err.Error(), "can't hold more") {
		t.Errorf("got %v, want a refusal", err)
	}
	short.Gone(t)
	if err := c.Add(soon(t), one); err != nil {
		t.Errorf("got %v, want the place of the entry whose cgroup is gone", err)
	}
	if held, err := c.List(soon(t)); err != nil || len(held) != maxEntries {
		t.Errorf("got %d entries, %v, want %d", len(held), err, maxEntries)
	}
}

func TestSilentFenceIsToldAndSoIsItsReturn(t *testing.T) {
	dir := t.TempDir()
	cmd := process(t, dir)
	c, _ := connect(t, dir)
	await(t, "health", func() bool { return c.Healthy() == nil })
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	await(t, "the silence to be told", func() bool {
		err := c.Healthy()
		return err != nil && strings.Contains(err.Error(), "has not answered")
	})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := c.Remove(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the caller's own end", err)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await(t, "health", func() bool { return c.Healthy() == nil })
}

func TestOneFenceADirectoryAndLongPaths(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	here(t, dir)
	c, _ := connect(t, dir)
	await(t, "health over a path too long for a socket", func() bool { return c.Healthy() == nil })
	if err := NewServer(config(dir)).Run(context.Background()); err == nil || !strings.Contains(err.Error(), "another fence") {
		t.Errorf("got %v, want the directory to be taken", err)
	}
}

func TestNothingRunsOnAfterTheEnd(t *testing.T) {
	before := runtime.NumGoroutine()
	dir := t.TempDir()
	stop := here(t, dir)
	c, leave := connect(t, dir)
	g := cgrouptest.Make(t)
	mustAdd(t, c, "ended", g, 50*time.Millisecond)
	mustAdd(t, c, "held", g, time.Minute)
	await(t, "the end of one", func() bool { return c.Kill(soon(t), "ended") == nil })
	stop()
	leave()
	await(t, "the goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
	if _, err := os.Stat(filepath.Join(dir, "s")); err == nil {
		t.Error("the socket is left")
	}
	if err := c.Remove(soon(t), "held"); !errors.Is(err, errLeft) {
		t.Errorf("got %v, want %v", err, errLeft)
	}
}

func TestNoFenceIsNoObstacle(t *testing.T) {
	var c *Client
	c.Renew("x", time.Second)
	held, err := c.List(soon(t))
	if err := errors.Join(err, c.Run(soon(t)), c.Add(soon(t), Entry{}), c.Remove(soon(t), "x"), c.Healthy()); err != nil || held != nil {
		t.Errorf("got %v, %v, want nothing at all", held, err)
	}
	if err := c.Kill(soon(t), "x"); !errors.Is(err, ErrNone) {
		t.Errorf("got %v, want %v", err, ErrNone)
	}
}

// An agent without a fence lives as long as one with it: what serves it must not
// end by itself.
func TestNoFenceIsKeptUntilTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var none *Client
	ended := make(chan error, 1)
	go func() { ended <- none.Run(ctx) }()
	select {
	case err := <-ended:
		t.Fatalf("it ended at once: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("got %v", err)
	}
}
