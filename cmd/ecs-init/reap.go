package main

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reaper waits for every process of the container, and ends all when the
// program has ended.
type reaper struct {
	pid  int // the second stage, later the program
	gone atomic.Bool
	// passed: somebody outside has sent a signal.
	passed atomic.Bool
	wake   int // an eventfd, for the loop, when nobody is left

	// Written before wake is.
	status unix.WaitStatus
	ended  time.Duration
}

func newReaper(pid int) (*reaper, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make an event: %w", err)
	}
	return &reaper{pid: pid, wake: wake}, nil
}

// run ends when no process but this one is left.
func (r *reaper) run() {
	r.awaitProgram()
	for {
		endAll()
		// The orphans of the dead are PID 1's children before their parents can
		// be waited for, so no child left means nobody left.
		if _, err := unix.Wait4(-1, nil, unix.WALL, nil); err == unix.ECHILD {
			break
		}
		reapReady()
	}
	one := binary.NativeEndian.AppendUint64(nil, 1)
	_, _ = unix.Write(r.wake, one)
}

func (r *reaper) awaitProgram() {
	for {
		pid, err := unix.Wait4(-1, &r.status, unix.WALL, nil)
		// A program that asked to be traced stops for PID 1; that is no end.
		ended := r.status.Exited() || r.status.Signaled()
		if pid == r.pid && ended || err == unix.ECHILD {
			r.ended = boottime()
			r.gone.Store(true)
			return
		}
	}
}

func reapReady() {
	for {
		if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); pid <= 0 && err != unix.EINTR {
			return
		}
	}
}

// endAll kills every process of the container but this one. The kernel does it
// in one step that no fork gets around.
func endAll() { _ = unix.Kill(-1, unix.SIGKILL) }

// signal reaches the program alone.
func (r *reaper) signal(s syscall.Signal) {
	if !r.gone.Load() {
		_ = unix.Kill(r.pid, s)
	}
}

// pass passes on what somebody outside sends the program.
func (r *reaper) pass(s syscall.Signal) {
	r.passed.Store(true)
	r.signal(s)
}
