package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// idle is what an idle process costs.
type idle struct {
	Process     string  `json:"process"`
	ResidentMiB float64 `json:"resident_mib"`
	CPUPercent  float64 `json:"cpu_percent"` // of a core
}

// watchIdle watches every process of the cluster for a while with nothing to do.
func (c *cluster) watchIdle(ctx context.Context, d time.Duration) ([]idle, error) {
	if err := pause(ctx, 3*time.Second); err != nil { // removals end
		return nil, err
	}
	before := make([]float64, len(c.Nodes))
	for i, n := range c.Nodes {
		before[i] = cpuSeconds(n.PID)
	}
	if err := pause(ctx, d); err != nil {
		return nil, err
	}
	var all []idle
	for i, n := range c.Nodes {
		name := "ecs-" + n.Role + " " + n.Name
		if n.Leader {
			name += " (leader)"
		}
		all = append(all, idle{Process: name, ResidentMiB: residentMiB(n.PID),
			CPUPercent: 100 * (cpuSeconds(n.PID) - before[i]) / d.Seconds()})
	}
	return all, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
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
	return field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS: %f kB") / 1024
}

func printIdle(w *strings.Builder, all []idle) {
	t := newTable(w, "idle", "resident MiB", "CPU % of a core")
	for _, i := range all {
		t.row("%s\t%.1f\t%.2f", i.Process, i.ResidentMiB, i.CPUPercent)
	}
	t.end()
}
