package main

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/docker/docker/api/types/container"

	"ecs/test/images"
)

const (
	// warmEach is how many containers each agent may start ahead: one task after
	// the other finds one on whatever node it is placed.
	warmEach = 4
	// fullWithin is how long a pool may take to fill up.
	fullWithin = 60 * time.Second
	lookAgain  = 10 * time.Millisecond
)

// pool is what is parked in a cluster.
type pool struct {
	size int             // when it is full
	seen map[string]bool // the containers when it was full last
	used bool            // a task has taken one since
}

// prime has every agent park as many as it may, until the cluster ends: what demand
// alone parks fades while other ways have their turns.
func (c *cluster) prime(ctx context.Context) error {
	for _, n := range c.Nodes {
		if n.Role == "agent" {
			c.pool.size += warmEach
		}
	}
	calls, err := c.Client()
	if err != nil {
		return err
	}
	defer calls.Close()
	if _, err := calls.Warm(ctx, images.Busybox, c.pool.size); err != nil {
		return fmt.Errorf("fill the pool: %w", err)
	}
	return c.full(ctx)
}

// full returns once the pool is as it was before the last task took from it:
// that container is removed and another parked in its place.
func (c *cluster) full(ctx context.Context) error {
	return c.filled(ctx, fullWithin)
}

func (c *cluster) filled(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		now, others, err := c.look(ctx)
		if err != nil {
			return err
		}
		if len(now) == c.pool.size && others == 0 && (!c.pool.used || !maps.Equal(now, c.pool.seen)) {
			c.pool.seen, c.pool.used = now, false
			return nil
		}
		if err := pause(ctx, lookAgain); err != nil {
			return fmt.Errorf("%d containers are parked, with %d others; want %d alone: %w", len(now), others, c.pool.size, err)
		}
	}
}

// look gives the containers that run and wait for a task, or were parked for the
// one that they ran and are not removed yet, and counts all others.
func (c *cluster) look(ctx context.Context) (parked map[string]bool, others int, err error) {
	list, err := c.engine.ContainerList(ctx, container.ListOptions{All: true, Filters: c.ours()})
	if err != nil {
		return nil, 0, fmt.Errorf("look at what is parked: %w", err)
	}
	parked = map[string]bool{}
	for _, found := range list {
		if found.Labels["ecs.parked"] != "" && found.State == container.StateRunning {
			parked[found.ID] = true
		} else {
			others++
		}
	}
	return parked, others, nil
}

// warmWays find the pool full each time.
func (c *cluster) warmWays() []way {
	ways := []way{
		c.leader.way("ECS warm, through the leader", nil),
		c.follower.way("ECS warm, through a follower", nil),
	}
	for i := range ways {
		do, told := ways[i].do, ways[i].told
		ways[i].ready = c.full
		ways[i].do = func(ctx context.Context) error {
			err := do(ctx)
			c.pool.used = told().Warm == "hit"
			return err
		}
	}
	return ways
}
