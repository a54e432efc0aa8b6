package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"ecs/agent/runtime"
	"ecs/internal/cgroup"
	"ecs/internal/fence"
	"ecs/internal/initwire"
)

// adoptWithin is how long a container's init may take to come back. It dials
// whenever it sees the door, and every second.
const adoptWithin = 10 * time.Second

// Adopt implements runtime.Runtime.
func (r *Runtime) Adopt(ctx context.Context, a runtime.Adoption) (runtime.Container, error) {
	c, err := r.find(ctx, a)
	if err == nil {
		err = c.rejoin(ctx, initwire.Position{Stdout: a.Stdout, Stderr: a.Stderr})
		if err != nil {
			c.finish(err)
			c.tasks.Wait()
			if c.berth != nil {
				r.parking.drop(c.berth.token) // the record tells whose it is
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("adopt container %s: %w", containerName(a.Token), err)
	}
	return c, nil
}

// find looks for the attempt's record and its container, which the engine has
// to confirm.
func (r *Runtime) find(ctx context.Context, a runtime.Adoption) (*attempt, error) {
	h, rec, err := r.homes.find(a.Token)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, runtime.ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("read its record: %w", err)
	}
	found, err := r.inspect(ctx, rec.Container)
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, err
	}
	if err != nil || found.Config == nil || !r.mine(found.Config.Labels) {
		return nil, errors.Join(runtime.ErrGone, h.remove())
	}
	t, ok := tokenOf(found.Config.Labels)
	if !ok || t != a.Token && !isParking(t) {
		return nil, errors.Join(runtime.ErrGone, h.remove())
	}
	c := newAttempt(r, rec.Container, h)
	c.assign(runtime.Order{Token: a.Token, Spec: a.Spec, Output: a.Output, Deadline: a.Deadline}, nil)
	c.nonce, c.cgroup = rec.Nonce, rec.Cgroup
	if isParking(t) { // it was bound by the record
		c.berth = &berth{token: t}
		r.parking.bind(t, a.Token)
	}
	c.mu.phase = running
	close(c.begun)
	return c, nil
}

// rejoin takes up the connection, and the attempt's place at the fence. A
// container that has ended is one whose end nobody can tell any more.
func (c *attempt) rejoin(ctx context.Context, from initwire.Position) error {
	c.firstLease()
	// Of a container that has ended there is nothing left to fence.
	if err := c.fence(ctx); err != nil && !errors.Is(err, fence.ErrEnded) && (c.cgroup == "" || !cgroup.Empty(c.cgroup)) {
		return err
	}
	c.spawn(func() { c.watch(container.WaitConditionNotRunning) }) // an engine that hangs keeps nobody from init
	l, err := c.comeBack(ctx, from)
	switch {
	case errors.Is(err, errEnded):
		c.heard.lost, c.heard.at = err, boottime()
		c.input.end()
		close(c.over)
		close(c.started)
		return nil
	case err != nil:
		return err
	}
	if !l.hello.Ordered {
		l.conn.Close()
		if err := c.endAll(ctx); err != nil {
			return fmt.Errorf("end what never got its order: %w", err)
		}
		c.unfence(ctx)
		return runtime.ErrGone
	}
	if err := c.takeUp(l, from, from); err != nil {
		return err
	}
	c.spawn(func() { c.follow(l) })
	return nil
}

// comeBack waits for init, as long as there is one.
func (c *attempt) comeBack(ctx context.Context, from initwire.Position) (*line, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, adoptWithin, fmt.Errorf("its init did not come back in %s", adoptWithin))
	defer cancel()
	unwatch := context.AfterFunc(c.life, cancel)
	defer unwatch()
	d, err := c.home.open()
	if err != nil {
		return nil, err
	}
	defer d.close()
	for patience := firstRedial; ; patience = min(2*patience, longestRedial) {
		short, cancel := context.WithTimeout(ctx, patience)
		l, _, err := d.await(short, c.id, c.nonce)
		cancel()
		switch {
		case err == nil:
			return l, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		if err := c.gone(noLease); errors.Is(err, errEnded) {
			return nil, err
		}
		if err := d.l.SetDeadline(time.Time{}); err != nil {
			return nil, err
		}
	}
}
