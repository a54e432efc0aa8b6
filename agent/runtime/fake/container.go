package fake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

var (
	errKilled  = errors.New("killed before its start")
	errCrashed = errors.New("the machine went down")
	errRemoved = errors.New("the container was removed")
)

// container is one attempt's. Locks are taken in the order engine, container.
type container struct {
	view
	tok   task.Token
	spec  task.Spec
	sink  runtime.Sink
	may   func() error       // the order's
	over  chan struct{}      // closed when the end is known; exit is set before
	life  context.Context    // the program's
	abort context.CancelFunc // ends the program

	mu struct {
		sync.Mutex
		started  bool
		program  chan struct{} // closed when the program's goroutine has ended; nil before a start
		verdict  *runtime.Exit // what an end from outside the program means
		crashed  bool
		killed   bool
		removed  bool
		isOver   bool
		exit     runtime.Exit
		exitFail error
		run      *Run
	}
}

func newContainer(ctx context.Context, v view, o runtime.Order) *container {
	c := &container{view: v, tok: o.Token, spec: o.Spec, sink: o.Output, may: o.May, over: make(chan struct{})}
	// The program outlives the call; it ends by Kill, Remove, Crash or itself.
	c.life, c.abort = context.WithCancel(context.WithoutCancel(ctx))
	return c
}

// Start implements runtime.Container.
func (c *container) Start(ctx context.Context) error {
	if err := c.e.call(ctx, c.e.delays().start); err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	if c.may != nil {
		if err := c.may(); err != nil {
			return fmt.Errorf("start container: %w", err)
		}
	}
	script := slices.Concat(c.spec.Entrypoint, c.spec.Command)
	if !known(script[0]) {
		return startFailed(fmt.Sprintf("no such command: %q", script[0]))
	}
	if !userExists(c.spec.User) {
		return startFailed(fmt.Sprintf("unable to find user %s", c.spec.User))
	}
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.mu.crashed:
		return errCrashed
	case c.mu.killed:
		return errKilled
	case c.mu.removed:
		return errRemoved
	case c.mu.started:
		return errors.New("start container: it was started before")
	}
	c.mu.started, c.mu.program = true, make(chan struct{})
	c.mu.run = &Run{Token: c.tok, StartedAt: time.Now()}
	c.e.mu.history = append(c.e.mu.history, c.mu.run)
	go c.perform(script, c.mu.run.StartedAt)
	return nil
}

// perform runs the program to its end, whoever brings that about.
func (c *container) perform(script []string, began time.Time) {
	own := run(c.life, script, c.sink)
	c.e.mu.Lock()
	c.mu.Lock()
	defer c.e.mu.Unlock()
	defer c.mu.Unlock()
	defer close(c.mu.program)
	if c.mu.run.EndedAt.IsZero() {
		c.mu.run.EndedAt = time.Now()
	}
	if c.mu.crashed {
		return // nobody is told
	}
	end := runtime.Exit{Code: 128 + 9}
	switch {
	case own != nil:
		end = *own
	case c.mu.verdict != nil:
		end = *c.mu.verdict
	}
	end.StartedAt, end.Run = began, time.Since(began)
	c.finishLocked(end, nil)
}

// finishLocked makes the end known. The container's lock is held.
func (c *container) finishLocked(exit runtime.Exit, err error) {
	if !c.mu.isOver {
		c.mu.isOver, c.mu.exit, c.mu.exitFail = true, exit, err
		close(c.over)
	}
}

// Wait implements runtime.Container.
func (c *container) Wait(ctx context.Context) (runtime.Exit, error) {
	select {
	case <-c.over:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.mu.exit, c.mu.exitFail
	case <-ctx.Done():
		return runtime.Exit{}, fmt.Errorf("wait for container: %w", ctx.Err())
	}
}

// Kill implements runtime.Container.
func (c *container) Kill(ctx context.Context) error {
	c.mu.Lock()
	c.mu.killed = true
	program := c.mu.program
	over := c.mu.isOver
	c.mu.Unlock()
	if program == nil || over {
		return nil
	}
	if err := c.e.call(ctx, c.e.delays().kill); err != nil {
		return fmt.Errorf("kill container: %w", err)
	}
	c.end(&runtime.Exit{Code: 128 + 9, Signal: "SIGKILL"})
	<-program
	return nil
}

// end ends the program with a verdict that stands unless it was quicker.
func (c *container) end(verdict *runtime.Exit) {
	c.mu.Lock()
	if c.mu.verdict == nil {
		c.mu.verdict = verdict
	}
	if c.mu.crashed {
		c.finishLocked(runtime.Exit{}, errCrashed)
	}
	c.mu.Unlock()
	c.abort()
}

// interrupt is an end that comes from outside the agent.
func (c *container) interrupt(why string) (ran bool) {
	c.mu.Lock()
	program, over := c.mu.program, c.mu.isOver
	c.mu.Unlock()
	if program == nil || over {
		return false
	}
	c.end(&runtime.Exit{Code: 128 + 9, Signal: "SIGKILL", Interrupted: why})
	<-program
	return true
}

// crash ends the program and tells nobody. The engine's lock is held.
func (c *container) crash() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.isOver {
		return
	}
	c.mu.crashed = true
	if c.mu.run != nil && c.mu.run.EndedAt.IsZero() {
		c.mu.run.EndedAt = time.Now()
	}
	c.abort()
}

// Remove implements runtime.Container.
func (c *container) Remove(ctx context.Context) error {
	c.mu.Lock()
	removed := c.mu.removed
	c.mu.Unlock()
	if removed {
		return nil
	}
	if err := c.Kill(ctx); err != nil {
		return err
	}
	if err := c.e.call(ctx, 0); err != nil {
		return fmt.Errorf("remove container: %w", err)
	}
	c.mu.Lock()
	c.mu.removed = true
	c.mu.Unlock()
	c.abort()
	c.e.drop(c)
	return nil
}

// userExists knows the users of the test images, and every number.
func userExists(user string) bool {
	name, group, _ := strings.Cut(user, ":")
	for _, part := range []string{name, group} {
		if _, err := strconv.ParseUint(part, 10, 31); err != nil && !slices.Contains([]string{"", "root", "nobody"}, part) {
			return false
		}
	}
	return true
}
