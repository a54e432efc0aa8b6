// Command chaos breaks a cluster of real processes on purpose, while clients are
// at work, and checks afterwards what it promised; see ops/runbooks/chaos.md.
//
// Every node has a network namespace of its own. Most agents run their tasks as
// processes (package procs), so that there are thousands of them; some are whole
// ecs-agents with ecs-fence, ecs-init and the machine's engine, for a share of
// the tasks. What the first prove is about leases, sessions, the record and the
// API; that a container ends with its lease only the second do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/docker/docker/client"

	"ecs/test/chaos/check"
	"ecs/test/chaos/procs"
	"ecs/test/images"
)

// options say what run to make.
type options struct {
	seed       uint64
	last, most time.Duration
	drill      string
	rounds     int
	containers bool
	mistake    string
	keep       bool
	again      bool
	floor      check.Floor
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	switch {
	case len(args) > 1 && args[0] == agentCommand:
		signals := make(chan os.Signal, 2)
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
		return new(processAgent).program().Main(args[1:], os.Stdout, os.Stderr, signals)
	case len(args) == 2 && args[0] == programCommand:
		if err := procs.Run(args[1]); err != nil {
			fmt.Fprintln(os.Stderr, "program:", err)
			return 1
		}
		return 0
	case len(args) == 3 && args[0] == janitorCommand:
		if err := clean(args[1], args[2] == "true"); err != nil {
			fmt.Fprintln(os.Stderr, "janitor:", err)
			return 1
		}
		return 0
	}
	var o options
	flags := flag.NewFlagSet("chaos", flag.ExitOnError)
	flags.Uint64Var(&o.seed, "seed", 0, "`seed` of faults and work; 0: a new one, which is printed")
	flags.DurationVar(&o.last, "for", 4*time.Minute, "how `long` there are faults, at least")
	flags.DurationVar(&o.most, "most", 6*time.Minute, "how `long` there are faults at most where the machine is slow: until there were -tasks and -faults")
	flags.StringVar(&o.drill, "drill", "", "make this `loss` again and again, and measure: leaders or zones, cut off without a reset")
	flags.IntVar(&o.rounds, "rounds", 30, "how `often`, with -drill")
	flags.BoolVar(&o.containers, "containers", true, "run a share of the tasks in real containers")
	flags.StringVar(&o.mistake, "mistake", "", "build the daemons with a deliberate `mistake`, which is to be found: margin, once, key or token")
	flags.BoolVar(&o.keep, "keep", false, "keep the directory of the run also when all is well")
	flags.BoolVar(&o.again, "again", false, "make one more run, with the next seed, where something was only late or too little")
	flags.IntVar(&o.floor.Tasks, "tasks", 1000, "`tasks` that must have been accepted")
	flags.IntVar(&o.floor.Faults, "faults", 40, "`faults` that must have done what they say")
	flags.IntVar(&o.floor.Kinds, "kinds", 8, "`kinds` of faults among them")
	flags.IntVar(&o.floor.Replaced, "replaced", 1, "`attempts` of agents gone for long whose replacement could be judged")
	flags.IntVar(&o.floor.Snapshots, "snapshots", 1, "`snapshots` that each control node must have made or got")
	flags.IntVar(&o.floor.Fetches, "fetches", 100, "`streams` of output that must have been read after the faults")
	_ = flags.Parse(args) // it exits
	if err := o.settle(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 2
	}
	if o.seed == 0 {
		o.seed = rand.Uint64N(1_000_000_000) + 1
		args = append(slices.Clone(args), fmt.Sprint("-seed=", o.seed))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // to whom it talks may go; its work does not end with that
	err := chaos(ctx, o)
	if o.again && errors.Is(err, errLate) {
		fmt.Printf("chaos: %v, with seed %d: once more, for the machine may have been busy\n", err, o.seed)
		o.seed++
		args = append(args, fmt.Sprint("-seed=", o.seed)) // the last one counts
		err = chaos(ctx, o)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "chaos: %v\nTo repeat it: make chaos CHAOS='%s'\n", err, strings.Join(args, " "))
		return 1
	}
	return 0
}

// mistakes are the deliberate ones, and the rules of which one has to find each.
var mistakes = map[string][]string{
	"margin": {"S5"}, "once": {"S6"}, "key": {"S8"}, "token": {"S4"},
}

