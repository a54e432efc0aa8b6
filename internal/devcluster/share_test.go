package devcluster

import (
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCoresAreSharedOutAmongNodes(t *testing.T) {
	for _, tt := range []struct{ cores, programs, want int }{
		{1, 6, 1}, {2, 6, 1}, {2, 3, 1}, {2, 2, 2}, {8, 6, 2}, {16, 6, 5}, {4, 1, 4}, {4, 0, 4},
	} {
		if got := coresEach(tt.cores, tt.programs); got != tt.want {
			t.Errorf("%d cores for %d programs: got %d, want %d", tt.cores, tt.programs, got, tt.want)
		}
	}
}

// started is what a program that was started among so many says of itself.
func started(t *testing.T, programs int) (slack, maxprocs string) {
	t.Helper()
	var out strings.Builder
	cmd := exec.Command("sh", "-c", `cat /proc/self/timerslack_ns; echo "$GOMAXPROCS"`)
	cmd.Stdout = &out
	if err := StartAmong(programs, cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitN(out.String(), "\n", 3)
	return lines[0], lines[1]
}

func TestProgramsAreStartedForSharedCores(t *testing.T) {
	t.Setenv(maxProcs, "")
	if slack, procs := started(t, 1<<20); slack != "1000000" || procs != "1" {
		t.Errorf("got a slack of %s ns and GOMAXPROCS=%s", slack, procs)
	}
	t.Setenv(maxProcs, "3")
	if _, procs := started(t, 1<<20); procs != "3" {
		t.Errorf("got GOMAXPROCS=%s, the environment says 3", procs)
	}
}

func TestTimerSlackIsTheStartedProgramsOnly(t *testing.T) {
	runtime.LockOSThread() // the slack is a thread's
	defer runtime.UnlockOSThread()
	own := func() time.Duration {
		t.Helper()
		slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(slack)
	}
	started(t, 1)
	if got := own(); got != usualSlack {
		t.Errorf("the starting thread is left with %v", got)
	}
	set := func(slack time.Duration) {
		t.Helper()
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	set(70 * time.Microsecond)
	defer set(usualSlack)
	if slack, _ := started(t, 1); slack != "70000" {
		t.Errorf("got %s ns where 70000 were set before", slack)
	}
}
