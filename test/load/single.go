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
	// ready returns once the next do finds all that it is to find; nil: at once.
	ready func(context.Context) error
	// told is what the last do was told of where its time went; nil: nothing.
	told func() answer
}

// row is one way to run the same command, in milliseconds.
type row struct {
	Name     string  `json:"name"`
	P50      float64 `json:"p50_ms"`
	P90      float64 `json:"p90_ms"`
	P99      float64 `json:"p99_ms"`
	P50ToRaw float64 `json:"p50_to_raw,omitempty"`
	P99ToRaw float64 `json:"p99_to_raw,omitempty"`
	Rounds   int     `json:"rounds"`
	// What the answers said, of the ways that have answers: the median of
	// overhead_ms and of each part of the bill, and the share of tasks that found
	// a container started ahead.
	OverheadP50 *float64           `json:"overhead_p50_ms,omitempty"`
	Hits        *float64           `json:"hits,omitempty"`
	Bill        map[string]float64 `json:"bill_p50_ms,omitempty"`
}

// rawName is the row that others are set against.
const rawName = "raw Engine sequence"

// restBefore is how long the machine is left alone before each measured do: engine and
// kernel still clear up after the last container, or start the one ahead, when their
// answer is there.
const restBefore = 500 * time.Millisecond

// oneAtATime runs every way once a round, each after a rest, so that all see the same
// machine. The first rounds warm up and do not count.
func oneAtATime(ctx context.Context, ways []way, warmups, rounds int) ([]row, error) {
	took := make([][]float64, len(ways))
	answers := make([][]answer, len(ways))
	for round := range warmups + rounds {
		for i, w := range ways {
			ms, err := w.once(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			if round < warmups {
				continue
			}
			took[i] = append(took[i], ms)
			if w.told != nil {
				answers[i] = append(answers[i], w.told())
			}
		}
	}
	rows := make([]row, len(ways))
	for i, w := range ways {
		if w.wait != nil {
			w.wait()
		}
		slices.Sort(took[i])
		rows[i] = row{Name: w.name, P50: at(took[i], 0.5), P90: at(took[i], 0.9), P99: at(took[i], 0.99), Rounds: rounds}
		rows[i].hear(answers[i])
	}
	return rows, nil
}

// once gives how many milliseconds one do took.
func (w way) once(ctx context.Context) (float64, error) {
	if w.ready != nil {
		if err := w.ready(ctx); err != nil {
			return 0, err
		}
	}
	if err := pause(ctx, restBefore); err != nil {
		return 0, err
	}
	start := time.Now()
	err := w.do(ctx)
	return millis(start), err
}

// hear fills in what the answers said.
func (r *row) hear(answers []answer) {
	if len(answers) == 0 {
		return
	}
	var overhead []float64
	parts := map[string][]float64{}
	hits := 0.0
	for _, a := range answers {
		overhead = append(overhead, a.OverheadMS)
		for part, ms := range a.Times {
			parts[part] = append(parts[part], ms)
		}
		if a.Warm == "hit" {
			hits++
		}
	}
	slices.Sort(overhead)
	median := at(overhead, 0.5)
	hits /= float64(len(answers))
	r.OverheadP50, r.Hits, r.Bill = &median, &hits, map[string]float64{}
	for part, ms := range parts {
		slices.Sort(ms)
		r.Bill[part] = at(ms, 0.5)
	}
}

// setAgainstRaw fills the ratios in.
func setAgainstRaw(rows []row) {
	raw := slices.IndexFunc(rows, func(r row) bool { return r.Name == rawName })
	for i := range rows {
		if raw >= 0 {
			rows[i].P50ToRaw = rows[i].P50 / rows[raw].P50
			rows[i].P99ToRaw = rows[i].P99 / rows[raw].P99
		}
	}
}

func printRows(w *strings.Builder, rows []row) {
	fmt.Fprintf(w, "busybox `echo hi`, one at a time after a rest of %s, milliseconds\n\n", restBefore)
	t := newTable(w, "", "p50", "p90", "p99", "p50 to raw", "p99 to raw", "overhead p50", "hits", "rounds")
	for _, r := range rows {
		overhead, hits := "", ""
		if r.OverheadP50 != nil {
			overhead, hits = fmt.Sprintf("%.1f", *r.OverheadP50), fmt.Sprintf("%.0f %%", 100**r.Hits)
		}
		t.row("%s\t%.1f\t%.1f\t%.1f\t%.3f\t%.3f\t%s\t%s\t%d", r.Name, r.P50, r.P90, r.P99, r.P50ToRaw, r.P99ToRaw, overhead, hits, r.Rounds)
	}
	t.end()
	printBills(w, rows)
}

// billParts are shown in the order in which they pass.
var billParts = []string{"accepted", "committed", "queued", "placed", "assigned", "image", "create", "start", "run", "output", "reported", "transfer", "answered"}

func printBills(w *strings.Builder, rows []row) {
	if !slices.ContainsFunc(rows, func(r row) bool { return r.Bill != nil }) {
		return
	}
	fmt.Fprintf(w, "where the time went by the answers' own bill, p50 of each part, milliseconds\n\n")
	t := newTable(w, append([]string{""}, billParts...)...)
	for _, r := range rows {
		if r.Bill == nil {
			continue
		}
		columns := []string{r.Name}
		for _, part := range billParts {
			columns = append(columns, fmt.Sprintf("%.2f", r.Bill[part+"_ms"]))
		}
		t.row("%s", strings.Join(columns, "\t"))
	}
	t.end()
}
