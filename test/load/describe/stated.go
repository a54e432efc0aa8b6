package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Latency is what the benchmarks found of one operation, in milliseconds.
type Latency struct {
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
}

// begin is where the part of openapi.yaml begins that is written here; it goes
// on to the end of the file.
const begin = "# From docs/bench.json, by `make bench`.\nx-latency:"

// Read gives the operations of a report, by method and path.
func Read(bench string) (map[string]Latency, error) {
	text, err := os.ReadFile(bench)
	if err != nil {
		return nil, err
	}
	var report struct {
		Operations map[string]Latency `json:"operations"`
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return nil, fmt.Errorf("%s: %w", bench, err)
	}
	return report.Operations, nil
}

// Stated is the description with what was found at its end.
func Stated(openapi string, found map[string]Latency) (string, error) {
	before, _, there := strings.Cut(openapi, begin)
	if !there {
		return "", errors.New("it has no x-latency at its end")
	}
	var b strings.Builder
	b.WriteString(before + begin + "\n")
	for _, name := range slices.Sorted(maps.Keys(found)) {
		fmt.Fprintf(&b, "  '%s': {p50_ms: %.1f, p99_ms: %.1f}\n", name, found[name].P50, found[name].P99)
	}
	return b.String(), nil
}
