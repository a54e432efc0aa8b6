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
)

const (
	killedCode = 128 + int(unix.SIGKILL)
	// signalCodes is where exit codes begin that can mean a signal.
	signalCodes = 128
	// oomPatience is how long the engine has to flag a kill for want of
	// memory that the kernel counted.
	oomPatience = 500 * time.Millisecond
	oomEvery    = 25 * time.Millisecond
)

// verdict says what an ending means.
func (c *attempt) verdict(ctx context.Context, e ending) (runtime.Exit, error) {
	exit := runtime.Exit{
		Code:        e.code,
		Interrupted: e.lost,
		StartedAt:   c.startedAt,
		Run:         max(0, e.at.Sub(c.startedAt)),
		Output:      max(0, c.pump.ended.Sub(e.at)),
	}
	if e.lost != "" {
		return exit, nil
	}
	if f := initFailure(e.code, c.pump.stdout.bytes.Load(), c.pump.stderr.head); f != nil {
		return exit, f
	}
	state, err := c.state(ctx)
	if err == nil {
		c.takeTimes(&exit, state)
	}
	switch {
	case err == nil && state.Running:
		exit.Interrupted = "somebody restarted the container"
		return exit, c.end(ctx)
	case c.killedByUs():
		if e.code == killedCode {
			exit.Signal = "SIGKILL"
		}
	case client.IsErrConnectionFailed(err):
		// An engine that goes ends its containers first, and a program may
		// take that with any code.
		exit.Interrupted = engineLost
	case e.code > signalCodes:
		c.explain(ctx, &exit, state, err)
	}
	return exit, nil
}

// explain finds out what made a program end with a code that can mean a signal.
// The engine tells the code only: 128+n is what a program that signal n ended
// has, and what a program may also choose, so a signal is named only where
// something else knows of it. state is nil when inspecting gave err.
func (c *attempt) explain(ctx context.Context, exit *runtime.Exit, state *container.State, err error) {
	sig, lost := c.killedFromOutside(ctx, exit.Code)
	switch {
	case client.IsErrConnectionFailed(lost):
		exit.Interrupted = engineLost
	case sig != 0:
		exit.Signal = unix.SignalName(sig)
		exit.Interrupted = fmt.Sprintf("somebody killed the container (%s)", exit.Signal)
	case errdefs.IsNotFound(err):
		exit.Interrupted = "somebody removed the container"
	case exit.Code == killedCode && state != nil && (state.OOMKilled || c.lateOOM(ctx)):
		exit.OOMKilled, exit.Signal = true, "SIGKILL"
	}
}

// takeTimes takes the engine's times if they make sense.
func (c *attempt) takeTimes(exit *runtime.Exit, s *container.State) {
	started, err := time.Parse(time.RFC3339Nano, s.StartedAt)
	if err != nil || started.IsZero() {
		return
	}
	ended, err := time.Parse(time.RFC3339Nano, s.FinishedAt)
	if err != nil || ended.Before(started) {
		return
	}
	exit.StartedAt = started
	exit.Run = ended.Sub(started)
	exit.Output = max(0, c.pump.ended.Sub(ended))
}

// killedFromOutside asks the engine whether it was told to send a signal that
// explains the code, and gives it, or 0. Only called when we sent none. The
// engine keeps its last few hundred events, and a kill is among the last of its
// container.
func (c *attempt) killedFromOutside(ctx context.Context, code int) (sig unix.Signal, err error) {
	ctx, cancel := context.WithTimeout(ctx, shortCall)
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

// lateOOM waits for a flag that is on its way: the kernel has counted a kill
// for want of memory since the start, here or elsewhere on the machine.
func (c *attempt) lateOOM(ctx context.Context) bool {
	if !c.r.local || oomKills() <= c.oomKills {
		return false
	}
	for deadline := time.Now().Add(oomPatience); time.Now().Before(deadline); {
		if !sleep(ctx, oomEvery) {
			return false
		}
		if state, err := c.state(ctx); err != nil || state.OOMKilled {
			return err == nil
		}
	}
	return false
}
