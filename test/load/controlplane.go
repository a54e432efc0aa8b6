package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"ecs/internal/devcluster"
	"ecs/internal/task"
	"ecs/test/load/fleet"
)

// fleetCommand, as the first argument, makes this program the agents of the
// control plane's benchmark: they have a process of their own.
const fleetCommand = "fleet"

// controlPlane is what the control plane alone does: control nodes as processes
// with their log on disk, agents without containers.
type controlPlane struct {
	Agents int `json:"agents"`
	// Closed are runs with so many tasks in flight all the time.
	Closed []closedRun `json:"closed"`
	// CPU is what one task took of it in the runs with the most in flight, in
	// milliseconds: on a machine that others use too it says more than the rate.
	CPU cpuTimes `json:"cpu_ms_a_task"`
	// Idle is what the same take without any task, in percent of a core.
	Idle cpuTimes `json:"idle_cpu_percent"`
	// Half is at half the highest rate, whatever the answers take.
	Half openRun `json:"half"`
	// Plain is what Raft alone commits, entries instead of tasks.
	Plain []closedRun `json:"plain_raft,omitempty"`
}

type closedRun struct {
	InFlight int     `json:"in_flight"`
	Tasks    int     `json:"tasks"`
	PerSec   float64 `json:"per_second"` // the median of the repeats
	Lowest   float64 `json:"lowest"`
	Highest  float64 `json:"highest"`
	P50      float64 `json:"p50_ms"` // over all repeats, as P99
	P99      float64 `json:"p99_ms"`
	// Parts is where the time of a task went, in milliseconds, in the mean.
	Parts map[string]float64 `json:"parts_ms,omitempty"`
}

// taskEntries is how many commands a task commits that ends within half a second: it
// is submitted with its placement, and it ends.
const taskEntries = 2

type openRun struct {
	PerSec float64 `json:"per_second"`
	P50    float64 `json:"p50_ms"` // counted from when each task was due
	P90    float64 `json:"p90_ms"`
	P99    float64 `json:"p99_ms"`
}

type cpuTimes struct {
	Leader    float64 `json:"leader"`
	Followers float64 `json:"followers"` // together
	Agents    float64 `json:"agents"`
	Callers   float64 `json:"callers"`
}

// cpuMeter reads the CPU time of the processes that a task costs some of.
type cpuMeter struct {
	status *devcluster.Status
	agents int
}

func (m cpuMeter) read() (c cpuTimes) {
	for _, n := range m.status.Nodes {
		if n.Leader {
			c.Leader += cpuSeconds(n.PID)
		} else {
			c.Followers += cpuSeconds(n.PID)
		}
	}
	c.Agents, c.Callers = cpuSeconds(m.agents), cpuSeconds(os.Getpid())
	return c
}

// since shares the time since before out among tasks.
func (m cpuMeter) since(before cpuTimes, tasks int) cpuTimes {
	now, each := m.read(), 1000/float64(max(1, tasks))
	return cpuTimes{Leader: (now.Leader - before.Leader) * each, Followers: (now.Followers - before.Followers) * each,
		Agents: (now.Agents - before.Agents) * each, Callers: (now.Callers - before.Callers) * each}
}

// idle is what is taken of a core, in percent, while nothing is asked.
func (m cpuMeter) idle(ctx context.Context, span time.Duration) (cpuTimes, error) {
	before, began := m.read(), time.Now()
	select {
	case <-time.After(span):
	case <-ctx.Done():
		return cpuTimes{}, ctx.Err()
	}
	// A hundredth of a second a second is a percent.
	return m.since(before, int(10*time.Since(began).Seconds())), nil
}

func measureControlPlane(ctx context.Context, o options) (*controlPlane, error) {
	dir, err := os.MkdirTemp("", "ecs-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	status, err := devcluster.Up(ctx, devcluster.Options{Dir: filepath.Join(dir, "dev"), Agents: devcluster.NoAgents,
		HTTPPort: o.port + 100, Binaries: o.bin, Debug: true})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := devcluster.Down(context.WithoutCancel(ctx), status.Dir); err != nil {
			fmt.Fprintln(os.Stderr, "bench: end the control plane:", err)
		}
	}()
	agents, stop, err := startFleet(ctx, status, o)
	if err != nil {
		return nil, err
	}
	defer stop()
	meter := cpuMeter{status: status, agents: agents}
	if err := agentsReady(ctx, status, o.agents); err != nil {
		return nil, err
	}
	caller := newCaller(status.Endpoints, status.Key, status.Secret, fakeTask)
	defer caller.close()
	profiles := o.profile(status)
	result := &controlPlane{Agents: o.agents}
	if result.Idle, err = meter.idle(ctx, o.span); err != nil {
		return nil, err
	}
	if _, _, err := caller.closed(ctx, 64, o.warmup); err != nil {
		return nil, err
	}
	for _, inFlight := range o.inFlight {
		before := meter.read()
		run, err := closedRuns(ctx, caller, inFlight, o)
		if err != nil {
			return nil, err
		}
		result.CPU = meter.since(before, run.Tasks)
		result.Closed = append(result.Closed, run)
	}
	if err := profiles.take(ctx, caller); err != nil {
		return nil, err
	}
	best := slices.MaxFunc(result.Closed, func(a, b closedRun) int { return int(a.PerSec - b.PerSec) })
	result.Half.PerSec = best.PerSec / 2
	times, err := caller.open(ctx, result.Half.PerSec, o.span*time.Duration(o.repeats))
	if err != nil {
		return nil, err
	}
	result.Half.P50, result.Half.P90, result.Half.P99 = at(times, 0.5), at(times, 0.9), at(times, 0.99)
	return result, nil
}

