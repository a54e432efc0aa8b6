package daemon

import (
	"time"

	"golang.org/x/sys/unix"
)

// Boottime is the monotonic clock that goes on while the machine sleeps; leases
// are counted by it.
func Boottime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		panic(err) // every Linux since 2.6.39 has it; a lease by another clock would be a lie
	}
	return time.Duration(now.Nano())
}
