package devcluster

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxProcs bounds how many threads of a Go program run at once.
	maxProcs = "GOMAXPROCS"
	// usualSlack is how late Linux lets a thread's sleep end, unless it is told.
	usualSlack = 50 * time.Microsecond
	// sharedSlack is that for programs that share a machine's cores. In every busy Go
	// program one thread looks after the others each 20 µs (runtime.sysmon): with
	// six programs on two cores those wakes were a fifth of all processor time. No
	// deadline of ECS minds a millisecond; the check of a secret that is not known yet,
	// which rests in short sleeps while others wait, takes a quarter longer.
	sharedSlack = time.Millisecond
)

// StartAmong starts a program of a machine that so many busy ones share. Each takes
// itself for the only one else: with as many threads as cores in all of them, what they
// hand each other mostly wakes threads that then wait for a core. What the environment
// says of GOMAXPROCS, and a timer slack (prctl(2), PR_SET_TIMERSLACK) that somebody has
// set, are left as they are.
func StartAmong(programs int, cmd *exec.Cmd) error {
	if share := shareOfCores(programs); share != "" {
		cmd.Env = append(cmd.Environ(), share)
	}
	return withSlack(sharedSlack, cmd.Start)
}

// shareOfCores is the setting of the environment, or "" where it has one.
func shareOfCores(programs int) string {
	if os.Getenv(maxProcs) != "" {
		return ""
	}
	// Not the number of cores: that knows nothing of a quota.
	return fmt.Sprintf("%s=%d", maxProcs, coresEach(runtime.GOMAXPROCS(0), programs))
}

// coresEach gives each core out twice: programs are not busy all at once.
func coresEach(cores, programs int) int { return min(cores, max(1, 2*cores/max(1, programs))) }

// withSlack calls start on a thread whose timer slack is slack, if it was the usual one.
// A process has that of the thread that starts it. A kernel that refuses costs speed only.
func withSlack(slack time.Duration, start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if had, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || time.Duration(had) != usualSlack {
		return start()
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0); err != nil {
		return start()
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(usualSlack), 0, 0, 0) }()
	return start()
}
