package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"ecs/internal/devcluster"
	"ecs/test/images"
)

// cluster is a dev cluster of 3 and 3 on this machine, with real containers.
type cluster struct {
	*devcluster.Status
	engine           *client.Client
	leader, follower *caller
	all              *caller
	pool             pool
}

func up(ctx context.Context, dir string, engine *client.Client, o devcluster.Options) (*cluster, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	o.Dir = filepath.Join(dir, "dev")
	status, err := devcluster.Up(ctx, o)
	if err != nil {
		return nil, err
	}
	c := &cluster{Status: status, engine: engine, all: busybox(status, status.Endpoints...)}
	for _, n := range status.Nodes {
		switch {
		case n.Role == "control" && n.Leader:
			c.leader = busybox(status, n.HTTP)
		case n.Role == "control":
			c.follower = busybox(status, n.HTTP)
		}
	}
	if c.leader == nil || c.follower == nil {
		c.down(ctx)
		return nil, fmt.Errorf("no leader or no follower in %+v", status.Nodes)
	}
	return c, nil
}

func busybox(status *devcluster.Status, endpoints ...string) *caller {
	return newCaller(endpoints, status.Key, status.Secret, `{"image":"`+images.Busybox+`","command":["echo","hi"]}`)
}

func (c *cluster) down(ctx context.Context) {
	for _, calls := range []*caller{c.leader, c.follower, c.all} {
		if calls != nil {
			calls.close()
		}
	}
	if err := devcluster.Down(context.WithoutCancel(ctx), c.Dir); err != nil {
		warn("end the cluster: %v", err)
	}
}

// ways are how the benchmarks run a task here. More may be added: whatever is in
// the list is a row of every table.
func (c *cluster) ways(ctx context.Context) []way {
	wait := c.removed(ctx)
	return []way{
		c.leader.way("ECS cold, through the leader", wait),
		c.follower.way("ECS cold, through a follower", wait),
	}
}

// way runs a task through the caller.
func (c *caller) way(name string, wait func()) way {
	var last answer
	return way{name: name, wait: wait, told: func() answer { return last }, do: func(ctx context.Context) (err error) {
		last, err = c.ask(ctx)
		return err
	}}
}

// removed waits until no container of the agents is left.
func (c *cluster) removed(ctx context.Context) func() {
	return func() {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		for {
			left, err := c.engine.ContainerList(ctx, container.ListOptions{All: true, Filters: c.ours()})
			if err == nil && len(left) == 0 || ctx.Err() != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// ours selects the agents' containers.
func (c *cluster) ours() filters.Args {
	return filters.NewArgs(filters.Arg("label", "ecs.cluster="+c.Cluster))
}
