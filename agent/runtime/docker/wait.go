package docker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"ecs/agent/runtime"
)

const (
	// pollEvery is how often the engine is asked beside the wait, which can
	// miss an exit for ever. agreeing polls in a row must agree: an engine under
	// load reports an exit late.
	pollEvery = 5 * time.Second
	agreeing  = 4
	// latePatience is how long an exit may still come after the program was
	// found gone.
	latePatience = time.Second
	// streamPatience is how long a program may be seen to run after its output
	// stream has ended, blindPatience where only the engine can tell that it does.
	streamPatience = time.Second
	blindPatience  = 4 * time.Second
	// outputPatience is how long a stream may be silent after the exit before
	// it is given up.
	outputPatience = 2 * time.Second
)

// Reasons for an interruption.
const (
	engineLost = "the engine went away while the program ran"
	trackLost  = "the engine lost track of the program's end"
	vanished   = "the program vanished without a word from the engine"
	streamLost = "its output stream broke"
)

// exitNote is what one wait brought.
type exitNote struct {
	code int
	err  error // the wait broke; how the program ends is not known
	at   time.Time
}

// ending is how a program ended, before the details.
type ending struct {
	code int
	at   time.Time
	lost string // not empty: somebody took the container away
}

// await begins a wait and returns when the engine has it. What it brings goes
// to exits.
func (c *attempt) await(ctx context.Context, condition container.WaitCondition) error {
	life, cancel := context.WithCancel(c.life)
	var results <-chan container.WaitResponse
	var errs <-chan error
	err := c.r.call(ctx, "wait", shortCall, func(ctx context.Context) error {
		unwatch := context.AfterFunc(ctx, cancel)
		defer unwatch()
		results, errs = c.r.client.ContainerWait(life, c.id, condition)
		select {
		case err := <-errs:
			return errors.Join(context.Cause(ctx), err)
		default:
			return nil
		}
	})
	if err != nil {
		cancel()
		return err
	}
	// From here on the client sends either a result or an error, once; an
	// error also when life ends.
	receive := func() {
		defer cancel()
		select {
		case res := <-results:
			c.exits <- exitNote{code: int(res.StatusCode), at: time.Now()}
		case err := <-errs:
			c.exits <- exitNote{err: err, at: time.Now()}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life.Err() != nil {
		cancel()
		receive()
		return context.Cause(c.life)
	}
	c.unwait = cancel
	c.waits.Go(receive)
	return nil
}

// Wait implements runtime.Container.
//
// The times are the engine's own (it notes the exit some 20 ms before it
// reports it); where it can't be asked any more they are ours.
func (c *attempt) Wait(ctx context.Context) (runtime.Exit, error) {
	e, err := c.ending(ctx)
	if err == nil {
		err = c.pump.settle(ctx, outputPatience)
	}
	if err != nil {
		return runtime.Exit{}, fmt.Errorf("wait for container %s: %w", short(c.id), err)
	}
	for _, d := range []*drain{&c.pump.stdout, &c.pump.stderr} {
		if d.err != nil {
			c.r.log.Warn("output sink failed", "container", short(c.id), "err", d.err)
		}
	}
	exit, err := c.verdict(ctx, e)
	if exit.Interrupted == "" {
		exit.Interrupted = c.pump.broken()
	}
	return exit, err
}

// ending waits until no process of the container is left.
func (c *attempt) ending(ctx context.Context) (ending, error) {
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	var doubt suspicion
	over := c.pump.over
	var outlived <-chan time.Time
	for {
		select {
		case n := <-c.exits:
			if n.err == nil {
				return ending{code: n.code, at: n.at}, nil
			}
			why, err := c.brokenWait(ctx)
			if err != nil || why != "" {
				return ending{at: n.at, lost: why}, err
			}
		case <-over:
			over = nil
			outlived = c.streamOver()
		case <-outlived:
			if c.outlives(ctx) {
				return ending{at: time.Now(), lost: streamLost}, c.end(ctx)
			}
			outlived = time.After(streamPatience)
		case <-poll.C:
			if why := doubt.confirmed(c.look(ctx)); why != "" {
				return c.lose(ctx, why)
			}
		case <-ctx.Done():
			return ending{}, ctx.Err()
		}
	}
}

// streamOver says when to look whether the program outlives its output stream.
// Without docker-init, which keeps its own end open, a program may itself have
// closed the stream in good order; then there is nothing to look for.
func (c *attempt) streamOver() <-chan time.Time {
	if c.pump.err == nil && !c.init {
		return nil
	}
	if c.cgroup == "" {
		return time.After(blindPatience)
	}
	return time.After(streamPatience)
}

// outlives reports whether the program still runs. The engine is late to note
// that it does not, so its processes are asked for where they can be seen.
func (c *attempt) outlives(ctx context.Context) bool {
	if c.cgroup != "" && cgroupEmpty(c.cgroup) {
		return false
	}
	state, err := c.state(ctx)
	return err == nil && state.Running
}

// lose ends a container whose wait will bring nothing, and prefers an exit that
// the engine reports after all, unless it may be our own doing.
func (c *attempt) lose(ctx context.Context, why string) (ending, error) {
	lost := ending{at: time.Now(), lost: why}
	ended := why == trackLost || why == vanished
	if c.cgroup != "" {
		ended = ended && cgroupEmpty(c.cgroup)
	}
	if err := c.end(ctx); err != nil || !ended {
		return lost, err
	}
	late := time.NewTimer(latePatience)
	defer late.Stop()
	select {
	case n := <-c.exits:
		if n.err == nil {
			return ending{code: n.code, at: n.at}, nil
		}
	case <-late.C:
	case <-ctx.Done():
	}
	return lost, nil
}

// brokenWait finds out what became of a container whose wait broke. It returns
// a reason once no process of it is left, or an empty one when the wait stands
// again. The output that came meanwhile is lost with the stream, so a program
// that still runs without one is ended.
func (c *attempt) brokenWait(ctx context.Context) (why string, err error) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		if c.life.Err() != nil {
			return "", errors.New("it was removed")
		}
		state, err := c.state(ctx)
		switch {
		case errdefs.IsNotFound(err):
			return "somebody removed the container", nil
		case err == nil && !state.Running:
			return engineLost, nil
		case err == nil && !c.pump.closed():
			if c.await(ctx, container.WaitConditionNotRunning) == nil {
				return "", nil
			}
		case err == nil:
			if c.end(ctx) == nil {
				return engineLost, nil
			}
		default:
			// No engine to ask: see to it ourselves, or wait for one.
			if killCgroup(ctx, c.cgroup) == nil {
				return engineLost, nil
			}
		}
		if !sleep(ctx, pause) {
			return "", fmt.Errorf("%s, and what became of it is not known: %w", engineLost, ctx.Err())
		}
	}
}

// look asks the engine for a sign that the wait will never end by itself, and
// says which.
func (c *attempt) look(ctx context.Context) string {
	state, err := c.state(ctx)
	switch {
	case errdefs.IsNotFound(err):
		return "somebody removed the container"
	case err != nil:
		return ""
	case state.Paused:
		return "somebody paused the container"
	case !state.Running:
		return trackLost
	case c.cgroup != "" && cgroupEmpty(c.cgroup):
		return vanished
	}
	return ""
}

// state is what the engine says of the container now. It is not nil when there
// is no error.
func (c *attempt) state(ctx context.Context) (*container.State, error) {
	found, err := c.r.inspect(ctx, c.id)
	if err == nil && (found.ContainerJSONBase == nil || found.State == nil) {
		err = errors.New("the engine told no state")
	}
	if err != nil {
		return nil, err
	}
	return found.State, nil
}

// suspicion counts how often in a row the same thing was suspected.
type suspicion struct {
	why   string
	times int
}

// confirmed gives what enough looks agree on.
func (s *suspicion) confirmed(why string) string {
	if why != s.why {
		s.why, s.times = why, 0
	}
	if s.times++; s.times >= agreeing {
		return why
	}
	return ""
}
