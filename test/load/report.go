package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// origin is where and when something was measured.
type origin struct {
	Machine string    `json:"machine"`
	Engine  string    `json:"engine,omitempty"`
	When    time.Time `json:"when"`
}

// report is what one run found.
type report struct {
	origin
	Rows         []row         `json:"rows,omitempty"`
	Parked       *parked       `json:"parked,omitempty"`
	Throughput   []throughput  `json:"throughput,omitempty"`
	Idle         []idle        `json:"idle,omitempty"`
	ControlPlane *controlPlane `json:"control_plane,omitempty"`
	Door         *door         `json:"door,omitempty"`
	// Operations are how long each operation of the API takes, by method and
	// path, as openapi.yaml states them.
	Operations map[string]latency `json:"operations,omitempty"`
	// Prototype is the engine beside the runtime that it calls itself.
	Prototype           []row        `json:"prototype,omitempty"`
	PrototypeThroughput []throughput `json:"prototype_throughput,omitempty"`
	// Parts say where those were measured that a later run than the whole one
	// measured alone, by name.
	Parts map[string]origin `json:"parts,omitempty"`
	// Notes say why a row is missing.
	Notes []string `json:"notes,omitempty"`
}

func newReport() *report {
	return &report{origin: origin{Machine: machine(), When: time.Now().UTC().Truncate(time.Second)}}
}

// note says why a row is missing.
func (r *report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// write writes the files that are asked for. The plot is of the same report as the JSON.
func (r *report) write(o options) error {
	whole := r
	if o.json != "" {
		var err error
		if whole, err = r.within(o); err != nil {
			return err
		}
		text, err := json.MarshalIndent(whole, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if o.svg == "" {
		return nil
	}
	return whole.plot(o.svg)
}

// within is the report that is in the file with the parts of this run in place of
// its own; this run's, where it is of all parts or there is no other.
func (r *report) within(o options) (*report, error) {
	if len(o.only) == 0 {
		return r, nil
	}
	text, err := os.ReadFile(o.json)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	whole := new(report)
	if err := json.Unmarshal(text, whole); err != nil {
		return nil, fmt.Errorf("read the report that is in %s: %w", o.json, err)
	}
	if whole.Parts == nil {
		whole.Parts = make(map[string]origin)
	}
	for _, part := range o.only {
		whole.Parts[part] = r.origin
		whole.replace(part, r)
	}
	return whole, nil
}

// replace takes one part of another report.
func (r *report) replace(part string, by *report) {
	switch part {
	case "single":
		r.Rows = slices.Clone(by.Rows)
	case "parked":
		r.Parked = by.Parked
	case "swarm", "nomad": // rows beside those of single
		r.Rows = append(slices.DeleteFunc(r.Rows, func(old row) bool {
			return slices.ContainsFunc(by.Rows, func(now row) bool { return now.Name == old.Name })
		}), by.Rows...)
	case "throughput":
		r.Throughput = by.Throughput
	case "operations":
		r.Operations = by.Operations
	case "idle":
		r.Idle = by.Idle
	case "prototype":
		r.Prototype, r.PrototypeThroughput = by.Prototype, by.PrototypeThroughput
	case "controlplane":
		r.ControlPlane = by.ControlPlane
	case "door":
		r.Door = by.Door
	}
}

func (r *report) text() string {
	w := &strings.Builder{}
	fmt.Fprintf(w, "%s; %s\n\n", r.Machine, r.Engine)
	if len(r.Rows) > 0 {
		printRows(w, r.Rows)
	}
	if r.Parked != nil {
		r.Parked.print(w)
	}
	if len(r.Throughput) > 0 {
		printThroughput(w, r.Throughput)
	}
	if len(r.Idle) > 0 {
		printIdle(w, r.Idle)
	}
	if len(r.Prototype) > 0 {
		printRows(w, r.Prototype)
		printThroughput(w, r.PrototypeThroughput)
	}
	if len(r.Operations) > 0 {
		printOperations(w, r.Operations)
	}
	if r.ControlPlane != nil {
		r.ControlPlane.print(w)
	}
	if r.Door != nil {
		r.Door.print(w)
	}
	for _, note := range r.Notes {
		fmt.Fprintln(w, note)
	}
	return w.String()
}

// machine describes where this runs, in a line.
func machine() string {
	var info unix.Sysinfo_t
	_ = unix.Sysinfo(&info) // without it the memory reads 0
	var name unix.Utsname
	_ = unix.Uname(&name)
	return fmt.Sprintf("%d cores (%s), %d GiB, Linux %s, %s, load %.1f before the run", runtime.NumCPU(), processor(),
		int64(info.Totalram)*int64(info.Unit)>>30, unix.ByteSliceToString(name.Release[:]), runtime.Version(),
		float64(info.Loads[0])/(1<<16))
}

func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
