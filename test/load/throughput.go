package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// throughput is how many containers a way runs and removes a second.
type throughput struct {
	Name     string  `json:"name"`
	InFlight int     `json:"in_flight"`
	PerSec   float64 `json:"per_second"`
	Tasks    int     `json:"tasks"`
}

// levels are the numbers in flight that throughput is measured at.
var levels = []int{1, 4, 8, 32}

// saturate measures every way at every level in turn. The clock stops when the
// last container is removed, on both sides.
func saturate(ctx context.Context, ways []way, batch int) ([]throughput, error) {
	var all []throughput
	for _, level := range levels {
		for _, w := range ways {
			tasks := max(batch, 2*level)
			if level == 1 {
				tasks = batch / 2
			}
			took, err := together(ctx, w, level, tasks)
			if err != nil {
				return nil, fmt.Errorf("%s, %d in flight: %w", w.name, level, err)
			}
			all = append(all, throughput{Name: w.name, InFlight: level, PerSec: float64(tasks) / took.Seconds(), Tasks: tasks})
		}
	}
	return all, nil
}

// together runs so many tasks, level of them at any time.
func together(ctx context.Context, w way, level, tasks int) (time.Duration, error) {
	began := time.Now()
	var next atomic.Int64
	failed := make([]error, level)
	var all sync.WaitGroup
	for i := range level {
		all.Go(func() {
			for next.Add(1) <= int64(tasks) && failed[i] == nil {
				failed[i] = w.do(ctx)
			}
		})
	}
	all.Wait()
	if w.wait != nil {
		w.wait()
	}
	return time.Since(began), errors.Join(failed...)
}

func printThroughput(w *strings.Builder, all []throughput) {
	fmt.Fprintf(w, "containers a second, run and removed\n\n")
	columns := []string{"in flight"}
	for _, level := range levels {
		columns = append(columns, fmt.Sprint(level))
	}
	t := newTable(w, columns...)
	var names []string
	byName := make(map[string][]string)
	for _, p := range all {
		if byName[p.Name] == nil {
			names = append(names, p.Name)
		}
		byName[p.Name] = append(byName[p.Name], fmt.Sprintf("%.1f", p.PerSec))
	}
	for _, name := range names {
		t.row("%s\t%s", name, strings.Join(byName[name], "\t"))
	}
	t.end()
}
