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

// LongestInfrastructurePause bounds InfrastructurePause, but for its drawn part.
const LongestInfrastructurePause = 30 * time.Second

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
	return pause(s.RetryBackoff, max(longestPause, s.RetryBackoff), id, failures)
}

// InfrastructurePause is how long a task waits after so many of its attempts were
// lost to the service's machines. After the first it does not: its node is avoided
// and another will do. Then it is as Pause, but bounded by LongestInfrastructurePause:
// an engine that fails again and again is not to use up all tries within seconds.
func (s *Spec) InfrastructurePause(id ID, lost int) time.Duration {
	if lost < 2 {
		return 0
	}
	first := s.RetryBackoff
	if first == 0 {
		first = DefaultBackoff
	}
	return pause(first, LongestInfrastructurePause, id, lost-1)
}

func pause(first, most time.Duration, id ID, failures int) time.Duration {
	p := first
	for range failures - 1 {
		if p >= most {
			break
		}
		p *= 2
	}
	p = min(p, most)
	h := fnv.New64a()
	_, _ = h.Write(binary.AppendUvarint([]byte(id), uint64(max(0, failures)))) // it never fails
	return p + time.Duration(h.Sum64()%uint64(p/2+1))
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
