// Command load measures ECS beside what people use instead, in one run and one
// table. `make bench` calls it on an idle machine; -only chooses parts.
//
// One at a time, every way runs once a round, so that all see the same machine.
// The raw sequence is what a careful program does itself: create, attach, start,
// wait, remove. ECS does the same and more for one HTTP call.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are what a run measures, and for how long.
type options struct {
	only     []string // parts; empty: all
	bin      string   // the built binaries
	port     int      // clusters take ports from here
	json     string
	svg      string
	nomad    string
	rounds   int
	warmups  int
	idleFor  time.Duration
	agents   int // of the control plane alone
	inFlight []int
	repeats  int
	span     time.Duration // of each repeat
	warmup   time.Duration
	batch    int // tasks of one throughput run at most
	profiles string

	doorRounds, doorRequests int            // quiet and attacked, of each attack
	attacks                  *regexp.Regexp // at the door
}

// parts in the order in which they run.
var parts = []string{"single", "parked", "throughput", "operations", "idle", "swarm", "nomad", "prototype", "controlplane", "door"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	debug.SetGCPercent(400) // callers and agents share the machine with what is measured
	err := error(nil)
	if len(os.Args) == 3 && os.Args[1] == fleetCommand {
		err = runFleet(ctx, os.Args[2])
	} else if len(os.Args) == 3 && os.Args[1] == attackCommand {
		err = runAttack(ctx, os.Args[2])
	} else if len(os.Args) > 1 && os.Args[1] == soakCommand {
		err = runSoak(ctx, os.Args[2:])
	} else if o, wrong := parse(os.Args[1:]); wrong != nil {
		err = wrong
	} else {
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	o := options{inFlight: []int{1, 64, 512}, warmups: 5, repeats: 3, warmup: 5 * time.Second, span: 8 * time.Second, batch: 120, doorRounds: 5, doorRequests: 1000}
	f := flag.NewFlagSet("load", flag.ExitOnError)
	only := f.String("only", "", "parts to run, of "+strings.Join(parts, ",")+"; all by default")
	quick := f.Bool("quick", false, "fewer rounds and repeats: some 12 minutes for all parts")
	f.StringVar(&o.bin, "bin", "bin", "directory of the built binaries")
	f.IntVar(&o.port, "port", 18448, "first of the ports that clusters may take")
	f.StringVar(&o.json, "json", "", "also write the report as JSON to this file")
	f.StringVar(&o.svg, "svg", "", "also plot it into this file")
	f.StringVar(&o.nomad, "nomad", "", "a Nomad binary to put into the same table")
	f.IntVar(&o.rounds, "rounds", 60, "measured rounds one at a time")
	f.DurationVar(&o.idleFor, "idle", 20*time.Second, "how long idle processes are watched")
	f.IntVar(&o.agents, "agents", 200, "agents of the control plane alone")
	f.StringVar(&o.profiles, "profiles", "", "directory for profiles of the control plane alone, and of the control node under attack")
	attacks := f.String("attacks", "", "pattern of the attacks at the door; all by default")
	_ = f.Parse(args) // it exits
	if *quick {
		o.rounds, o.warmups, o.idleFor, o.repeats, o.warmup, o.span, o.batch = 15, 2, 5*time.Second, 2, 3*time.Second, 3*time.Second, 40
		o.doorRounds = 3
	}
	bin, err := filepath.Abs(o.bin) // processes start in directories of their own
	if err != nil {
		return o, err
	}
	o.bin = bin
	if o.attacks, err = regexp.Compile(*attacks); err != nil {
		return o, fmt.Errorf("-attacks: %w", err)
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, part := range o.only {
		if !slices.Contains(parts, part) {
			return o, fmt.Errorf("no part %q: there are %s", part, strings.Join(parts, ", "))
		}
	}
	return o, nil
}

// wants reports whether a part is to run.
func (o options) wants(part string) bool { return len(o.only) == 0 || slices.Contains(o.only, part) }
