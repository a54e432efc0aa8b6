package agent

import (
	"context"
	"errors"
	"time"

	"ecs/agent/collect"
	"ecs/agent/runtime"
	"ecs/internal/task"
)

const (
	// collectTimeout bounds the collecting of an attempt's files, however many they
	// are and whatever the engine does. It begins when the attempt's turn has
	// come, for which it waits no longer than collectWait.
	collectTimeout = 30 * time.Second
	collectWait    = 45 * time.Second
	// collectSlots is how many attempts collect at once: the engine packs files
	// for each of them, and the spool's disk takes them.
	collectSlots = 4
)

var (
	errCollectTime = errors.New("the engine did not hand them over in time")
	errCollectTurn = errors.New("the node was busy with the files of other tasks")
	errUnconfirmed = errors.New("the engine has not confirmed that the program ended")
)

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
	r.secure() // it may take a while
	began := time.Now()
	kept, err := r.collectInTurn()
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
		return &task.Outputs{Lost: runtime.Reason(lostFor(err))}
	}
	r.log.Info("outputs collected", "bytes", kept.Bytes, "entries", kept.Entries, "truncated", kept.Truncated,
		"missing", len(kept.Missing), "took", took)
	return &kept
}

// collectInTurn takes part in no more than cap(collecting) collections at once.
// A leave or a stop that comes when the program has ended costs the files only.
func (r *runner) collectInTurn() (task.Outputs, error) {
	if !r.quiet || r.removed {
		return task.Outputs{}, errUnconfirmed
	}
	within := r.life
	if r.work.Err() == nil {
		within = r.work // else it is how the program came to its end
	}
	ctx, cut := context.WithCancelCause(within)
	defer cut(nil)
	r.hurry.Store(&cut)
	wait := time.NewTimer(collectWait)
	defer wait.Stop()
	select {
	case r.collecting <- struct{}{}:
	case <-wait.C:
		return task.Outputs{}, errCollectTurn
	case <-ctx.Done():
		return task.Outputs{}, context.Cause(ctx)
	}
	defer func() { <-r.collecting }()
	return r.collectOnce(ctx)
}

func (r *runner) collectOnce(ctx context.Context) (task.Outputs, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, collectTimeout, errCollectTime)
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

// lostFor is why there are no files, for the caller: the engine's words and the
// spool's have this machine's paths in them, and are for the log.
func lostFor(err error) string {
	var stop *stopped
	if errors.As(err, &stop) {
		return "the task was stopped before they were collected: " + stop.reason
	}
	for _, known := range []error{errLeaving, errCollectTime, errCollectTurn, errUnconfirmed, collect.ErrNoRoom} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "copying them failed on the node that ran the task; its log says why"
}

// part ends the attempt because the node leaves: without a report, unless its
// program has ended and nothing but its files is awaited.
func (r *runner) part(why error) {
	if cut := r.hurry.Load(); cut != nil {
		(*cut)(why)
		return
	}
	r.abandon(why)
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
