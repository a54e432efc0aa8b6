package docker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"golang.org/x/sync/errgroup"

	"ecs/agent/runtime"
)

const (
	// killCall is longer than the engine itself waits for a killed process.
	killCall = 20 * time.Second
	// killPatience is how long the engine has for a kill before the processes
	// are killed past it.
	killPatience = time.Second
)

// phase is how far a container has come, as far as its Start is concerned.
type phase int

const (
	created  phase = iota
	starting       // the engine is being asked
	running        // the engine said that it runs; it may have ended since
	refused        // it was never started and will not be
	unsure         // the engine did not answer: it may run, or may yet
)

var errKilled = errors.New("the container was killed before its start")

// attempt is the container of one attempt.
type attempt struct {
	r    *Runtime
	id   string // changes only while Start is under way
	sink runtime.Sink
	may  func() error // runtime.Order's
	// remake makes the container anew where the first may be of a network that
	// is gone; nil where it can't be.
	remake func(context.Context) (id string, err error)
	init   bool // docker-init is PID 1
	sniff  int  // how much of stderr is kept

	// life ends with Remove, and with it the wait for the exit.
	life   context.Context
	finish context.CancelFunc
	exits  chan exitNote // what the present wait brought; one slot
	waits  sync.WaitGroup
	unwait context.CancelFunc // ends the present wait; Start's and Wait's

	mu struct {
		sync.Mutex
		phase   phase
		killed  bool // by us
		removed bool
	}
	begun chan struct{} // closed when Start has returned; what follows is set before

	pump      *pump     // nil: nothing was attached
	startedAt time.Time // by our clock, when the engine had answered
	cgroup    string    // where its processes are, or empty when that is not known
	oomKills  int64     // the machine's count before the start
}

func newAttempt(ctx context.Context, r *Runtime, id string, o runtime.Order) *attempt {
	c := &attempt{r: r, id: id, sink: o.Output, may: o.May, exits: make(chan exitNote, 1), begun: make(chan struct{})}
	c.sniff = sniffed + len(program(o.Spec))
	c.life, c.finish = context.WithCancel(context.WithoutCancel(ctx))
	return c
}

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
		if c.pump != nil {
			c.pump.close()
		}
		return fmt.Errorf("start container %s: %w", short(c.id), err)
	}
	return nil
}

func (c *attempt) start(ctx context.Context) (phase, error) {
	select {
	case c.r.starts <- struct{}{}:
		defer func() { <-c.r.starts }()
	case <-ctx.Done():
		return refused, ctx.Err()
	}
	after, err := c.startOnce(ctx)
	if after == refused && c.remake != nil && networkGone(err) {
		c.r.log.Info("network for tasks is gone, makes it anew", "container", short(c.id))
		if err := c.renew(ctx); err != nil {
			return refused, err
		}
		after, err = c.startOnce(ctx)
	}
	return after, err
}

func (c *attempt) startOnce(ctx context.Context) (phase, error) {
	if err := c.listen(ctx); err != nil {
		return refused, err
	}
	// The turn may have been long in coming.
	if c.may != nil {
		if err := c.may(); err != nil {
			return refused, err
		}
	}
	if c.r.local {
		c.oomKills = oomKills()
	}
	err := c.r.call(ctx, "start", longCall, func(ctx context.Context) error {
		return c.r.client.ContainerStart(ctx, c.id, container.StartOptions{})
	})
	c.startedAt = time.Now()
	switch {
	case err == nil:
		if c.r.local {
			c.cgroup = findCgroup(c.id)
		}
		return running, nil
	case answered(err):
		return refused, startError(err)
	}
	return unsure, err
}

// renew takes back what listen opened and replaces the container, which was
// not started.
func (c *attempt) renew(ctx context.Context) error {
	c.pump.close()
	c.unwait()
	<-c.exits // each wait brings one
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

// listen opens the output stream and the wait for the exit, side by side. Both
// must stand before the start: a program that ends at once is over before its
// start is answered.
func (c *attempt) listen(ctx context.Context) error {
	var both errgroup.Group
	both.Go(func() error {
		return c.r.call(ctx, "attach", shortCall, func(ctx context.Context) error {
			conn, in, err := c.r.attach(ctx, c.id)
			if err == nil {
				c.pump = startPump(conn, in, c.sink, c.sniff)
			}
			return err
		})
	})
	both.Go(func() error { return c.await(ctx, container.WaitConditionNextExit) })
	return both.Wait()
}

// Kill implements runtime.Container.
func (c *attempt) Kill(ctx context.Context) error {
	switch c.noteKill() {
	case created, refused:
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
		// It may be started any time; what is removed can't be.
		return c.Remove(ctx)
	}
	return c.end(ctx)
}

// noteKill marks the container as killed by us, keeps it from being started,
// and gives the phase it was in.
func (c *attempt) noteKill() phase {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.killed = true
	if c.mu.phase == created {
		c.mu.phase = refused
	}
	return c.mu.phase
}

func (c *attempt) phase() phase {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.phase
}

func (c *attempt) killedByUs() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.killed
}

// end kills every process of a started container and returns when none is
// left. An engine that does not answer soon is gone past, where the agent may.
func (c *attempt) end(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asked := make(chan error, 1)
	go func() { asked <- c.engineKill(ctx) }()
	patience := time.NewTimer(killPatience)
	defer patience.Stop()
	select {
	case err := <-asked:
		if err == nil || killCgroup(ctx, c.cgroup) == nil {
			return nil
		}
		return fmt.Errorf("kill container %s: %w", short(c.id), err)
	case <-patience.C:
	}
	if killCgroup(ctx, c.cgroup) == nil {
		cancel()
		<-asked
		return nil
	}
	if err := <-asked; err != nil {
		return fmt.Errorf("kill container %s: %w", short(c.id), err)
	}
	return nil
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

// Remove implements runtime.Container.
func (c *attempt) Remove(ctx context.Context) error {
	if c.noteKill() == starting {
		select {
		case <-c.begun:
		case <-ctx.Done():
			return fmt.Errorf("remove container %s: its start is under way: %w", short(c.id), ctx.Err())
		}
	}
	c.mu.Lock()
	removed := c.mu.removed
	c.mu.Unlock()
	if removed {
		return nil
	}
	err := c.r.remove(ctx, c.id)
	c.mu.Lock()
	c.mu.removed = c.mu.removed || err == nil
	c.finish() // no wait begins after this
	c.mu.Unlock()
	if c.pump != nil {
		c.pump.close()
	}
	c.waits.Wait()
	return err
}
