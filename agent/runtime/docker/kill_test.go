package docker_test

import (
	"context"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	"ecs/internal/cgroup"
)

func TestKillDoesNotNeedTheEngine(t *testing.T) {
	c := engine(t)
	g := newGate(t, c)
	o := sleeper(t, c)
	r := g.runtime(t, newCluster(t, c))
	made := started(t, r, o)
	programs := programsOf(t, inspect(t, c, o.Token).State.Pid)
	g.spoil(func(_ http.Handler, w http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done() // the engine hangs
		return true
	})
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := made.Kill(ctx); err != nil {
		t.Errorf("kill: %v", err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("kill took %s", took)
	}
	for _, pid := range programs {
		gone(t, pid)
	}
	g.fault.Store(nil)
	if err := made.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// programsOf are the processes of an init's container, but for itself.
func programsOf(t *testing.T, initPID int) []int {
	t.Helper()
	dir, err := cgroup.Of(initPID)
	if err != nil {
		t.Fatal(err)
	}
	pids, err := cgroup.Pids(dir)
	if err != nil || len(pids) < 2 {
		t.Fatalf("processes of the container: got %v, %v; want init and its program", pids, err)
	}
	return slices.DeleteFunc(pids, func(pid int) bool { return pid == initPID })
}

// An init that is stopped answers nobody; it is gone past.
func TestKillDoesNotNeedInit(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	o := sleeper(t, c)
	made := started(t, r, o)
	pid := inspect(t, c, o.Token).State.Pid
	programs := programsOf(t, pid)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := made.Kill(t.Context()); err != nil {
		t.Errorf("kill: %v", err)
	}
	for _, pid := range append(programs, pid) {
		gone(t, pid)
	}
	if exit, err := made.Wait(t.Context()); err != nil || exit.Code != 137 || exit.Interrupted != "" {
		t.Errorf("got %+v, %v; want code 137: we killed it", exit, err)
	}
	if err := made.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// Whatever becomes of init, the fence has ended all when the lease is over.
func TestStoppedInitDoesNotOutliveItsLease(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	o := sleeper(t, c)
	end := boottime() + 4*time.Second
	o.Deadline = func() time.Duration { return end }
	made := started(t, r, o)
	pid := inspect(t, c, o.Token).State.Pid
	programs := programsOf(t, pid)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	exit, err := made.Wait(t.Context())
	if err != nil || !exit.Lapsed || exit.Interrupted != "" {
		t.Errorf("got %+v, %v; want lapsed", exit, err)
	}
	if early := end - boottime(); early < 0 {
		t.Errorf("known %s after the lease's end", -early)
	}
	for _, pid := range append(programs, pid) {
		gone(t, pid)
	}
	if err := made.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}
