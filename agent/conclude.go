package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

const (
	// killTimeout bounds one try to end a container. A runtime has its own,
	// shorter ways around an engine that hangs.
	killTimeout = 30 * time.Second
	// quenchPatience is how long a caller whose task was stopped or ran over
	// its limit waits for an engine that can't confirm the end.
	quenchPatience = 30 * time.Second

	// securePatience is how long an end waits for a disk to take the output that
	// goes with it.
	securePatience = time.Second

	// removeTimeout bounds one removal, removeFor all the tries together; then
	// the sweeper takes over.
	removeTimeout = time.Minute
	removeFor     = 10 * time.Minute
	// answerPatience is how long a container stays for its result to be
	// committed first: removing it slows the machine, and so the answer.
	answerPatience = 2 * time.Second

	// Tries are repeated after pauses that double from the first to the most.
	firstPause = 100 * time.Millisecond
	mostPause  = 10 * time.Second
)

// sigkilled is the exit code of a program that SIGKILL ended.
const sigkilled = 137

// conclude makes sure that what must have ended has, and gives the result to
// report, or nil when the attempt is abandoned.
//
// An infrastructure outcome may make the leader place the next attempt at once, so
// it is never reported before the engine has confirmed the end. Other outcomes
// are final; after quenchPatience the caller need not wait for the engine.
func (r *runner) conclude(exit runtime.Exit, err error) *task.Result {
	result := judge(exit, err)
	if result.Outcome.Infrastructure() {
		r.quench(r.work)
		if r.work.Err() != nil {
			result = judge(exit, context.Cause(r.work)) // stopped meanwhile; moot if abandoned
		}
	}
	if r.life.Err() == nil {
		r.quenchSoon()
	}
	result.Outputs = r.collect(result.Outcome)
	stdout, stderr := r.entry.Finish()
	if !r.lease.release(r.token) || r.life.Err() != nil {
		r.abandon(errLapsed)
		r.log.Info("attempt abandoned", "why", context.Cause(r.life))
		if r.quench(r.base) {
			r.forget()
		}
		return nil
	}
	if r.endedAt.IsZero() {
		r.endedAt = time.Now()
	}
	r.describe(result)
	result.Attempt, result.ImageDigest = r.token.Attempt, r.digest
	result.Stdout, result.Stderr = stdout, stderr
	if !r.entry.InHead() {
		result.Node, result.OutputAddr = r.node, r.outputAddr
	}
	r.writeEnd(result)
	r.log.Info("attempt ended", "outcome", result.Outcome, "code", result.ExitCode, "reason", result.Reason, "ran", r.bill.Run)
	return result
}

// describe completes the reason with the limit that was run into.
func (r *runner) describe(result *task.Result) {
	switch result.Outcome {
	case task.PullTimedOut:
		result.Reason = fmt.Sprintf("%s: the limit is %s", result.Reason, r.spec.Timeouts.Pull)
	case task.TimedOut:
		result.Reason = fmt.Sprintf("%s of %s", result.Reason, r.spec.Timeouts.Run)
	}
}

// judge says what came of an attempt.
func judge(exit runtime.Exit, err error) *task.Result {
	var stop *stopped
	var failure *runtime.Failure
	switch {
	case err == nil:
		return judgeExit(exit)
	case errors.As(err, &stop):
		return &task.Result{Outcome: stop.outcome, Reason: stop.reason}
	case errors.Is(err, errPullTime):
		return &task.Result{Outcome: task.PullTimedOut, Reason: errPullTime.Error()}
	case errors.Is(err, errRunTime):
		return &task.Result{Outcome: task.TimedOut, Reason: errRunTime.Error()}
	case errors.As(err, &failure):
		reason := failure.Reason
		if reason == "" && failure.Err != nil {
			reason = failure.Err.Error()
		}
		return &task.Result{Outcome: failure.Outcome, Reason: runtime.Reason(reason)}
	}
	return &task.Result{Outcome: task.Interrupted, Reason: runtime.Reason(err.Error())}
}

func judgeExit(exit runtime.Exit) *task.Result {
	switch {
	case exit.RunLimit:
		return &task.Result{Outcome: task.TimedOut, Reason: errRunTime.Error()}
	case exit.OOMKilled && (exit.Code == sigkilled || exit.Signal == "SIGKILL"):
		return &task.Result{Outcome: task.OOMKilled, HasExit: true, ExitCode: sigkilled, Signal: "SIGKILL",
			Reason: "the program needed more memory than its limit"}
	case exit.Interrupted != "":
		return &task.Result{Outcome: task.Interrupted, Reason: runtime.Reason(exit.Interrupted)}
	}
	result := &task.Result{Outcome: task.Exited, HasExit: true, ExitCode: exit.Code, Signal: exit.Signal}
	if exit.OOMKilled {
		// The program outlived it and ended with a code of its own.
		result.Reason = "one of its processes was killed for want of memory"
	}
	return result
}

// quench ends what may still run and reports whether the engine confirmed it.
// It tries until then or until ctx ends.
func (r *runner) quench(ctx context.Context) bool {
	if r.astray {
		return false
	}
	if r.container == nil || r.quiet {
		return true
	}
	if r.life.Err() == nil { // nobody wants the output of an abandoned attempt
		r.secure()
	}
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, mostPause) {
		err := r.end(ctx)
		if err == nil {
			r.quiet = true
			return true
		}
		count(r.metrics, metricKillFailures, 1)
		r.log.Warn("container not ended", "err", err)
		sleep(ctx, pause)
	}
	return false
}

// secure has the output outlive this process, before what else has it is ended.
func (r *runner) secure() {
	done := make(chan struct{})
	r.securing.Go(func() { defer close(done); r.entry.Secure() })
	patience := time.NewTimer(securePatience)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
	}
}

// quenchSoon tries for quenchPatience in all, however often it is called.
func (r *runner) quenchSoon() {
	if r.patience.IsZero() {
		r.patience = time.Now().Add(quenchPatience)
	}
	ctx, cancel := context.WithDeadline(r.base, r.patience)
	defer cancel()
	r.quench(ctx)
}

// end ends the container. Killing it is not enough when the engine may yet
// begin to run the program: what is removed can't start.
func (r *runner) end(ctx context.Context) error {
	if r.unsure {
		return r.remove(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	return r.container.Kill(ctx)
}

func (r *runner) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	if err := r.container.Remove(ctx); err != nil {
		return err
	}
	r.removed = true
	return nil
}

// clean removes the container once the leader has its result.
func (r *runner) clean(answered <-chan struct{}) {
	if r.container == nil || r.removed {
		return
	}
	if answered != nil {
		wait := time.NewTimer(answerPatience)
		select {
		case <-answered:
		case <-wait.C:
		case <-r.base.Done():
		}
		wait.Stop()
	}
	r.calm()
	ctx, cancel := context.WithTimeout(r.base, removeFor)
	defer cancel()
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, mostPause) {
		err := r.removeInTurn(ctx)
		if err == nil {
			return
		}
		count(r.metrics, metricRemoveFailures, 1)
		r.log.Warn("container not removed", "err", err)
		sleep(ctx, pause)
	}
	r.litter = true
	r.log.Error("container left behind")
}

// removeInTurn takes part in no more than cap(removing) removals at once, so
// that an engine that is slow with them still has time for the living.
func (r *runner) removeInTurn(ctx context.Context) error {
	select {
	case r.removing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-r.removing }()
	return r.remove(ctx)
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
