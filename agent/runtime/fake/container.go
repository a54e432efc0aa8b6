package fake

import (
	"context"
	"errors"
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

// container is one attempt's, whoever its agent is now. Locks are taken in the
// order engine, container.
type container struct {
	e       *Engine
	number  int64
	node    string
	berth   *berth // it was parked there before it was an attempt's; else nil
	tok     task.Token
	spec    task.Spec
	streams [2]*stream
	input   *input
	files   files
	over    chan struct{}      // closed when the end is known; exit is set before
	life    context.Context    // the program's
	abort   context.CancelFunc // ends the program

	mu struct {
		sync.Mutex
		started  bool
		program  chan struct{} // closed when the program's goroutine has ended; nil before a start
		dying    bool          // it ends soon
		verdict  *runtime.Exit // what an end from outside the program means
		crashed  bool
		killed   bool
		removed  bool
		isOver   bool
		exit     runtime.Exit
		exitFail error
		run      *Run
		lease    time.Duration // its end; 0: none
		deaf     bool          // to renewals
		limit    *time.Timer   // of the run; nil: none
		fence    *time.Timer   // of the lease; nil: none
	}
}

func newContainer(ctx context.Context, v view, o runtime.Order) *container {
	v.e.mu.Lock()
	v.e.mu.made++
	number := v.e.mu.made
	v.e.mu.Unlock()
	c := &container{e: v.e, number: number, node: v.node, tok: o.Token, spec: o.Spec, over: make(chan struct{}), input: newInput(o.Spec),
		streams: [2]*stream{newStream(o.Output.Stdout), newStream(o.Output.Stderr)}}
	// The program outlives the call; it ends by Kill, Remove, Crash or itself.
	c.life, c.abort = context.WithCancel(context.WithoutCancel(ctx))
	return c
}

func (c *container) begun() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.started
}

// begin runs the program from now on, under the lease that ends then, or later if a
// renewal has come before.
func (c *container) begin(script []string, end time.Duration) error {
	now := c.e.Now()
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
	c.mu.run = &Run{Token: c.tok, Container: c.number, StartedAt: time.Now()}
	c.e.mu.history = append(c.e.mu.history, c.mu.run)
	if c.mu.lease = max(c.mu.lease, end); c.mu.lease > 0 {
		c.mu.run.Lease = time.Now().Add(c.mu.lease - now)
		c.watchLocked(c.mu.lease - task.FenceAhead - now)
	}
	if limit := c.spec.Timeouts.Run; limit > 0 {
		c.mu.limit = time.AfterFunc(limit, func() {
			c.quench(&runtime.Exit{Code: sigkilled, Signal: "SIGKILL", RunLimit: true})
		})
	}
	go c.perform(script, c.mu.run.StartedAt)
	return nil
}

// perform runs the program to its end, whoever brings that about.
func (c *container) perform(script []string, began time.Time) {
	own := run(c.life, script, program{c})
	c.e.mu.Lock()
	c.mu.Lock()
	defer c.e.mu.Unlock()
	defer c.mu.Unlock()
	defer close(c.mu.program)
	for _, t := range []*time.Timer{c.mu.limit, c.mu.fence} {
		if t != nil {
			t.Stop()
		}
	}
	if c.mu.run.EndedAt.IsZero() {
		c.mu.run.EndedAt = time.Now()
	}
	if c.mu.crashed {
		return // nobody is told
	}
	end := runtime.Exit{Code: sigkilled}
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

// renew moves the lease's end. The program is ended ahead of it, without
// anybody's help.
func (c *container) renew(end time.Duration) {
	now := c.e.Now()
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if end <= c.mu.lease || c.mu.deaf || c.mu.isOver {
		return
	}
	c.mu.lease = end
	if c.mu.run == nil {
		return // begin goes by it
	}
	c.mu.run.Lease = time.Now().Add(end - now)
	if c.mu.fence == nil {
		c.watchLocked(end - task.FenceAhead - now)
	}
}

// watchLocked looks at the lease again after so long.
func (c *container) watchLocked(after time.Duration) {
	c.mu.fence = time.AfterFunc(after, func() {
		now := c.e.Now()
		c.mu.Lock()
		left := c.mu.lease - task.FenceAhead - now
		if left > 0 && !c.mu.isOver {
			c.watchLocked(left)
		}
		c.mu.Unlock()
		if left <= 0 {
			c.quench(&runtime.Exit{Code: sigkilled, Signal: "SIGKILL", Lapsed: true})
		}
	})
}

// quench ends the program, if it takes its time to. The verdict stands unless
// another was there first, or the program is quicker.
func (c *container) quench(verdict *runtime.Exit) {
	lingers := c.e.lingers()
	c.mu.Lock()
	dying := c.mu.dying
	c.mu.dying = true
	if c.mu.verdict == nil {
		c.mu.verdict = verdict
	}
	crashed := c.mu.crashed
	if !dying && !crashed && lingers > 0 {
		time.AfterFunc(lingers, c.abort)
	}
	c.mu.Unlock()
	if !dying && lingers <= 0 || crashed {
		c.end(verdict)
	}
}

// end ends the program now.
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
	c.end(&runtime.Exit{Code: sigkilled, Signal: "SIGKILL", Interrupted: why})
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
