package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ecs/agent/runtime"
	"ecs/internal/initwire"
	"ecs/internal/task"
)

// phase is how far a container has come, as far as its Start is concerned.
type phase int

const (
	created  phase = iota
	starting       // Start is under way
	running        // its init has the order; the program may have ended since
	refused        // the program was never started and will not be
	unsure         // no order was given, but the container may run or may yet
)

var (
	errKilled  = errors.New("the container was killed before its start")
	errRemoved = errors.New("the container was removed")
)

// attempt is the container of one attempt.
type attempt struct {
	r        *Runtime
	log      *slog.Logger // names the attempt, once it is one's
	id       string       // changes only while Start is under way
	home     home
	nonce    string
	sink     runtime.Sink
	order    *initwire.Order // nil once given
	argv0    string          // the order's command and user; empty after an adoption
	user     string
	deadline func() time.Duration
	may      func() error // runtime.Order's
	// remake makes the container anew where the first may be of a network that
	// is gone; nil where it can't be.
	remake func(context.Context) (id string, err error)
	berth  *berth // it was parked there before it was the attempt's; else nil

	// life ends with Remove, or with the Runtime, and with it all that runs
	// here; what runs is counted in tasks.
	life    context.Context
	finish  context.CancelCauseFunc
	tasks   sync.WaitGroup
	stopped chan struct{} // closed by the first Kill or Remove
	begun   chan struct{} // closed when Start has returned; what follows is set before

	fenced   time.Duration // the deadline that the fence has confirmed last; Start's, once it is an attempt's
	cgroup   string        // where its processes are, or empty when that is not known
	oomKills int64         // the cgroup's count before the program began
	input    *input
	exits    chan exitNote // what the engine said of its end; one slot
	heard    heard

	mu struct {
		sync.Mutex
		phase   phase
		killed  bool // by us
		removed bool
		lease   time.Duration // its end
		line    *line         // nil: not connected
		signals uint64        // that we sent, 1 << number
	}

	started chan struct{} // closed with Started, or over
	over    chan struct{} // closed when nothing more is to be heard of the program
}

// heard is what init told. Each field is written once, by the one who follows,
// before started or over is closed.
type heard struct {
	started *initwire.Started
	failed  *initwire.Failed
	exit    *initwire.Exit
	at      time.Duration // when exit, or the loss, was known
	lost    error         // not nil: nothing more will be told
	oom     bool          // the kernel had killed for want of memory, at the loss
	sink    error         // the first error of the sink's
}

func newAttempt(r *Runtime, id string, h home) *attempt {
	c := &attempt{r: r, log: r.log, id: id, home: h, exits: make(chan exitNote, 1),
		stopped: make(chan struct{}), begun: make(chan struct{}), started: make(chan struct{}), over: make(chan struct{}),
		input: newInput(false, 0)}
	c.life, c.finish = context.WithCancelCause(r.life)
	return c
}

// assign makes it the container of the order's attempt.
func (c *attempt) assign(o runtime.Order, order *initwire.Order) {
	c.sink, c.deadline, c.may, c.order = o.Output, o.Deadline, o.May, order
	c.input = newInput(o.Spec.OpenStdin, int64(len(o.Spec.Stdin)))
	c.log = c.r.log.With("task", o.Token.Task, "attempt", o.Token.Attempt)
	if o.CID != "" {
		c.log = c.log.With("cid", o.CID)
	}
}

// spawn runs something that ends with the attempt's life.
func (c *attempt) spawn(do func()) {
	c.tasks.Add(1)
	c.r.tasks.Go(func() {
		defer c.tasks.Done()
		do()
	})
}

// firstLease asks for the end of the lease as it stands. What follows is
// Renew's.
func (c *attempt) firstLease() {
	end := boottime() + noLease
	if c.deadline != nil {
		end = c.deadline()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.lease = max(c.mu.lease, end)
}

// lease is its end.
func (c *attempt) lease() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.lease
}

// Renew implements runtime.Container.
func (c *attempt) Renew(end time.Duration) {
	c.mu.Lock()
	later := end > c.mu.lease
	if later {
		c.mu.lease = end
	}
	l := c.mu.line
	// What is bound and begins in a moment hears of it then: each time wakes processes.
	begins := c.mu.phase == created && c.berth.isBound()
	c.mu.Unlock()
	if !later || begins {
		return
	}
	if l != nil {
		l.renew(end - task.FenceAhead)
	}
	if c.r.cfg.Fence != nil {
		c.r.cfg.Fence.Renew(c.id, end-task.OuterFenceAhead)
	}
}

// Resize implements runtime.Container.
func (c *attempt) Resize(_ context.Context, rows, cols uint16) error {
	return c.tell(initwire.Resize{Rows: rows, Cols: cols})
}

// Signal implements runtime.Container.
func (c *attempt) Signal(_ context.Context, signal syscall.Signal) error {
	if signal <= 0 || signal > 64 {
		return fmt.Errorf("signal the program: %w", unix.EINVAL)
	}
	c.mu.Lock()
	c.mu.signals |= 1 << (signal - 1)
	c.mu.Unlock()
	return c.tell(initwire.Signal{Number: int(signal)})
}

// tell sends the program's init a message. A program that has ended needs none.
func (c *attempt) tell(m initwire.Message) error {
	if c.isOver() {
		return nil
	}
	l := c.connected()
	if l == nil {
		return fmt.Errorf("container %s: %w", short(c.id), errHungUp)
	}
	if err := l.send(m); err != nil && !c.isOver() {
		return fmt.Errorf("container %s: %w", short(c.id), err)
	}
	return nil
}

func (c *attempt) connected() *line {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.line
}

func (c *attempt) connect(l *line) {
	if l == nil {
		c.input.detach()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.line = l
}

func (c *attempt) isOver() bool {
	select {
	case <-c.over:
		return true
	default:
		return false
	}
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

func (c *attempt) sentByUs(signal int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return signal > 0 && signal <= 64 && c.mu.signals&(1<<(signal-1)) != 0
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
	if l := c.connected(); l != nil && c.isOver() {
		_ = l.send(initwire.Done{}) // it ends by itself then, or with the container
	}
	err := c.r.remove(ctx, c.id)
	c.finish(errRemoved) // nothing begins after this, and what is parked is let go
	c.tasks.Wait()
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.mu.removed = true
	c.mu.Unlock()
	c.unfence(ctx)
	if err := c.home.remove(); err != nil {
		return fmt.Errorf("remove the directory of container %s: %w", short(c.id), err)
	}
	if c.berth != nil {
		c.r.parking.drop(c.berth.token)
	}
	return nil
}

// unfence has the fence forget a container that is gone. Where that fails the
// fence finds nothing to kill at the deadline.
func (c *attempt) unfence(ctx context.Context) {
	if c.r.cfg.Fence == nil || c.cgroup == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, fenceCall)
	defer cancel()
	if err := c.r.cfg.Fence.Remove(ctx, c.id); err != nil {
		c.log.Warn("the outer fence was not told that a container is gone", "container", short(c.id), "err", err)
	}
}
