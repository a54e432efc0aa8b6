package main

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

// capSets are a thread's capabilities, one bit each.
type capSets struct{ effective, permitted, inheritable uint64 }

func capget() (capSets, error) {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&head, &d[0]); err != nil {
		return capSets{}, fmt.Errorf("read capabilities: %w", err)
	}
	join := func(low, high uint32) uint64 { return uint64(high)<<32 | uint64(low) }
	return capSets{join(d[0].Effective, d[1].Effective), join(d[0].Permitted, d[1].Permitted),
		join(d[0].Inheritable, d[1].Inheritable)}, nil
}

func (c capSets) raw() (unix.CapUserHeader, [2]unix.CapUserData) {
	return unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{
		{Effective: uint32(c.effective), Permitted: uint32(c.permitted), Inheritable: uint32(c.inheritable)},
		{Effective: uint32(c.effective >> 32), Permitted: uint32(c.permitted >> 32), Inheritable: uint32(c.inheritable >> 32)},
	}
}

// set gives this thread its capabilities.
func (c capSets) set() error {
	head, data := c.raw()
	return unix.Capset(&head, &data[0])
}

// setEverywhere gives them to every thread of the process.
func (c capSets) setEverywhere() error {
	head, data := c.raw()
	return onAllThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&data[0])), 0)
}

// onAllThreads makes a system call on every thread: what a process may do is
// each thread's own affair in Linux.
//
//go:uintptrescapes
func onAllThreads(trap, a1, a2, a3 uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall(trap, a1, a2, a3); errno != 0 {
		return errno
	}
	return nil
}

// hide moves PID 1 to the user that no task may have. It keeps what the
// container has of capabilities, for the second stage, and answers what it is.
func hide() (uint64, error) {
	caps, err := capget()
	if err != nil {
		return 0, err
	}
	own, err := initwire.CapSet(initwire.OwnCaps)
	if err != nil {
		return 0, err
	}
	if missing := own &^ caps.permitted; missing != 0 {
		return 0, fmt.Errorf("the container lacks capabilities %#x; it needs %v", missing, initwire.OwnCaps)
	}
	if err := onAllThreads(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0); err != nil {
		return 0, fmt.Errorf("keep capabilities: %w", err)
	}
	if err := syscall.Setgroups(nil); err != nil {
		return 0, fmt.Errorf("leave all groups: %w", err)
	}
	if err := syscall.Setresgid(initwire.ReservedID, initwire.ReservedID, initwire.ReservedID); err != nil {
		return 0, fmt.Errorf("take the reserved group: %w", err)
	}
	if err := syscall.Setresuid(initwire.ReservedID, initwire.ReservedID, initwire.ReservedID); err != nil {
		return 0, fmt.Errorf("take the reserved user: %w", err)
	}
	if err := (capSets{effective: caps.permitted, permitted: caps.permitted}).setEverywhere(); err != nil {
		return 0, fmt.Errorf("take up capabilities: %w", err)
	}
	// The change of ids has made this process not dumpable, and with that the files
	// of /proc/1 root's: a program that runs as root could write autogroup, which
	// slows PID 1, and oom_score_adj. Dumpable again they are the reserved user's.
	// Tracing takes that user too, which nobody else is, or CAP_SYS_PTRACE.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("take over /proc/1: %w", err)
	}
	return caps.permitted, nil
}

// keepOnlyKill gives up everything that only the second stage needed.
func keepOnlyKill() error {
	const kill = 1 << unix.CAP_KILL
	if err := (capSets{effective: kill, permitted: kill}).setEverywhere(); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return nil
}