func closedRuns(ctx context.Context, c *caller, inFlight int, o options) (closedRun, error) {
	run := closedRun{InFlight: inFlight}
	var rates, all []float64
	c.bill() // forget those before
	for range o.repeats {
		times, took, err := c.closed(ctx, inFlight, o.span)
		if err != nil {
			return run, err
		}
		rates = append(rates, float64(len(times))/took.Seconds())
		all = append(all, times...)
	}
	slices.Sort(rates)
	slices.Sort(all)
	n := len(rates)
	run.Lowest, run.PerSec, run.Highest = rates[0], (rates[(n-1)/2]+rates[n/2])/2, rates[n-1]
	run.Parts = c.bill()
	run.Tasks, run.P50, run.P99 = len(all), at(all, 0.5), at(all, 0.99)
	return run, nil
}

// memoryDir keeps the spools of 200 machines off the one disk that the control
// nodes write their log to.
const memoryDir = "/dev/shm"

// startFleet starts the agents' process; stop ends it and waits.
func startFleet(ctx context.Context, status *devcluster.Status, o options) (pid int, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, nil, err
	}
	cfg := fleet.Config{ClusterDir: status.Dir, Agents: o.agents, Zones: []string{"a", "b", "c"},
		Capacity: task.Capacity{MilliCPU: 4000, Memory: 8 << 30}, Debug: o.fleetDebug()}
	if info, err := os.Stat(memoryDir); err == nil && info.IsDir() {
		cfg.Dir = memoryDir
	}
	for _, n := range status.Nodes {
		cfg.Controls = append(cfg.Controls, n.RPC)
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		return 0, nil, err
	}
	cmd := exec.CommandContext(ctx, self, fleetCommand, string(text))
	cmd.Stderr = os.Stderr
	cmd.Env = os.Environ()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := devcluster.StartAmong(len(status.Nodes)+2, cmd); err != nil { // the agents, and this process
		return 0, nil, fmt.Errorf("start the agents: %w", err)
	}
	return cmd.Process.Pid, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it has ended if this fails
		_ = cmd.Wait()                          // how it ended is of no interest
	}, nil
}

// runFleet is that process.
func runFleet(ctx context.Context, text string) error {
	var cfg fleet.Config
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	return fleet.Run(ctx, cfg)
}

func agentsReady(ctx context.Context, status *devcluster.Status, want int) error {
	client, err := status.Client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		nodes, err := client.Nodes(ctx)
		if err != nil {
			return fmt.Errorf("wait for %d agents: %w", want, err)
		}
		ready := 0
		for _, n := range nodes {
			if n.Status == "ready" {
				ready++
			}
		}
		if ready == want {
			return nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%d of %d agents are ready", ready, want), ctx.Err())
		}
	}
}

func (c *controlPlane) print(w *strings.Builder) {
	fmt.Fprintf(w, "control plane alone: 3 control nodes, %d agents without containers; tasks that a majority has on disk\n\n", c.Agents)
	t := newTable(w, "in flight", "tasks/s", "lowest", "highest", "p50 ms", "p99 ms", "plain Raft's entries/s", "p50 ms", "p99 ms", "commands to plain")
	for i, r := range c.Closed {
		plain, ratio := "\t\t", ""
		if i < len(c.Plain) {
			p := c.Plain[i]
			plain = fmt.Sprintf("%.0f\t%.2f\t%.2f", p.PerSec, p.P50, p.P99)
			ratio = fmt.Sprintf("%.2f", taskEntries*r.PerSec/p.PerSec)
		}
		t.row("%d\t%.0f\t%.0f\t%.0f\t%.2f\t%.2f\t%s\t%s", r.InFlight, r.PerSec, r.Lowest, r.Highest, r.P50, r.P99, plain, ratio)
	}
	t.row("at half the highest\t%.0f\t\t\t%.2f\t%.2f\t\t\t\t", c.Half.PerSec, c.Half.P50, c.Half.P99)
	t.end()
	fmt.Fprintf(w, "idle, percent of a core: leader %.1f, followers %.1f, agents %.1f\n", c.Idle.Leader, c.Idle.Followers, c.Idle.Agents)
	for _, r := range c.Closed {
		fmt.Fprintf(w, "%d in flight, mean ms:", r.InFlight)
		for _, name := range slices.Sorted(maps.Keys(r.Parts)) {
			fmt.Fprintf(w, " %s %.1f", name, r.Parts[name])
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "CPU a task, ms: leader %.3f, followers %.3f, agents %.3f, callers %.3f\n\n",
		c.CPU.Leader, c.CPU.Followers, c.CPU.Agents, c.CPU.Callers)
}
