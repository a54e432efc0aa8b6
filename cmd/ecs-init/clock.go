package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

// boottime is CLOCK_BOOTTIME: it also counts the time a machine was suspended.
func boottime() time.Duration { return clock(unix.CLOCK_BOOTTIME) }

func clock(id int32) time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(id, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano())
}

// alarm is a timer on CLOCK_BOOTTIME.
type alarm struct {
	fd int
	at time.Duration
}

func newAlarm() (alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return alarm{}, fmt.Errorf("make a timer: %w", err)
	}
	return alarm{fd: fd}, nil
}

// set makes it fire at a moment, also when that is past.
func (a *alarm) set(at time.Duration) error {
	if at = max(at, 1); at == a.at {
		return nil
	}
	a.at = at
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	if err := unix.TimerfdSettime(a.fd, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		return fmt.Errorf("set a timer: %w", err)
	}
	return nil
}

// fired forgets that it did.
func (a *alarm) fired() {
	var times [8]byte
	_, _ = unix.Read(a.fd, times[:])
	a.at = 0
}

// lease is how long the program may live.
type lease struct {
	given bool // the agent gave one
	end   time.Duration
}

func firstLease() lease { return lease{end: boottime() + initwire.NoLease} }

// move takes the agent's word; a lease never gets shorter.
func (l *lease) move(end time.Duration) {
	if !l.given || end > l.end {
		l.given, l.end = true, end
	}
}
