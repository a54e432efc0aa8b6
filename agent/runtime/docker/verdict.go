package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"

	"ecs/agent/runtime"
	"ecs/internal/initwire"
	"ecs/internal/task"
)

const (
	killedCode = 128 + int(unix.SIGKILL)
	// signalCodes is where exit codes begin that can mean a signal.
	signalCodes = 128
	// eventsCall is how long the engine may take to say who sent a signal.
	eventsCall = 2 * time.Second
	// latePatience is how long the engine may take to notice that a container
	// has ended.
	latePatience = 2 * time.Second
	latePause    = 20 * time.Millisecond
)

// verdict says how the program ended.
func (c *attempt) verdict(ctx context.Context) (runtime.Exit, error) {
	switch {
	case c.heard.failed != nil:
		return runtime.Exit{}, failedError(*c.heard.failed, c.argv0, c.user, c.starved())
	case c.heard.exit != nil:
		return c.told(ctx, *c.heard.exit), nil
	}
	if errors.Is(c.heard.lost, errEnded) || errors.Is(c.heard.lost, errLapsed) {
		return c.untold(ctx)
	}
	return runtime.Exit{}, c.heard.lost
}

// told is the verdict on what init told. The engine is asked only about codes
// that somebody's signal may have made.
func (c *attempt) told(ctx context.Context, e initwire.Exit) runtime.Exit {
	exit := runtime.Exit{
		Code:     e.Code,
		RunLimit: e.Cause == initwire.CauseRunLimit,
		Lapsed:   e.Cause == initwire.CauseLease,
		Run:      max(0, e.Ended-e.Started),
		Output:   max(0, c.heard.at-e.Ended),
	}
	if e.StartedAt != 0 { // else it was ended before it began
		exit.StartedAt = time.Unix(0, int64(e.StartedAt))
	}
	if e.Signal != 0 {
		exit.Signal = signalName(unix.Signal(e.Signal))
	}
	switch {
	case e.Cause != initwire.CauseProgram, c.killedByUs() && e.Signal == int(unix.SIGKILL):
	case e.Code == killedCode && c.starved():
		exit.OOMKilled, exit.Signal = true, "SIGKILL"
	case c.takenAlong(ctx, e):
		exit.Interrupted = engineLost
	case e.Code > signalCodes && !c.sentByUs(e.Code-signalCodes):
		if sig, _ := c.killedFromOutside(ctx, e.Code); sig != 0 {
			exit.Signal = signalName(sig)
			exit.Interrupted = struck(sig)
		}
	}
	return exit
}

func struck(sig unix.Signal) string {
	return fmt.Sprintf("somebody killed the container (%s)", signalName(sig))
}

// signalName is a signal as people write it; those without a name have a number.
func signalName(sig unix.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return "SIG" + strconv.Itoa(int(sig))
}

// untold is the verdict on a container that ended without a word of init's. By
// itself that is the program's doing: who else is in there?
func (c *attempt) untold(ctx context.Context) (runtime.Exit, error) {
	exit := runtime.Exit{Code: killedCode, Signal: "SIGKILL"}
	if s := c.heard.started; s != nil {
		exit.StartedAt, exit.Run = time.Unix(0, int64(s.Unix)), max(0, c.heard.at-s.Boottime)
	}
	switch {
	case c.killedByUs():
		return exit, nil
	case c.heard.at >= c.lease()-task.FenceAhead:
		exit.Lapsed = true
		return exit, nil
	case errors.Is(c.heard.lost, errLapsed):
		exit.Interrupted = errLapsed.Error()
		return exit, nil
	case c.heard.oom:
		exit.OOMKilled = true
		return exit, nil
	}
	state, err := c.finalState(ctx)
	switch {
	case ctx.Err() != nil:
		return exit, ctx.Err()
	case errdefs.IsNotFound(err):
		exit.Interrupted = removed
	case err != nil:
		exit.Interrupted = engineLost
	case state.OOMKilled:
		exit.OOMKilled = true
	default:
		exit.Interrupted = c.whoEnded(ctx)
		if !state.Running && state.ExitCode > 0 && state.ExitCode != killedCode {
			exit.Code, exit.Signal = state.ExitCode, ""
		}
	}
	return exit, nil
}

// whoEnded says who took the container away, or nothing where that was nobody
// outside it.
func (c *attempt) whoEnded(ctx context.Context) string {
	sig, err := c.killedFromOutside(ctx, killedCode)
	switch {
	case sig != 0:
		return struck(sig)
	case err != nil:
		return engineLost
	case c.heard.started == nil:
		return unheard // an earlier process may have had its part in it
	case c.otherEngine():
		return engineLost // the first took its containers along
	}
	return ""
}

// finalState is what the engine says once it has noticed that the container has
// ended; it is given a little time for that.
func (c *attempt) finalState(ctx context.Context) (*container.State, error) {
	for deadline := time.Now().Add(latePatience); ; {
		state, err := c.state(ctx)
		if err != nil || !state.Running || time.Now().After(deadline) || !sleep(ctx, latePause) {
			return state, err
		}
	}
}

// killedFromOutside asks the engine whether it was told to send a signal that
// explains the code, and gives it, or 0. The engine keeps its last few hundred
// events, and a kill is among the last of its container.
func (c *attempt) killedFromOutside(ctx context.Context, code int) (sig unix.Signal, err error) {
	ctx, cancel := context.WithTimeout(ctx, eventsCall)
	defer cancel()
	// An end that has passed makes the engine answer what it has and close.
	now := time.Now()
	messages, errs := c.r.client.Events(ctx, events.ListOptions{
		Since: "1",
		Until: fmt.Sprintf("%d.%09d", now.Unix(), now.Nanosecond()),
		Filters: filters.NewArgs(filters.Arg("type", "container"),
			filters.Arg("container", c.id), filters.Arg("event", "kill")),
	})
	for {
		select {
		case m := <-messages:
			n, err := strconv.Atoi(m.Actor.Attributes["signal"])
			if err == nil && (code == signalCodes+n || code == killedCode) {
				sig = unix.Signal(n)
			}
		case err := <-errs:
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return sig, err
		}
	}
}

// takenAlong reports whether an engine's end may be why the program ended. An
// engine that goes ends its containers first, and one that comes ends what it
// finds, unless it is told to let them live; a program may take that with any
// code. They do it through init; and with the engine goes what answers names, which a
// program may fail for. So one that succeeds without a signal does it by itself, and no
// question keeps its answer waiting.
func (c *attempt) takenAlong(ctx context.Context, e initwire.Exit) bool {
	if !e.Passed && e.Code == 0 {
		return false
	}
	if c.r.engineAway(ctx) {
		return true
	}
	if !c.otherEngine() {
		return false
	}
	sig, err := c.killedFromOutside(ctx, killedCode)
	return sig != 0 || err != nil
}

// otherEngine reports whether the engine is another one than that which started
// the container.
func (c *attempt) otherEngine() bool {
	select {
	case n := <-c.exits:
		c.exits <- n
		return n.err != nil
	default:
		return false
	}
}

// engineAway reports whether nobody listens where the engine should. That takes
// no call to it.
func (r *Runtime) engineAway(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, eventsCall)
	defer cancel()
	conn, err := r.client.Dialer()(ctx)
	if err != nil {
		return ctx.Err() == nil || client.IsErrConnectionFailed(err)
	}
	conn.Close()
	return false
}
