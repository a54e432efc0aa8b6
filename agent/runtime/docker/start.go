package docker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"ecs/internal/cgroup"
	"ecs/internal/fence"
	"ecs/internal/initwire"
	"ecs/internal/task"
)

const (
	// helloWithin is how long a started container's init may take to connect.
	helloWithin = 30 * time.Second
	// fenceCall is how long the outer fence may take to answer.
	fenceCall = 5 * time.Second
	// noLease is how long an order without a lease may run.
	noLease = 365 * 24 * time.Hour
)

// Start implements runtime.Container.
func (c *attempt) Start(ctx context.Context) error {
	c.mu.Lock()
	before := c.mu.phase
	if before == created {
		c.mu.phase = starting
	}
	c.mu.Unlock()
	switch before {
	case created:
	case refused:
		return errKilled
	default:
		return fmt.Errorf("start container %s: it was started before", short(c.id))
	}
	after, err := c.start(ctx)
	c.mu.Lock()
	c.mu.phase = after
	c.mu.Unlock()
	close(c.begun)
	if err != nil {
		return fmt.Errorf("start container %s: %w", short(c.id), err)
	}
	return nil
}

// start starts the container and then, when everything stands that can end it,
// the program.
func (c *attempt) start(ctx context.Context) (phase, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	unwatch := make(chan struct{})
	defer close(unwatch)
	c.spawn(func() {
		select {
		case <-c.stopped:
			cancel(errKilled)
		case <-c.life.Done():
			cancel(context.Cause(c.life))
		case <-unwatch:
		}
	})
	if c.berth != nil {
		return c.startParked(ctx)
	}
	l, after, err := c.awake(ctx, false)
	if err != nil {
		return after, err
	}
	err = c.bound(ctx)
	c.countOOMKills()
	if err == nil {
		err = c.allowed(ctx)
	}
	if err != nil {
		l.conn.Close()
		return unsure, err
	}
	if err := l.begin(ctx, initwire.Position{}, c.finalOrder()); err != nil {
		l.close()
		return running, err
	}
	return running, c.begin(ctx, l)
}

// awake starts the container and gives the connection of its init. spare: it is
// not for an attempt, and its turn comes last.
func (c *attempt) awake(ctx context.Context, spare bool) (*line, phase, error) {
	d, err := c.home.open()
	if err != nil {
		return nil, refused, err
	}
	defer d.close() // nobody else has business there
	if after, err := c.boot(ctx, spare); err != nil {
		return nil, after, err
	}
	l, err := c.greet(ctx, d)
	return l, unsure, err
}

// allowed asks whether the program may begin: the turn may have been long in
// coming.
func (c *attempt) allowed(ctx context.Context) error {
	if c.may != nil {
		if err := c.may(); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// boot has the engine start the container, in which init waits.
func (c *attempt) boot(ctx context.Context, spare bool) (phase, error) {
	if err := c.r.starts.take(ctx, spare); err != nil {
		return refused, err
	}
	defer c.r.starts.give()
	after, err := c.bootOnce(ctx)
	if after == refused && c.remake != nil && networkGone(err) {
		c.log.Info("network for tasks is gone, makes it anew", "container", short(c.id))
		if err := c.renewNetwork(ctx); err != nil {
			return refused, err
		}
		after, err = c.bootOnce(ctx)
	}
	return after, err
}

func (c *attempt) bootOnce(ctx context.Context) (phase, error) {
	err := c.r.call(ctx, "start", longCall, func(ctx context.Context) error {
		return c.r.client.ContainerStart(ctx, c.id, container.StartOptions{})
	})
	switch {
	case err == nil:
		return unsure, nil
	case answered(err):
		return refused, startError(err)
	}
	return unsure, errors.Join(err, killedCause(ctx))
}

// killedCause is why a context of Start's was ended by another goroutine.
func killedCause(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, errKilled) {
		return cause
	}
	return nil
}

// renewNetwork replaces the container, which was not started.
func (c *attempt) renewNetwork(ctx context.Context) error {
	if err := c.r.remove(ctx, c.id); err != nil {
		return err
	}
	if err := c.r.egress.forget(ctx); err != nil {
		return err
	}
	id, err := c.remake(ctx)
	if err == nil {
		c.id = id
	}
	return err
}

// greet waits for the container's init. An init that ended says why it never
// came, through the engine.
func (c *attempt) greet(ctx context.Context, d *door) (*line, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, helloWithin, fmt.Errorf("its init did not connect in %s", helloWithin))
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	came := make(chan struct{})
	defer close(came)
	c.spawn(func() { // beside the waiting: it costs the start no time
		c.watch(container.WaitConditionNotRunning)
		select {
		case n := <-c.exits:
			c.exits <- n
			fail(fmt.Errorf("its init is gone: %w", n))
		case <-came:
		case <-c.life.Done():
		}
	})
	l, pid, err := d.await(ctx, c.id, c.nonce)
	if err != nil {
		return nil, fmt.Errorf("wait for the container's init: %w", err)
	}
	c.cgroup, err = cgroup.Of(pid)
	if err == nil && !strings.Contains(c.cgroup, c.id) {
		// The number was another's by the time it was looked up.
		c.cgroup, err = "", fmt.Errorf("pid %d is in %s", pid, c.cgroup)
	}
	if err != nil && c.r.cfg.Fence != nil {
		l.conn.Close()
		return nil, fmt.Errorf("the outer fence can't reach the container: %w", err)
	}
	return l, nil
}

// bound writes down what the next process needs, and has the fence end the
// attempt when its time comes.
func (c *attempt) bound(ctx context.Context) error {
	c.firstLease()
	if err := c.writeDown(); err != nil {
		return err
	}
	return c.fence(ctx)
}

func (c *attempt) writeDown() error {
	return c.home.write(record{Container: c.id, Nonce: c.nonce, Cgroup: c.cgroup})
}

func (c *attempt) fence(ctx context.Context) error {
	if c.r.cfg.Fence == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, fenceCall, errors.New("no answer in time"))
	defer cancel()
	deadline := c.lease() - task.OuterFenceAhead
	if err := c.r.cfg.Fence.Add(ctx, fence.Entry{ID: c.id, Cgroup: c.cgroup, Deadline: deadline}); err != nil {
		return err
	}
	c.fenced = deadline
	return nil
}

// finalOrder is the order with the lease as it is now.
func (c *attempt) finalOrder() initwire.Order {
	c.order.Lease = c.lease() - task.FenceAhead
	return *c.order
}

// begin waits until the program of an init that has its order runs or can't.
func (c *attempt) begin(ctx context.Context, l *line) error {
	told := c.order.Lease
	c.argv0, c.user = c.order.Argv[0], c.order.User
	c.order = nil // files and input may be large
	c.connect(l)
	c.input.attach(l)
	if end := c.lease() - task.FenceAhead; end > told { // moved meanwhile
		l.renew(end)
	}
	c.spawn(func() { c.follow(l) })
	select {
	case <-c.started:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if c.isOver() && c.heard.failed != nil {
		return failedError(*c.heard.failed, c.argv0, c.user, c.starved())
	}
	return nil
}
