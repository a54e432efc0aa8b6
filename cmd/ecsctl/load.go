package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ecs/internal/loadtest"
)

func (a *app) loadCommand() *cobra.Command {
	c := &cobra.Command{Use: "load", Short: "Ask a service for a mix of requests at a steady rate, and say how long each kind took",
		Long: "Ask a service for a mix of requests at a steady rate, and print percentiles of each kind as\n" +
			"tab-separated values, in milliseconds. A request's time counts from when it was due, so that a service\n" +
			"that falls behind shows it. Endpoints are asked in turn, and for each other where one can't be reached or\n" +
			"answers 503; a request that another answered has not failed. Exit status 1 when a request failed.\n\n" +
			"Kinds: " + strings.Join(loadtest.Kinds(), ", ") + ". run, submit and v1 start containers.",
		Args: none}
	t := loadtest.Target{}
	f := c.Flags()
	f.Float64Var(&t.Rate, "rate", 10, "requests a second")
	f.DurationVar(&t.Duration, "duration", 30*time.Second, "for how long")
	f.StringVar(&t.Image, "image", "ecs-demo/busybox:1", "`image` to run; it needs echo")
	f.Uint64Var(&t.Seed, "seed", 1, "of the order of kinds")
	mix := f.String("mix", "run=1,noop=9", "`kinds` of requests and their shares")
	tsv := f.String("tsv", "", "also write the table into this `file`")
	svg := f.String("svg", "", "plot it into this `file`")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		if t.Mix, err = loadtest.ParseMix(*mix); err != nil {
			return usage("--mix %w", err)
		}
		if !(t.Rate > 0 && t.Rate <= 1e6) || t.Duration <= 0 {
			return usage("--rate must be above 0 and at most 1000000, --duration above 0")
		}
		if t.Endpoints, t.Key, t.Secret, t.Roots, err = a.access(); err != nil {
			return err
		}
		report, err := loadtest.Run(c.Context(), t)
		return errors.Join(err, report.WriteTSV(a.stdout), writeFile(*tsv, report.WriteTSV), writeFile(*svg, report.WriteSVG), a.loadFaults(report))
	}
	return c
}

// loadFaults says what failed, by kind of request, and which endpoints others had to
// stand in for. The error is of what failed alone.
func (a *app) loadFaults(r *loadtest.Report) error {
	for _, m := range r.Moves {
		a.say("others were asked in the place of %s:%s", printable(m.From), faultLines(m.Faults))
	}
	failed := 0
	var firsts []error
	for _, row := range r.Rows {
		if row.Failed == 0 {
			continue
		}
		failed += row.Failed
		a.say("%d of %d %s failed:%s", row.Failed, row.Requests, row.Kind, faultLines(row.Faults))
		for _, f := range row.Faults {
			firsts = append(firsts, f.First)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d requests failed%s", failed, remedy(errors.Join(firsts...)))
	}
	return nil
}

// faultLines says how often what went wrong, and how it began.
func faultLines(faults []loadtest.Fault) string {
	var b strings.Builder
	for _, f := range faults {
		fmt.Fprintf(&b, "\n  %d × %s, first: %s", f.Count, cell(f.What), cell(f.First.Error()))
	}
	return b.String()
}

// writeFile writes a file, or nothing without a name.
func writeFile(name string, write func(io.Writer) error) (err error) {
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return write(f)
}
