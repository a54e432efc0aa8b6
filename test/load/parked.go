package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/docker/client"

	"ecs/internal/devcluster"
	"ecs/test/images"
)

const (
	// parkedTogether is how many containers one agent parks to be looked at.
	parkedTogether = 50
	// parkedWithin is how long that may take: they start one after the other.
	parkedWithin = 4 * time.Minute
)

// parked is what containers that wait for a task cost, and the agent that keeps
// them. Memory is the mean of one container, CPU that of all of them together in
// percent of a core.
type parked struct {
	Containers int `json:"containers"`
	// InitMiB is the proportional set size of both processes inside, ShimMiB that
	// of the engine's process beside them.
	InitMiB float64 `json:"init_mib"`
	ShimMiB float64 `json:"shim_mib"`
	// KernelMiB is what the kernel holds for its cgroup.
	KernelMiB float64 `json:"kernel_mib"`
	// EngineMiB is by how much dockerd and containerd grew for it.
	EngineMiB float64 `json:"engine_mib"`
	InitCPU   float64 `json:"init_cpu_percent"`
	ShimCPU   float64 `json:"shim_cpu_percent"`
	Agent     keeper  `json:"agent"`
	Fence     keeper  `json:"fence"`
	Engine    keeper  `json:"engine"`
}

// keeper is a process that is there once for all containers.
type keeper struct {
	ResidentMiB float64 `json:"resident_mib"`
	PeakMiB     float64 `json:"peak_mib"`    // since it started
	CPUPercent  float64 `json:"cpu_percent"` // of a core
}

// measureParked has one agent park as many as are asked for and looks at them while
// nothing else is asked.
func measureParked(ctx context.Context, o options, rep *report, engine *client.Client) error {
	dir, err := os.MkdirTemp("", "ecs-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := up(ctx, dir, engine, devcluster.Options{HTTPPort: o.port, Binaries: o.bin, Agents: 1, WarmCount: parkedTogether})
	if err != nil {
		return err
	}
	defer c.down(ctx)
	calls, err := c.Client()
	if err != nil {
		return err
	}
	defer calls.Close()
	if err := pause(ctx, o.idleFor); err != nil { // what starting took is given back
		return err
	}
	before := engineMiB()
	if _, err := calls.Warm(ctx, images.Busybox, parkedTogether); err != nil {
		return fmt.Errorf("wish for containers: %w", err)
	}
	c.pool.size = parkedTogether
	if err := c.filled(ctx, parkedWithin); err != nil {
		return err
	}
	rep.Parked, err = c.watchParked(ctx, before, o.idleFor)
	return err
}

// watchParked looks at everything that is parked now.
func (c *cluster) watchParked(ctx context.Context, before float64, d time.Duration) (*parked, error) {
	p := &parked{Containers: len(c.pool.seen)}
	share := 1 / float64(p.Containers)
	var insides, shims []int
	for id := range c.pool.seen {
		found, err := c.engine.ContainerInspect(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("look at a parked container: %w", err)
		}
		init := found.State.Pid
		shim := parentOf(init)
		inside := append(childrenOf(init), init)
		for _, pid := range inside {
			p.InitMiB += proportionalMiB(pid) * share
		}
		p.ShimMiB += proportionalMiB(shim) * share
		p.KernelMiB += kernelMiB(id) * share
		insides, shims = append(insides, inside...), append(shims, shim)
	}
	if err := pause(ctx, d); err != nil { // what parking took is given back
		return nil, err
	}
	p.EngineMiB = (engineMiB() - before) * share
	keepers := c.keepers(&p.Agent, &p.Fence, &p.Engine)
	began, inits, beside := time.Now(), ranFor(insides...), ranFor(shims...)
	for pid, k := range keepers {
		k.CPUPercent = -ranFor(pid).Seconds()
	}
	if err := pause(ctx, d); err != nil {
		return nil, err
	}
	percent := 100 / time.Since(began).Seconds()
	p.InitCPU = (ranFor(insides...) - inits).Seconds() * percent
	p.ShimCPU = (ranFor(shims...) - beside).Seconds() * percent
	for pid, k := range keepers {
		k.CPUPercent = (k.CPUPercent + ranFor(pid).Seconds()) * percent
		k.ResidentMiB = residentMiB(pid)
		k.PeakMiB = field(fmt.Sprintf("/proc/%d/status", pid), "VmHWM: %f kB") / 1024
	}
	return p, nil
}

// keepers finds the processes; that of an engine on another machine is not found.
func (c *cluster) keepers(agent, fence, engine *keeper) map[int]*keeper {
	found := map[int]*keeper{}
	for _, n := range c.Nodes {
		if n.Role == "agent" {
			found[n.PID], found[n.FencePID] = agent, fence
		}
	}
	found[enginePID()] = engine
	delete(found, 0)
	return found
}

// sumMiB is what one costs all told.
func (p *parked) sumMiB() float64 { return p.InitMiB + p.ShimMiB + p.KernelMiB + p.EngineMiB }

func (p *parked) print(w *strings.Builder) {
	t := newTable(w, "a parked container", "its init MiB", "the engine's shim MiB", "kernel MiB", "engine MiB", "sum MiB")
	t.row("mean of %d\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f", p.Containers, p.InitMiB, p.ShimMiB, p.KernelMiB, p.EngineMiB, p.sumMiB())
	t.end()
	fmt.Fprintf(w, "all of them, percent of a core: inits %.2f, shims %.2f\n\n", p.InitCPU, p.ShimCPU)
	t = newTable(w, "with them", "resident MiB", "peak MiB", "CPU % of a core")
	t.row("agent\t%.1f\t%.1f\t%.2f", p.Agent.ResidentMiB, p.Agent.PeakMiB, p.Agent.CPUPercent)
	t.row("fence\t%.1f\t%.1f\t%.2f", p.Fence.ResidentMiB, p.Fence.PeakMiB, p.Fence.CPUPercent)
	t.row("engine\t%.1f\t%.1f\t%.2f", p.Engine.ResidentMiB, p.Engine.PeakMiB, p.Engine.CPUPercent)
	t.end()
}

// proportionalMiB shares out among processes what they share; 0 where it can't
// be read.
func proportionalMiB(pid int) float64 {
	return field(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss: %f kB") / 1024
}

// enginePID is 0 where the engine is on another machine.
func enginePID() int { return int(field("/var/run/docker.pid", "%f")) }

// engineMiB is what dockerd and its containerd hold.
func engineMiB() (sum float64) {
	for _, pid := range append(childrenOf(enginePID()), enginePID()) {
		sum += residentMiB(pid)
	}
	return sum
}

func parentOf(pid int) int { return int(field(fmt.Sprintf("/proc/%d/status", pid), "PPid: %f")) }

func childrenOf(pid int) (children []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is good
	for _, file := range files {
		text, _ := os.ReadFile(file) // it may have ended
		for _, one := range strings.Fields(string(text)) {
			var child int
			if n, _ := fmt.Sscan(one, &child); n == 1 {
				children = append(children, child)
			}
		}
	}
	return children
}

// ranFor is how long all threads of these processes that live have run, to the
// nanosecond.
func ranFor(pids ...int) (sum time.Duration) {
	for _, pid := range pids {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid)) // the pattern is good
		for _, file := range files {
			sum += time.Duration(field(file, "%f"))
		}
	}
	return sum
}

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
