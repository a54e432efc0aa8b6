package fence

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// fifoPriority is the least there is: it goes before everything that is not
	// real-time, which is all that tasks are.
	fifoPriority = 1
	niceness     = -20
	oomScore     = "-999"
	// passes bounds how often new threads are looked for.
	passes = 100
)

// Prioritise makes this process one that a saturated machine does not delay: it
// goes before all ordinary processes, is not swapped out, and is the last to be
// killed for memory. The error says what of this was not permitted; the rest
// holds.
func Prioritise() error {
	faults := []error{raiseThreads()}
	// What is touched stays: locking all of the address space that Go reserves
	// would make it real.
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		faults = append(faults, fmt.Errorf("lock memory: %w", err))
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(oomScore), 0); err != nil {
		faults = append(faults, fmt.Errorf("be spared by the killer for memory: %w", err))
	}
	return errors.Join(faults...)
}

// raiseThreads gives every thread of the process real-time priority, or the best
// of the ordinary ones. A new thread takes it from the one that makes it, so it
// is done once a pass over them finds none without it.
func raiseThreads() error {
	for range passes {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list threads: %w", err)
		}
		raised := 0
		for _, t := range threads {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			did, err := raise(tid)
			if err != nil {
				return fmt.Errorf("raise the priority: %w", err)
			}
			if did {
				raised++
			}
		}
		if raised == 0 {
			return nil
		}
	}
	return errors.New("raise the priority: threads keep coming")
}

// raise reports whether there was something to do. A thread may end meanwhile.
func raise(tid int) (bool, error) {
	now, err := unix.SchedGetAttr(tid, 0)
	if errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil || now.Policy == unix.SCHED_FIFO || now.Nice == niceness {
		return false, err
	}
	err = unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: fifoPriority}, 0)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
		// A cgroup without real-time budget, say.
		err = unix.Setpriority(unix.PRIO_PROCESS, tid, niceness)
	}
	if errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	return true, err
}
