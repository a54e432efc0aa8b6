package docker

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ecs/agent/runtime"
	"ecs/internal/fence"
	"ecs/internal/initwire"
	"ecs/internal/task"
)

// berth is where a started container waits for its attempt. Its init has said
// Hello and was not answered, so it says nothing more until it ends; leases are
// told to it all the same.
type berth struct {
	token task.Token // what its labels say for ever
	line  *line
	gone  chan struct{} // closed when it can't be bound any more
	ended chan struct{} // closed when nobody listens any more
	lost  bool          // it has ended; read after ended

	mu     sync.Mutex
	used   bool // by a Bind, whatever came of it
	bound  bool // to an attempt
	isGone bool
	asked  bool // whoever listens is to make room for the attempt
}

// parked implements runtime.Parked.
type parked struct{ c *attempt }

// Park implements runtime.Runtime.
func (r *Runtime) Park(ctx context.Context, p runtime.Parking) (runtime.Parked, error) {
	if !fullID.MatchString(p.Shape.Image) {
		return nil, fmt.Errorf("park a container: image %q is not a full id", p.Shape.Image)
	}
	b := &berth{token: task.Token{Task: task.ID(parkedPrefix + strings.ToLower(rand.Text()))},
		gone: make(chan struct{}), ended: make(chan struct{})}
	r.parking.add(b.token) // before Reap can see it
	c, err := r.build(ctx, b.token, p.Shape)
	if err != nil {
		r.parking.drop(b.token)
		return nil, err
	}
	c.deadline = p.Deadline
	if err := c.park(ctx, b); err != nil {
		r.parking.drop(b.token) // what can't be removed here is Reap's
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), shortCall)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("park container %s: %w", short(c.id), err), c.Remove(undo))
	}
	return parked{c}, nil
}

// park starts the container and stays with its init.
func (c *attempt) park(ctx context.Context, b *berth) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	unwatch := context.AfterFunc(c.life, func() { cancel(context.Cause(c.life)) })
	defer unwatch()
	l, _, err := c.awake(ctx, true)
	if err != nil {
		return err
	}
	c.firstLease()
	if err := c.fence(ctx); err != nil {
		l.conn.Close()
		return err
	}
	b.line, c.berth = l, b
	go l.write()
	c.connect(l)
	l.renew(c.lease() - task.FenceAhead)
	c.spawn(func() { c.attend(b) })
	c.spawn(func() { // an engine that goes takes what is parked along, or has lost sight of it
		select {
		case n := <-c.exits:
			c.exits <- n
			b.drop()
		case <-b.ended:
		case <-c.life.Done():
		}
	})
	return nil
}

// attend listens to an init that has nothing to say until it ends, the attempt
// comes or the container's life is over.
func (c *attempt) attend(b *berth) {
	unwatch := context.AfterFunc(c.life, b.drop)
	defer unwatch()
	err := b.line.silence()
	b.mu.Lock()
	b.lost = err == nil || !b.asked
	lost := b.lost
	b.mu.Unlock()
	if lost {
		b.leave()
		c.mu.Lock()
		c.mu.line = nil
		c.mu.Unlock()
		b.line.close()
	}
	close(b.ended)
}

// leave says that it can't be bound any more.
func (b *berth) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.isGone {
		b.isGone = true
		close(b.gone)
	}
}

