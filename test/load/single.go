package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// way is one way to run the command: busybox `echo hi`, to its exit code and
// output. Removal comes after the answer in all of them, and always comes.
type way struct {
	name string
	do   func(context.Context) error
	// wait returns once everything that do left behind is removed; nil: do
	// leaves nothing.
	wait func()
}

// row is one way to run the same command, in milliseconds.
type row struct {
	Name     string  `json:"name"`
	P50      float64 `json:"p50_ms"`
	P90      float64 `json:"p90_ms"`
	P99      float64 `json:"p99_ms"`
	P50ToRaw float64 `json:"p50_to_raw,omitempty"`
	Rounds   int     `json:"rounds"`
}

// rawName is the row that others are set against.
const rawName = "raw Engine sequence"

// oneAtATime runs every way once a round, so that all see the same machine. The
// first rounds warm up and do not count.
func oneAtATime(ctx context.Context, ways []way, warmups, rounds int) ([]row, error) {
	took := make([][]float64, len(ways))
	for round := range warmups + rounds {
		for i, w := range ways {
			start := time.Now()
			if err := w.do(ctx); err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			if round >= warmups {
				took[i] = append(took[i], millis(start))
			}
		}
	}
	for _, w := range ways {
		if w.wait != nil {
			w.wait()
		}
	}
	rows := make([]row, len(ways))
	for i, w := range ways {
		slices.Sort(took[i])
		rows[i] = row{Name: w.name, P50: at(took[i], 0.5), P90: at(took[i], 0.9), P99: at(took[i], 0.99), Rounds: rounds}
	}
	return rows, nil
}

// setAgainstRaw fills the ratios in.
func setAgainstRaw(rows []row) {
	raw := slices.IndexFunc(rows, func(r row) bool { return r.Name == rawName })
	for i := range rows {
		if raw >= 0 {
			rows[i].P50ToRaw = rows[i].P50 / rows[raw].P50
		}
	}
}

func printRows(w *strings.Builder, rows []row) {
	fmt.Fprintf(w, "busybox `echo hi`, one at a time, milliseconds\n\n")
	t := newTable(w, "", "p50", "p90", "p99", "p50 to raw", "rounds")
	for _, r := range rows {
		t.row("%s\t%.1f\t%.1f\t%.1f\t%.3f\t%d", r.Name, r.P50, r.P90, r.P99, r.P50ToRaw, r.Rounds)
	}
	t.end()
}
