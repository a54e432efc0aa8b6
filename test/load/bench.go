// Command load measures ECS beside the raw Docker Engine in one run and prints
// the ratios. `make bench` calls it on an idle machine.
//
// The raw sequence is what a careful program does itself: create, attach,
// start, wait, remove. ECS does the same and more for one HTTP call; what it
// adds is what this measures.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/docker/client"

	"ecs/proto/api"
	"ecs/test/images"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// report is what one run found.
type report struct {
	Machine string             `json:"machine"`
	Engine  string             `json:"engine"`
	Rounds  int                `json:"rounds"`
	Rows    []row              `json:"rows"`
	Idle    []idle             `json:"idle"`
	Ratios  map[string]float64 `json:"ratios"`
}

// row is one way to run the same command, in milliseconds.
type row struct {
	Name          string
	P50, P90, P99 float64
}

// idle is what an idle process costs.
type idle struct {
	Process     string  `json:"process"`
	ResidentMiB float64 `json:"resident_mib"`
	CPUPercent  float64 `json:"cpu_percent"`
}

func run(ctx context.Context) error {
	rounds := flag.Int("rounds", 60, "measured rounds; every way runs once a round")
	bin := flag.String("bin", "bin", "directory of the built binaries")
	out := flag.String("json", "", "also write the report as JSON to this file")
	idleFor := flag.Duration("idle", 20*time.Second, "how long idle processes are watched")
	flag.Parse()

	engine, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	defer engine.Close()
	if err := images.Ensure(ctx, engine); err != nil {
		return fmt.Errorf("make the images: %w", err)
	}
	dir, err := os.MkdirTemp("", "ecs-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := up(ctx, *bin, filepath.Join(dir, "dev"))
	if err != nil {
		return err
	}
	defer c.down()

	info, err := engine.Info(ctx)
	if err != nil {
		return fmt.Errorf("ask the engine: %w", err)
	}
	rep := report{Machine: fmt.Sprintf("%d cores, %d GiB, %s", info.NCPU, info.MemTotal>>30, info.KernelVersion),
		Engine: "Docker " + info.ServerVersion, Rounds: *rounds, Ratios: map[string]float64{}}
	ways := []way{
		{"raw engine sequence", func(ctx context.Context) error { return rawSequence(ctx, engine) }},
		{"ecs, through the leader", func(ctx context.Context) error { return c.task(ctx, c.leader) }},
		{"ecs, through a follower", func(ctx context.Context) error { return c.task(ctx, c.follower) }},
	}
	if rep.Rows, err = measure(ctx, ways, *rounds); err != nil {
		return err
	}
	for i, r := range rep.Rows[1:] {
		rep.Ratios[ways[i+1].name] = r.P50 / rep.Rows[0].P50
	}
	if rep.Idle, err = c.idle(ctx, *idleFor); err != nil {
		return err
	}
	rep.print(os.Stdout)
	if *out != "" {
		text, err := json.MarshalIndent(rep, "", "  ")
		if err != nil {
			return err
		}
		return os.WriteFile(*out, append(text, '\n'), 0o644)
	}
	return nil
}

// way is one way to run the command.
type way struct {
	name string
	do   func(context.Context) error
}

// measure runs every way once a round, so that all see the same machine. The
// first rounds warm up and do not count.
func measure(ctx context.Context, ways []way, rounds int) ([]row, error) {
	const warmup = 5
	took := make([][]float64, len(ways))
	for round := range warmup + rounds {
		for i, w := range ways {
			start := time.Now()
			if err := w.do(ctx); err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			if round >= warmup {
				took[i] = append(took[i], float64(time.Since(start).Microseconds())/1000)
			}
		}
	}
	rows := make([]row, len(ways))
	for i, w := range ways {
		slices.Sort(took[i])
		at := func(q float64) float64 { return took[i][int(q*float64(len(took[i])-1))] }
		rows[i] = row{Name: w.name, P50: at(0.5), P90: at(0.9), P99: at(0.99)}
	}
	return rows, nil
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "busybox `echo hi`, one at a time, %d rounds; %s; %s\n\n", r.Rounds, r.Machine, r.Engine)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tp50 ms\tp90 ms\tp99 ms\tp50 to raw\tadded at p50 ms\t")
	raw := r.Rows[0]
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%.1f\t%.3f\t%+.1f\t\n", row.Name, row.P50, row.P90, row.P99, row.P50/raw.P50, row.P50-raw.P50)
	}
	t.Flush()
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "idle\tresident MiB\tCPU % of a core\t")
	for _, i := range r.Idle {
		fmt.Fprintf(t, "%s\t%.1f\t%.2f\t\n", i.Process, i.ResidentMiB, i.CPUPercent)
	}
	t.Flush()
}