// drop ends the listening as if the init had ended.
func (b *berth) drop() {
	b.mu.Lock()
	asked := b.asked
	b.mu.Unlock()
	if !asked { // else the line is the attempt's
		_ = b.line.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// take gives the connection to the attempt, or nil when it is lost.
func (b *berth) take() *line {
	b.mu.Lock()
	b.asked = true
	b.mu.Unlock()
	_ = b.line.conn.SetReadDeadline(time.Unix(1, 0))
	<-b.ended
	if b.lost || b.line.conn.SetReadDeadline(time.Time{}) != nil {
		return nil
	}
	return b.line
}

// silence blocks while the other end says nothing, and takes nothing from what
// it says. nil: there is something to read, or the end.
func (l *line) silence() error {
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool { return !isSilent(int(fd)) })
}

// isSilent reports whether the other end is there and says nothing.
func isSilent(fd int) bool {
	var one [1]byte
	for {
		_, _, err := unix.Recvfrom(fd, one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err != syscall.EINTR {
			return err == syscall.EAGAIN
		}
	}
}

// alive reports whether an init that was not answered is still there. Its end
// shows at once: the kernel closes its connection.
func (l *line) alive() bool {
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return false
	}
	silent := false
	err = raw.Control(func(fd uintptr) { silent = isSilent(int(fd)) })
	return err == nil && silent
}

// Gone implements runtime.Parked.
func (p parked) Gone() <-chan struct{} { return p.c.berth.gone }

// Renew implements runtime.Parked.
func (p parked) Renew(end time.Duration) { p.c.Renew(end) }

// Remove implements runtime.Parked.
func (p parked) Remove(ctx context.Context) error {
	b := p.c.berth
	b.mu.Lock()
	bound := b.bound
	b.used = true
	b.mu.Unlock()
	if bound {
		return nil
	}
	b.leave()
	p.c.r.parking.drop(b.token) // from here on it is Reap's too
	return p.c.Remove(ctx)
}

// Bind implements runtime.Parked.
func (p parked) Bind(ctx context.Context, o runtime.Order) (runtime.Container, error) {
	c, b := p.c, p.c.berth
	// What is wrong with the order is no matter of the container's.
	if f := refuse(o); f != nil {
		return nil, f
	}
	order, err := c.r.initOrder(ctx, o)
	if f := new(runtime.Failure); errors.As(err, &f) {
		return nil, f
	}
	usable, first := b.use()
	if err == nil && !usable {
		err = runtime.ErrSpent
	}
	var moved home
	if err == nil { // nobody else may touch it any more
		moved, err = c.r.homes.rename(c.home, o.Token)
	}
	if err != nil {
		if first {
			c.r.parking.drop(b.token) // from here on it is Reap's too
		}
		return nil, fmt.Errorf("bind container %s: %w", short(c.id), err)
	}
	c.home = moved
	c.assign(o, order)
	c.r.parking.bind(b.token, o.Token)
	b.mu.Lock()
	b.bound = true
	b.mu.Unlock()
	return c, nil
}

// isBound reports whether it waits for an attempt that is known.
func (b *berth) isBound() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bound
}

// use reports whether the container may be bound now, and to nobody after this.
// first: no Bind and no Remove came before.
func (b *berth) use() (usable, first bool) {
	b.mu.Lock()
	first = !b.used
	usable = first && !b.isGone
	b.used = true
	b.mu.Unlock()
	b.leave()
	return usable, first
}

// refence has the fence confirm the end of the attempt's lease, where it has not:
// it knows that of the node's, of some time ago.
func (c *attempt) refence(ctx context.Context) error {
	if c.r.cfg.Fence == nil || c.lease()-task.OuterFenceAhead <= c.fenced && c.r.cfg.Fence.Healthy() == nil {
		return nil
	}
	err := c.fence(ctx)
	if errors.Is(err, fence.ErrEnded) {
		return errors.Join(runtime.ErrSpent, err)
	}
	return err
}

// startParked goes on where park stopped. Until init has the order, every way
// out leaves it without one, and it never gets another.
func (c *attempt) startParked(ctx context.Context) (phase, error) {
	l := c.berth.take()
	if l == nil {
		return unsure, runtime.ErrSpent
	}
	c.firstLease()
	fenced := make(chan error, 1)
	go func() { fenced <- c.refence(ctx) }() // it mostly waits for another process
	err := c.writeDown()
	c.countOOMKills()
	if refused := <-fenced; refused != nil {
		err = refused
	}
	if err == nil {
		err = c.allowed(ctx)
	}
	// Asked last: an end that comes after this is the attempt's.
	if err == nil && (!l.alive() || l.resume(ctx, initwire.Position{}, c.finalOrder()) != nil) {
		err = cmp.Or(context.Cause(ctx), runtime.ErrSpent)
	}
	if err != nil {
		c.connect(nil)
		l.close()
		return unsure, err
	}
	return running, c.begin(ctx, l)
}
