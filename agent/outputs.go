package agent

import (
	"context"
	"errors"
	"time"

	"ecs/agent/collect"
	"ecs/agent/runtime"
	"ecs/internal/task"
)

// collectTimeout bounds the collecting of an attempt's files, however many they
// are and whatever the engine does.
const collectTimeout = 30 * time.Second

var errCollectTime = errors.New("the engine did not hand them over in time")

// collect keeps what the task asked for of the container's files. Whatever comes
// of that, the outcome stays the program's; an attempt that is abandoned
// meanwhile gets nil, as one does that left nothing because it never ran.
//
// A process that takes the attempt up does all of it again: the container is
// there until the leader has the result.
func (r *runner) collect(outcome task.Outcome) *task.Outputs {
	if len(r.spec.Outputs) == 0 || r.container == nil || r.startedAt.IsZero() || !stands(outcome) {
		return nil
	}
	began := time.Now()
	kept, err := r.collectOnce()
	took := time.Since(began)
	if !r.endedAt.IsZero() {
		r.bill.Output += time.Since(r.endedAt)
		r.endedAt = time.Now()
	}
	switch {
	case r.life.Err() != nil:
		return nil
	case err != nil:
		r.log.Warn("outputs are lost", "err", err, "took", took)
		return &task.Outputs{Lost: runtime.Reason(err.Error())}
	}
	r.log.Info("outputs collected", "bytes", kept.Bytes, "entries", kept.Entries, "truncated", kept.Truncated,
		"missing", len(kept.Missing), "took", took)
	return &kept
}

func (r *runner) collectOnce() (task.Outputs, error) {
	if !r.quiet || r.removed {
		return task.Outputs{}, errors.New("the engine has not confirmed that the program ended")
	}
	ctx, cancel := context.WithTimeoutCause(r.life, collectTimeout, errCollectTime)
	defer cancel()
	to, err := r.entry.Tar()
	if err != nil {
		return task.Outputs{}, err
	}
	kept, err := collect.Run(ctx, r.container, r.spec.Outputs, to, collect.DefaultLimits())
	if err == nil {
		err = to.Keep()
	}
	if err != nil {
		to.Drop()
		return task.Outputs{}, err
	}
	return kept, nil
}

// stands reports whether an attempt with that outcome ran its program to an end
// that stands. Another attempt may follow the other ones.
func stands(o task.Outcome) bool {
	switch o {
	case task.Exited, task.TimedOut, task.OOMKilled, task.Cancelled, task.DeadlineExceeded:
		return true
	}
	return false
}
