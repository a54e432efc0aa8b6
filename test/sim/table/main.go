// Command table prints what a placement costs on 100, 1,000 and 10,000 nodes.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"

	"ecs/test/sim"
)

func main() {
	tasks := flag.Int("tasks", 100_000, "tasks that wait at the beginning")
	repeats := flag.Int("repeats", 3, "the median of so many runs counts")
	flag.Parse()
	if err := print(*tasks, *repeats); err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

func print(tasks, repeats int) error {
	fmt.Printf("%d tasks waiting; %d cores, %s\n\n", tasks, runtime.NumCPU(), runtime.Version())
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "nodes\tplacements/s\tdecide µs\tapply µs\tdecide to 100 nodes\tboth to 100 nodes\tsteps\t")
	var first sim.Result
	for _, nodes := range []int{100, 1_000, 10_000} {
		r, err := median(nodes, tasks, repeats)
		if err != nil {
			return err
		}
		if first.Placed == 0 {
			first = r
		}
		both := r.Decide + r.Apply
		fmt.Fprintf(t, "%d\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.1f\t\n", nodes, float64(r.Placed)/both.Seconds(),
			float64(r.Each(r.Decide).Nanoseconds())/1000, float64(r.Each(r.Apply).Nanoseconds())/1000,
			float64(r.Decide)/float64(first.Decide), float64(both)/float64(first.Decide+first.Apply), float64(r.Steps)/float64(r.Placed))
	}
	return t.Flush()
}

func median(nodes, tasks, repeats int) (sim.Result, error) {
	var all []sim.Result
	for range max(1, repeats) {
		runtime.GC() // of the run before
		r, err := sim.Run(nodes, tasks)
		if err != nil {
			return r, err
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b sim.Result) int { return int(a.Decide + a.Apply - b.Decide - b.Apply) })
	return all[len(all)/2], nil
}
