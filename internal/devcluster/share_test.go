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

// onUsualThread keeps the test on a thread with the usual timer slack, whatever the
// tests are run under, and gives the slack as it is and a way to set it.
func onUsualThread(t *testing.T) (slack func() time.Duration, set func(time.Duration)) {
	t.Helper()
	runtime.LockOSThread() // for good: no other test gets the thread
	slack = func() time.Duration {
		t.Helper()
		now, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(now)
	}
	set = func(slack time.Duration) {
		t.Helper()
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	set(usualSlack)
	return slack, set
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
	onUsualThread(t)
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
	own, set := onUsualThread(t)
	started(t, 1)
	if got := own(); got != usualSlack {
		t.Errorf("the starting thread is left with %v", got)
	}
	set(70 * time.Microsecond)
	if slack, _ := started(t, 1); slack != "70000" {
		t.Errorf("got %s ns where 70000 were set before", slack)
	}
}
