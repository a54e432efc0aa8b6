package fence

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// boottime is the clock of deadlines.
func boottime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		panic(err) // every Linux since 2.6.39 has it; a deadline by another clock would be a lie
	}
	return time.Duration(now.Nano())
}

// alarm goes off at a time of CLOCK_BOOTTIME, which goes on while the machine
// sleeps and which nobody sets.
type alarm struct{ file *os.File }

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a timer on CLOCK_BOOTTIME: %w", err)
	}
	return &alarm{os.NewFile(uintptr(fd), "alarm")}, nil
}

// set has the alarm go off at t, and at no other time.
func (a *alarm) set(t time.Duration) error {
	raw, err := a.file.SyscallConn()
	if err != nil {
		return err
	}
	at := &unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(t), 1))} // 0 would be never
	if outer := raw.Control(func(fd uintptr) {
		err = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME, at, nil)
	}); outer != nil {
		return outer
	}
	return err
}

// wait returns once the alarm has gone off; the error is os.ErrClosed after
// close.
func (a *alarm) wait() error {
	var times [8]byte
	_, err := a.file.Read(times[:])
	return err
}

func (a *alarm) close() { a.file.Close() }
