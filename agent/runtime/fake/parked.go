package fake

import (
	"context"
	"fmt"
	"sync"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

// berth is where a container waits for its attempt.
type berth struct {
	gone chan struct{} // closed when it can't be bound any more
	by   *process      // whose it is while it is parked; guarded by the engine's lock

	mu    sync.Mutex
	left  bool // gone is closed
	used  bool // by a Bind, whatever came of it
	bound bool // to an attempt
	dead  bool
	lease time.Duration
	fence *time.Timer // of the lease; nil: none
}

// parked implements runtime.Parked in one life of its agent.
type parked struct {
	view
	c *container
}

func (v view) Park(ctx context.Context, p runtime.Parking) (runtime.Parked, error) {
	d := v.e.delays()
	if err := v.call(ctx, d.create+d.start); err != nil {
		return nil, fmt.Errorf("park a container: %w", err)
	}
	c := newContainer(ctx, v, runtime.Order{})
	c.tok = task.Token{Task: task.ID(fmt.Sprintf("parked-%d", c.number))}
	c.berth = &berth{gone: make(chan struct{}), by: v.process}
	v.e.mu.Lock()
	v.e.mu.containers[name{task: c.tok.Task}] = c
	v.e.mu.Unlock()
	if p.Deadline != nil {
		c.berth.renew(v.e, p.Deadline())
	}
	return parked{v, c}, nil
}

// parkedBy reports whether the container waits in that life of its agent. The
// engine's lock is held.
func (c *container) parkedBy(p *process) bool { return c.berth != nil && p != nil && c.berth.by == p }

func (b *berth) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leaveLocked()
}

func (b *berth) leaveLocked() {
	if !b.left {
		b.left = true
		close(b.gone)
	}
	if b.fence != nil {
		b.fence.Stop()
	}
}

// end is its end from outside. An attempt that begins finds it dead.
func (b *berth) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dead = true
	b.leaveLocked()
}

func (b *berth) alive() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.dead
}

// renew moves the lease's end; the container ends ahead of it by itself.
func (b *berth) renew(e *Engine, end time.Duration) {
	now := e.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if end <= b.lease || b.left {
		return
	}
	if b.lease = end; b.fence != nil {
		b.fence.Stop()
	}
	b.fence = time.AfterFunc(end-task.FenceAhead-now, func() {
		b.mu.Lock()
		lapsed := b.lease == end && !b.left
		b.mu.Unlock()
		if lapsed {
			b.end()
		}
	})
}

// Gone implements runtime.Parked.
func (p parked) Gone() <-chan struct{} { return p.c.berth.gone }

// Renew implements runtime.Parked.
func (p parked) Renew(end time.Duration) {
	if !p.dead() {
		p.c.berth.renew(p.e, end)
	}
}

// Bind implements runtime.Parked.
func (p parked) Bind(ctx context.Context, o runtime.Order) (runtime.Container, error) {
	c, b := p.c, p.c.berth
	if len(o.Spec.Entrypoint)+len(o.Spec.Command) == 0 {
		return nil, startFailed("no command specified")
	}
	b.mu.Lock()
	usable := !b.used && !b.left
	b.used = true
	b.leaveLocked()
	b.mu.Unlock()
	if !usable {
		return nil, fmt.Errorf("bind container: %w", runtime.ErrSpent)
	}
	if p.dead() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	p.e.mu.Lock()
	defer p.e.mu.Unlock()
	if key := (name{task: c.tok.Task}); p.e.mu.containers[key] != c {
		return nil, fmt.Errorf("bind container: %w", runtime.ErrSpent)
	} else {
		delete(p.e.mu.containers, key)
	}
	c.tok, c.spec, c.input = o.Token, o.Spec, newInput(o.Spec)
	c.streams = [2]*stream{newStream(o.Output.Stdout), newStream(o.Output.Stderr)}
	p.e.mu.containers[name{c.tok.Task, c.tok.Attempt}] = c
	b.by = nil
	b.mu.Lock()
	b.bound = true
	b.mu.Unlock()
	return &handle{view: p.view, container: c, may: o.May, deadline: o.Deadline}, nil
}

// Remove implements runtime.Parked.
func (p parked) Remove(ctx context.Context) error {
	b := p.c.berth
	b.mu.Lock()
	bound := b.bound
	b.used = true
	b.leaveLocked()
	b.mu.Unlock()
	if bound {
		return nil
	}
	p.e.mu.Lock()
	b.by = nil // from here on it is Reap's too
	p.e.mu.Unlock()
	return p.handle(p.c).Remove(ctx)
}

// Parked is how many containers of the node wait for an attempt.
func (e *Engine) Parked(node string) int { return len(e.waiting(node)) }

// StrikeParked ends all parked containers of the node as somebody else with
// access to the engine may, also those that were bound and have not begun.
func (e *Engine) StrikeParked(node string) {
	for _, c := range e.waiting(node) {
		c.berth.end()
	}
}

func (e *Engine) waiting(node string) (found []*container) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.mu.containers {
		if c.node == node && c.berth != nil && !c.begun() {
			found = append(found, c)
		}
	}
	return found
}
