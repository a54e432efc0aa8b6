package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// Latency is what the benchmarks found of one operation, in milliseconds.
type Latency struct {
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
}

// begin is where the part of openapi.yaml begins that is written here; it goes
// on to the end of the file.
const begin = "# From docs/bench.json, by `make bench`.\n"

// Measured is what a report says of the operations.
type Measured struct {
	Operations map[string]Latency // by method and path
	On         string             // which machine, and when
}

// Read gives the operations of a report.
func Read(bench string) (Measured, error) {
	text, err := os.ReadFile(bench)
	if err != nil {
		return Measured{}, err
	}
	type origin struct {
		Machine string    `json:"machine"`
		Engine  string    `json:"engine"`
		When    time.Time `json:"when"`
	}
	var report struct {
		origin
		Parts      map[string]origin  `json:"parts"`
		Operations map[string]Latency `json:"operations"`
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return Measured{}, fmt.Errorf("%s: %w", bench, err)
	}
	on, apart := report.Parts["operations"]
	if !apart {
		on = report.origin
	}
	return Measured{report.Operations, fmt.Sprintf("%s; %s; %s", on.Machine, on.Engine, on.When.Format(time.DateOnly))}, nil
}

// Stated is the description with what was found at its end.
func Stated(openapi string, found Measured) (string, error) {
	before, _, there := strings.Cut(openapi, begin)
	if !there {
		return "", errors.New("it has no x-latency at its end")
	}
	var b strings.Builder
	b.WriteString(before + begin)
	if len(found.Operations) == 0 {
		return b.String() + "x-latency: {}\n", nil
	}
	fmt.Fprintf(&b, "x-latency-on: '%s'\nx-latency:\n", strings.ReplaceAll(found.On, "'", "''"))
	for _, name := range slices.Sorted(maps.Keys(found.Operations)) {
		fmt.Fprintf(&b, "  '%s': {p50_ms: %.1f, p99_ms: %.1f}\n", name, found.Operations[name].P50, found.Operations[name].P99)
	}
	return b.String(), nil
}