// cluster is a dev cluster of 3 and 3 on this machine.
type cluster struct {
	bin, dir         string
	Key, Secret      string
	Endpoints        []string
	Nodes            []node
	leader, follower string
}

type node struct {
	Name, Role, HTTP string
	PID              int
	Leader           bool
}

func up(ctx context.Context, bin, dir string) (*cluster, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "ecsctl"), "dev", "up", "--json", "--dir", dir, "--http-port", "18448")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("dev up: %w\n%s", err, stderr.String())
	}
	c := &cluster{bin: bin, dir: dir}
	if err := json.Unmarshal(stdout.Bytes(), c); err != nil {
		return nil, fmt.Errorf("dev up answered %s: %w", stdout.String(), err)
	}
	for _, n := range c.Nodes {
		switch {
		case n.Role == "control" && n.Leader:
			c.leader = n.HTTP
		case n.Role == "control":
			c.follower = n.HTTP
		}
	}
	if c.leader == "" || c.follower == "" {
		return nil, fmt.Errorf("no leader or no follower in %+v", c.Nodes)
	}
	return c, nil
}

func (c *cluster) down() {
	if out, err := exec.Command(filepath.Join(c.bin, "ecsctl"), "dev", "down", "--dir", c.dir).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: dev down: %v\n%s", err, out)
	}
}

// task runs the command through one node and waits for the answer.
func (c *cluster) task(ctx context.Context, endpoint string) error {
	body := `{"image":"` + images.Busybox + `","command":["echo","hi"]}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint+"/v2/tasks?wait=60s", strings.NewReader(body))
	if err != nil {
		return err
	}
	req.SetBasicAuth(c.Key, c.Secret)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var t api.Task
	if err := json.NewDecoder(resp.Body).Decode(&t); err != nil {
		return fmt.Errorf("status %d: %w", resp.StatusCode, err)
	}
	if t.Outcome != api.OutcomeExited || t.Stdout == nil || t.Stdout.Data != "hi\n" {
		return fmt.Errorf("status %d, outcome %q %s", resp.StatusCode, t.Outcome, t.Reason)
	}
	return nil
}

// idle watches every process for a while with nothing to do.
func (c *cluster) idle(ctx context.Context, d time.Duration) ([]idle, error) {
	select {
	case <-time.After(3 * time.Second): // removals end
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	before := make([]float64, len(c.Nodes))
	for i, n := range c.Nodes {
		before[i] = cpuSeconds(n.PID)
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var all []idle
	for i, n := range c.Nodes {
		all = append(all, idle{Process: "ecs-" + n.Role + " " + n.Name, ResidentMiB: residentMiB(n.PID),
			CPUPercent: 100 * (cpuSeconds(n.PID) - before[i]) / d.Seconds()})
	}
	return all, nil
}

// cpuSeconds reads a process's CPU time; the kernel's tick is 10 ms.
func cpuSeconds(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}

func residentMiB(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kib); err == nil {
			return kib / 1024
		}
	}
	return 0
}