// settle checks what options say together, and sets what follows from that.
func (o *options) settle() error {
	if _, known := mistakes[o.mistake]; o.mistake != "" && !known {
		return fmt.Errorf("-mistake %q: want one of %s", o.mistake, strings.Join(slices.Sorted(maps.Keys(mistakes)), ", "))
	}
	if o.mistake != "" {
		o.floor = check.Floor{} // it is found or not, whatever the work
	}
	if o.drill == "" {
		return nil
	}
	d, known := drills[o.drill]
	if !known || o.rounds < 1 {
		return fmt.Errorf("-drill %q -rounds %d: want one of %s, and some rounds", o.drill, o.rounds, strings.Join(slices.Sorted(maps.Keys(drills)), ", "))
	}
	o.floor = d.floor(o.rounds)
	return nil
}

// errViolated says that promises were broken, which were printed; errLate that those
// are of time alone, or that a run proves too little.
var (
	errViolated = errors.New("promises were broken")
	errLate     = errors.New("something was late, or too little")
)

// broken is what violations come to.
func broken(violations []check.Violation) error {
	late := []string{"floor", "L2", "L3", "L4", "L5", "L6"} // L1 may be a task that is lost
	switch {
	case len(violations) == 0:
		return nil
	case slices.ContainsFunc(violations, func(v check.Violation) bool { return !slices.Contains(late, v.Rule) }):
		return errViolated
	}
	return errLate
}

func chaos(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces and the outer fence need root")
	}
	for _, program := range []string{"ip", "ss", "iptables", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w; run: apt-get install -y iproute2 iptables util-linux", err)
		}
	}
	lock, err := onlyRun()
	if err != nil {
		return err
	}
	defer lock.Close()
	dir, err := os.MkdirTemp(runsDir, runPrefix) // short: paths of sockets must be
	if err != nil {
		return err
	}
	defer func() {
		if err != nil || o.keep {
			fmt.Printf("the run's logs and files are in %s\n", dir)
			return
		}
		err = os.RemoveAll(dir)
	}()
	bin := filepath.Join(dir, "bin")
	tags := ""
	if o.mistake != "" {
		tags = "ecs_mistake_" + o.mistake
	}
	build := exec.CommandContext(ctx, "go", "build", "-tags", tags, "-o", bin+"/", "ecs/cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the daemons: %w\n%s", err, out)
	}
	var engine *client.Client
	if o.containers {
		if engine, err = client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation()); err != nil {
			return err
		}
		defer engine.Close()
		if err := images.Ensure(ctx, engine); err != nil {
			return fmt.Errorf("make the test images (is there an engine? ops/setup/engine.sh up): %w", err)
		}
	}
	if err := sweep(ctx, runPrefix, o.containers); err != nil {
		return fmt.Errorf("remove what an earlier run left: %w", err)
	}
	tag := filepath.Base(dir)[:len(runPrefix)+4] // short: names of links must be
	j, err := startJanitor(dir, tag, o.containers, lock)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.close(context.WithoutCancel(ctx))) }()
	c, err := newCluster(dir, tag, bin, 200+rand.New(rand.NewPCG(o.seed, 0)).IntN(800), o.containers)
	if err != nil {
		return err
	}
	closeAll := sync.OnceValue(func() error {
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return c.close(within)
	})
	defer func() { err = errors.Join(err, closeAll()) }()
	r := &trial{options: o, c: c, engine: engine}
	h, err := r.history(ctx, closeAll)
	if h == nil {
		return err
	}
	violations := check.All(h, o.floor)
	r.summary(h)
	for _, v := range violations {
		fmt.Println(v)
	}
	if o.mistake != "" {
		return found(o.mistake, violations, err)
	}
	if err := errors.Join(broken(violations), err); err != nil {
		return err
	}
	fmt.Println("every promise was kept")
	return nil
}

// found is nil where the rule that a mistake breaks was seen broken. What could not
// be done or seen besides is the mistake's doing then: a record that is wrong can't
// be replayed.
func found(mistake string, violations []check.Violation, besides error) error {
	for _, v := range violations {
		if slices.Contains(mistakes[mistake], v.Rule) {
			if besides != nil {
				fmt.Println("and with it:", besides)
			}
			fmt.Printf("the mistake with the %s was found, by %s\n", mistake, v.Rule)
			return nil
		}
	}
	return errors.Join(fmt.Errorf("the mistake with the %s was not found: want a violation of %s", mistake, strings.Join(mistakes[mistake], " or ")), besides)
}
