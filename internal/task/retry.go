package task

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
	"time"
)

// Exit codes that ask for what has none of its own, when they are among
// RetryExitCodes: shells and `ecsctl run` give them for the same.
const (
	ExitTimedOut  = 124
	ExitOOMKilled = 137
)

// longestPause is where pauses stop growing, unless the first is longer still.
const longestPause = 5 * time.Minute

// ProgramFailed reports whether an attempt that ended so counts against the
// program's retry budget: its program exited with a code other than 0, or with
// one of RetryExitCodes where there are any. One that ran out of memory or time
// would do so again, so it counts only if ExitOOMKilled or ExitTimedOut is
// asked for. Whatever kept a program from starting does not count.
func (s *Spec) ProgramFailed(r *Result) bool {
	switch r.Outcome {
	case Exited:
		if len(s.RetryExitCodes) == 0 {
			return r.HasExit && r.ExitCode != 0
		}
		return r.HasExit && slices.Contains(s.RetryExitCodes, r.ExitCode)
	case OOMKilled:
		return slices.Contains(s.RetryExitCodes, ExitOOMKilled)
	case TimedOut:
		return slices.Contains(s.RetryExitCodes, ExitTimedOut)
	}
	return false
}

// Pause is how long a task waits before its program is run again, after it has
// failed so often: RetryBackoff, twice as long each time up to five minutes (or
// RetryBackoff, if that is more), and up to half of that on top. That part is
// drawn from the task's id, so that tasks that failed together don't come back
// together, and every replica finds the same.
func (s *Spec) Pause(id ID, failures int) time.Duration {
	most := max(longestPause, s.RetryBackoff)
	pause := s.RetryBackoff
	for range failures - 1 {
		if pause >= most {
			break
		}
		pause *= 2
	}
	pause = min(pause, most)
	h := fnv.New64a()
	_, _ = h.Write(binary.AppendUvarint([]byte(id), uint64(max(0, failures)))) // it never fails
	return pause + time.Duration(h.Sum64()%uint64(pause/2+1))
}

// Failures counts the attempts that have ended without being the task's last:
// those lost to infrastructure and those whose program failed.
func (t *Task) Failures() (infrastructure, program int) {
	for i := range t.Attempts {
		switch o := t.Attempts[i].Outcome; {
		case o == "":
		case o.Infrastructure():
			infrastructure++
		default:
			program++
		}
	}
	return infrastructure, program
}

// RetryAt is when a task that is backing off may be placed again.
func (t *Task) RetryAt() time.Time {
	if !t.BackingOff || len(t.Attempts) == 0 {
		return time.Time{}
	}
	return t.Attempts[len(t.Attempts)-1].RetryAt
}
