package docker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"ecs/internal/cgroup"
	"ecs/internal/initwire"
)

const (
	// killCall is longer than the engine itself waits for a killed process.
	killCall = 20 * time.Second
	// killPatience is how long init has for a kill, and for the rest of the
	// output, before its processes are killed past it. It shares its program's
	// processor time.
	killPatience = 3 * time.Second
)

// Kill implements runtime.Container.
func (c *attempt) Kill(ctx context.Context) error {
	switch c.noteKill() {
	case created, refused:
		if c.berth != nil && c.cgroup != "" {
			return c.endAll(ctx) // its init
		}
		return nil
	}
	select {
	case <-c.begun:
	case <-ctx.Done():
		return fmt.Errorf("kill container %s: its start is under way: %w", short(c.id), ctx.Err())
	}
	switch c.phase() {
	case refused:
		return nil
	case unsure:
		if c.cgroup == "" {
			// It may be started any time; what is removed can't be.
			return c.Remove(ctx)
		}
	}
	if err := c.end(ctx); err != nil {
		return fmt.Errorf("kill container %s: %w", short(c.id), err)
	}
	return nil
}

// noteKill marks the container as killed by us, keeps it from being started,
// and gives the phase it was in.
func (c *attempt) noteKill() phase {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.killed {
		c.mu.killed = true
		close(c.stopped)
	}
	if c.mu.phase == created {
		c.mu.phase = refused
	}
	return c.mu.phase
}

// end has init kill every process of a started container, and returns when none
// but init is left. An init that is not heard of soon is gone past.
func (c *attempt) end(ctx context.Context) error {
	if l := c.connected(); l != nil && l.send(initwire.Kill{}) == nil {
		patience := time.NewTimer(killPatience)
		defer patience.Stop()
		select {
		case <-c.over:
		case <-patience.C:
		case <-ctx.Done():
		}
	}
	if c.isOver() && c.heard.lost == nil {
		return nil // nobody but init was left when it said so
	}
	return c.endAll(ctx)
}

// endAll kills every process of a started container, init included, in the way
// that works: through the fence, past the engine, or through it.
func (c *attempt) endAll(ctx context.Context) error {
	if c.cgroup == "" {
		return c.engineKill(ctx)
	}
	if c.r.cfg.Fence != nil {
		soon, cancel := context.WithTimeout(ctx, killPatience)
		defer cancel()
		if c.r.cfg.Fence.Kill(soon, c.id) == nil && cgroup.Empty(c.cgroup) {
			return nil
		}
	}
	err := cgroup.Kill(ctx, c.cgroup)
	if err == nil || ctx.Err() != nil {
		return err
	}
	return errors.Join(err, c.engineKill(ctx))
}

// engineKill asks the engine to kill and then until it says that nothing runs.
func (c *attempt) engineKill(ctx context.Context) error {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := c.r.call(ctx, "kill", killCall, func(ctx context.Context) error {
			return c.r.client.ContainerKill(ctx, c.id, "KILL")
		})
		if errdefs.IsNotFound(err) {
			return nil
		}
		state, look := c.state(ctx)
		switch {
		case errdefs.IsNotFound(look):
			return nil
		case look != nil:
			return errors.Join(err, look)
		case !state.Running && !state.Restarting:
			return nil
		}
		if !sleep(ctx, pause) {
			return errors.Join(err, ctx.Err())
		}
	}
}
