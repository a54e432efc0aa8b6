package fake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

// view is one agent's engine, in one life of that agent.
type view struct {
	e       *Engine
	node    string
	process *process
}

// call is one call to the engine: it takes its time and may fail. That of a dead
// process never returns by itself.
func (v view) call(ctx context.Context, takes time.Duration) error {
	err := sleep(ctx, takes)
	if v.dead() {
		<-ctx.Done()
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	return v.e.mu.down
}

func (v view) dead() bool {
	select {
	case <-v.process.dead:
		return true
	default:
		return false
	}
}

func (v view) Probe(ctx context.Context) (runtime.Engine, error) {
	if err := v.call(ctx, 0); err != nil {
		return runtime.Engine{}, err
	}
	return runtime.Engine{Description: "fake engine", Version: "1", APIVersion: "1", MilliCPU: 64_000, Memory: 64 << 30, Egress: true}, nil
}

func (v view) Create(ctx context.Context, o runtime.Order) (runtime.Container, error) {
	if err := v.call(ctx, v.e.delays().create); err != nil {
		return nil, fmt.Errorf("create container: %w", err)
	}
	if len(o.Spec.Entrypoint)+len(o.Spec.Command) == 0 {
		return nil, startFailed("no command specified")
	}
	key := name{o.Token.Task, o.Token.Attempt}
	h := &handle{view: v, container: newContainer(ctx, v, o), may: o.May, deadline: o.Deadline}
	for {
		v.e.mu.Lock()
		left := v.e.mu.containers[key]
		if left == nil {
			v.e.mu.containers[key] = h.container
			v.e.mu.Unlock()
			return h, nil
		}
		v.e.mu.Unlock()
		if left.node != v.node {
			return nil, fmt.Errorf("create container: one of that name belongs to node %s", left.node)
		}
		if err := v.handle(left).Remove(ctx); err != nil {
			return nil, fmt.Errorf("create container: replace the one that is there: %w", err)
		}
	}
}

func (v view) Adopt(ctx context.Context, a runtime.Adoption) (runtime.Container, error) {
	if err := v.call(ctx, 0); err != nil {
		return nil, fmt.Errorf("adopt container: %w", err)
	}
	c := v.e.find(a.Token)
	if c == nil || c.node != v.node || c.tok != a.Token || !c.begun() {
		return nil, fmt.Errorf("adopt container: %w", runtime.ErrGone)
	}
	if a.Deadline != nil {
		c.renew(a.Deadline())
	}
	err := errors.Join(c.streams[0].attach(a.Output.Stdout, a.Stdout), c.streams[1].attach(a.Output.Stderr, a.Stderr))
	if err != nil {
		return nil, fmt.Errorf("adopt container: %w", err)
	}
	return v.handle(c), nil
}

func (v view) Reap(ctx context.Context, keep func(task.Token) bool) (int, error) {
	if err := v.call(ctx, 0); err != nil {
		return 0, fmt.Errorf("list containers: %w", err)
	}
	v.e.mu.Lock()
	var unclaimed []*container
	for _, c := range v.e.mu.containers {
		if c.node == v.node && !keep(c.tok) && !c.parkedBy(v.process) {
			unclaimed = append(unclaimed, c)
		}
	}
	v.e.mu.Unlock()
	slices.SortFunc(unclaimed, func(a, b *container) int { return compare(a.tok, b.tok) })
	var errs []error
	for _, c := range unclaimed {
		errs = append(errs, v.handle(c).Remove(ctx))
	}
	return len(unclaimed), errors.Join(errs...)
}

func (v view) handle(c *container) *handle { return &handle{view: v, container: c} }
