package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Between two looks at a cgroup that is being emptied, at first and at most.
	killPause = 5 * time.Millisecond
	mostPause = 80 * time.Millisecond
	// freezeWithin is how long the freezer may take before what it has not
	// frozen is killed all the same: a process may be stuck in the kernel.
	freezeWithin = 50 * time.Millisecond
	freezeLook   = time.Millisecond
)

// Kill ends every process of a cgroup and of those below it, again until none
// is left; nil means that. Processes that multiply, are stopped, frozen or short
// of processor time don't escape it. The cgroup is of no more use after it: its
// limit of processor time is gone.
//
// The error is ctx's when processes are left at its end.
func Kill(ctx context.Context, dir string) error {
	if dir == "" {
		return ErrUnknown
	}
	kill := killFrozen
	if unified(dir) {
		kill = killUnified
	}
	for pause := killPause; ; pause = min(2*pause, mostPause) {
		pids, err := Pids(dir)
		if err != nil {
			return fmt.Errorf("kill cgroup %s: %w", dir, err)
		}
		if len(pids) == 0 {
			return nil
		}
		if pause == killPause {
			liftLimit(dir)
		}
		if err := kill(ctx, dir); err != nil {
			return fmt.Errorf("kill cgroup %s: %w", dir, err)
		}
		if !sleep(ctx, pause) {
			return fmt.Errorf("kill cgroup %s: %w", dir, ctx.Err())
		}
	}
}

// killUnified has the kernel do it, at once and for all below; kernels before
// 5.14 can't.
func killUnified(_ context.Context, dir string) error {
	if write(dir, "cgroup.kill", "1") == nil {
		return nil
	}
	// Frozen processes of v2 die where they are, so they stay frozen.
	_ = write(dir, "cgroup.freeze", "1")
	return signalAll(dir)
}

// killFrozen kills while nothing can fork. A signal to a frozen process of v1
// takes effect when it is thawed.
func killFrozen(ctx context.Context, dir string) error {
	freezer := sibling(dir, "freezer")
	if freezer == "" {
		return signalAll(dir)
	}
	freeze(ctx, freezer)
	return errors.Join(signalAll(dir), thaw(freezer))
}

// freeze asks for it and waits a little for it to be done.
func freeze(ctx context.Context, freezer string) {
	if write(freezer, "freezer.state", "FROZEN") != nil {
		return // it is killed running
	}
	for end := time.Now().Add(freezeWithin); time.Now().Before(end); {
		state, err := os.ReadFile(filepath.Join(freezer, "freezer.state"))
		if err != nil || strings.TrimSpace(string(state)) == "FROZEN" || !sleep(ctx, freezeLook) {
			return
		}
	}
}

// thaw undoes freeze, also what somebody froze below.
func thaw(freezer string) error {
	if err := write(freezer, "freezer.state", "THAWED"); err != nil && !isGone(err) {
		return err
	}
	below, err := children(freezer)
	for _, child := range below {
		err = errors.Join(err, thaw(child))
	}
	return err
}

func signalAll(dir string) error {
	pids, err := Pids(dir)
	for _, pid := range pids {
		if kill := unix.Kill(pid, unix.SIGKILL); kill != nil && !errors.Is(kill, unix.ESRCH) {
			err = errors.Join(err, fmt.Errorf("kill pid %d: %w", pid, kill))
		}
	}
	return err
}

// liftLimit lets the processes use as much of the processor as they need to
// end: a fork bomb under a small quota takes seconds to die. It is not needed
// for anything else, so its failure is nobody's.
func liftLimit(dir string) {
	if unified(dir) {
		_ = write(dir, "cpu.max", "max")
	} else if cpu := sibling(dir, "cpu"); cpu != "" {
		_ = write(cpu, "cpu.cfs_quota_us", "-1")
	}
}

// write sets a file of a cgroup; it never makes one.
func write(dir, name, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// sleep pauses; false means that ctx ended it.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
