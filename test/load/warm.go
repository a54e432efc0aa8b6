package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
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

// prime asks for the task until every agent has parked as many as it may.
func (c *cluster) prime(ctx context.Context) error {
	for _, n := range c.Nodes {
		if n.Role == "agent" {
			c.pool.size += warmEach
		}
	}
	ctx, cancel := context.WithTimeout(ctx, fullWithin)
	defer cancel()
	for range 2 { // for a shape that was asked for once nothing is parked
		if err := c.askTogether(ctx, 2*c.pool.size); err != nil {
			return fmt.Errorf("fill the pool: %w", err)
		}
	}
	return c.full(ctx)
}

// askTogether runs so many tasks at once, through all control nodes.
func (c *cluster) askTogether(ctx context.Context, n int) error {
	var all sync.WaitGroup
	failed := make([]error, n)
	for i := range n {
		all.Go(func() { failed[i] = c.all.one(ctx) })
	}
	all.Wait()
	return errors.Join(failed...)
}

// full returns once the pool is as it was before the last task took from it:
// that container is removed and another parked in its place.
func (c *cluster) full(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fullWithin)
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

// parked is what one container that waits for a task costs.
type parked struct {
	Containers int `json:"containers"`
	// InitMiB and ShimMiB are the proportional set sizes of its first process and
	// of the engine's process beside it.
	InitMiB float64 `json:"init_mib"`
	ShimMiB float64 `json:"shim_mib"`
	// KernelMiB is what the kernel holds for its cgroup.
	KernelMiB float64 `json:"kernel_mib"`
}

// measureParked looks at everything that is parked now.
func (c *cluster) measureParked(ctx context.Context) (*parked, error) {
	if err := c.full(ctx); err != nil {
		return nil, err
	}
	p := &parked{Containers: len(c.pool.seen)}
	for id := range c.pool.seen {
		found, err := c.engine.ContainerInspect(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("look at a parked container: %w", err)
		}
		pid := found.State.Pid
		share := 1 / float64(p.Containers)
		p.InitMiB += proportionalMiB(pid) * share
		p.ShimMiB += proportionalMiB(parentOf(pid)) * share
		p.KernelMiB += kernelMiB(id) * share
	}
	return p, nil
}

func (p *parked) print(w *strings.Builder) {
	t := newTable(w, "a parked container", "its init MiB", "the engine's shim MiB", "kernel MiB", "sum MiB")
	t.row("mean of %d\t%.1f\t%.1f\t%.1f\t%.1f", p.Containers, p.InitMiB, p.ShimMiB, p.KernelMiB, p.InitMiB+p.ShimMiB+p.KernelMiB)
	t.end()
}

// proportionalMiB shares out among processes what they share; 0 where it can't
// be read.
func proportionalMiB(pid int) float64 {
	return field(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss: %f kB") / 1024
}

func parentOf(pid int) int { return int(field(fmt.Sprintf("/proc/%d/status", pid), "PPid: %f")) }

func kernelMiB(id string) float64 {
	if v1 := field("/sys/fs/cgroup/memory/docker/"+id+"/memory.kmem.usage_in_bytes", "%f"); v1 > 0 {
		return v1 / (1 << 20)
	}
	return field("/sys/fs/cgroup/system.slice/docker-"+id+".scope/memory.stat", "kernel %f") / (1 << 20)
}

// field finds the first line of a file that a pattern fits.
func field(file, pattern string) (value float64) {
	f, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if n, _ := fmt.Sscanf(lines.Text(), pattern, &value); n == 1 {
			return value
		}
	}
	return 0
}
