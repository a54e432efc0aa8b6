package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ecs/proto/api"
)

// runFlags are the flags of `run` as given.
type runFlags struct {
	interactive, tty, detach   bool
	env, secretEnv, files      []string
	outputs                    []string
	user, workdir, entrypoint  string
	memory, maxOutput, cpus    string
	network, pull, key         string
	labels, zones, capAdd      []string
	retry, retryProgram        int
	retryOn                    []int
	backoff                    time.Duration
	timeout, queue, pullWithin time.Duration
	total, lease               time.Duration
	atMostOnce                 bool
	registryUser               string
}

const runName = "run"

func (a *app) runCommand() *cobra.Command {
	f := new(runFlags)
	c := &cobra.Command{
		Use:   runName + " [flags] IMAGE [COMMAND [ARGUMENT...]]",
		Short: "Run a command in a fresh container and exit with its status",
		Long: `Run a command in a fresh container somewhere in the cluster, show its output as
it appears, and exit with its status.

Ctrl-C cancels the task; once more leaves without waiting for that. With -it it
goes to the program, as every key does; Ctrl-P Ctrl-Q leaves the task running.
A task with -i is run at most once, unless --retry or --retry-program is given:
what was typed into an attempt that was lost can't be typed again.

An attempt that the cluster lost is repeated at once, elsewhere (--retry). A
program that failed is run again only if you say so (--retry-program), after a
pause that doubles each time (--backoff), whatever its exit code unless --retry-on
names some. What is shown is the output of every attempt; the last one's is kept.

Exit statuses of ecsctl itself: 124 a time limit ended the task, 125 the service
could not run it, 126 the command cannot be executed, 127 there is no such
command, 130 cancelled, 137 out of memory.`,
		Example: `  ecsctl run alpine:3 echo hello
  ecsctl run --network egress -e URL=https://example.com curlimages/curl:8.9.1 sh -c 'curl -s $URL'
  ecsctl run -it --timeout 1h alpine:3 sh
  tar c src | ecsctl run -i alpine:3 tar tv
  ecsctl run --file ./job.py:/job.py python:3.13-slim python /job.py
  ecsctl run --timeout 1h --cpus 2 --memory 4GiB --detach my/batch:7`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &exitError{exitService, errors.New("an image is needed (see: ecsctl run --help)")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			request, err := f.request(args, c.Flags().Changed, a.env)
			if err != nil {
				return &exitError{exitService, err}
			}
			if _, ok := a.terminal(); f.tty && !f.detach && !ok {
				return &exitError{exitService, errNoTerminal}
			}
			client, err := a.client()
			if err != nil {
				return &exitError{exitService, errors.Unwrap(err)}
			}
			defer client.Close()
			return a.run(c.Context(), client, request, f)
		},
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &exitError{exitService, fmt.Errorf("%w (see: ecsctl run --help)", err)}
	})
	f.declare(c)
	return c
}

func (f *runFlags) declare(c *cobra.Command) {
	flags := c.Flags()
	flags.SetInterspersed(false) // what follows the image is the command's
	flags.StringArrayVarP(&f.env, "env", "e", nil, "`NAME=value` for the program; NAME alone takes it from here")
	flags.StringArrayVar(&f.secretEnv, "secret-env", nil, "like --env, but kept sealed and never shown")
	flags.StringArrayVar(&f.files, "file", nil, "local file for the program, `SRC:DST[:mode]`; mode is octal, by default that of SRC")
	flags.StringArrayVar(&f.outputs, "output", nil, "`path` to keep when the program has ended, for ecsctl tasks cp")
	flags.StringVarP(&f.user, "user", "u", "", "`user`[:group], by name or number")
	flags.StringVarP(&f.workdir, "workdir", "w", "", "`directory` to run in")
	flags.StringVar(&f.entrypoint, "entrypoint", "", "`command` instead of the image's own ENTRYPOINT; \"\" for none")
	flags.StringVarP(&f.memory, "memory", "m", "", "`size` of memory, reserved and the ceiling (default 256MiB)")
	flags.StringVar(&f.cpus, "cpus", "", "`CPUs` reserved and the ceiling (default 0.25 reserved, 1 the ceiling)")
	flags.StringVar(&f.network, "network", "", "`network`: none (default) or egress")
	flags.StringArrayVar(&f.capAdd, "cap-add", nil, "`capability` to give the program, such as NET_RAW")
	flags.StringArrayVarP(&f.labels, "label", "l", nil, "`name=value` to find the task by")
	flags.StringArrayVar(&f.zones, "zone", nil, "`zone` the task may run in (default any)")
	flags.IntVar(&f.retry, "retry", 0, "`times` an attempt that the cluster lost is repeated (default 3)")
	flags.IntVar(&f.retryProgram, "retry-program", 0, "`times` the program is run again when it exits with another code than 0")
	flags.IntSliceVar(&f.retryOn, "retry-on", nil, "exit `codes` after which it is run again; 137 is out of memory too, and 124 its time limit")
	flags.DurationVar(&f.backoff, "backoff", 0, "how `long` to wait before that, doubled each time (default 1s)")
	flags.BoolVar(&f.atMostOnce, "at-most-once", false, "never repeat an attempt that may have started")
	flags.StringVar(&f.key, "key", "", "idempotency `key`: the same key is the same task")
	flags.DurationVar(&f.timeout, "timeout", 0, "how `long` the program may run (default 5m)")
	flags.DurationVar(&f.queue, "queue-timeout", 0, "how `long` the task may wait for a node (default 24h)")
	flags.DurationVar(&f.pullWithin, "pull-timeout", 0, "how `long` the image may take (default 5m)")
	flags.DurationVar(&f.total, "total-timeout", 0, "how `long` everything together may take (default no limit)")
	flags.DurationVar(&f.lease, "lease", 0, "how `long` the program may outlive contact with the cluster (default 10s)")
	flags.StringVar(&f.maxOutput, "max-output", "", "`size` kept of each output stream (default 1MiB, at most 64MiB)")
	flags.StringVar(&f.registryUser, "registry-user", "", "`user` at the image's registry; the password is read from ECS_REGISTRY_PASSWORD")
	flags.BoolVarP(&f.detach, "detach", "d", false, "print the task's id and leave")
	flags.BoolVarP(&f.interactive, "interactive", "i", false, "give the program what comes on stdin")
	flags.BoolVarP(&f.tty, "tty", "t", false, "give the program a terminal")
	flags.StringVar(&f.pull, "pull", "", "when to pull the image (not yet: it is pulled when missing)")
}

// request turns flags and arguments into what is submitted.
func (f *runFlags) request(args []string, given func(string) bool, env func(string) string) (api.TaskRequest, error) {
	r := api.TaskRequest{
		Image: withTag(args[0]), Command: args[1:], CapAdd: f.capAdd, Workdir: f.workdir, User: f.user, Network: f.network,
		Env: fromHere(f.env, env), SecretEnv: fromHere(f.secretEnv, env), Labels: f.labelMap(),
		Placement: api.Placement{Zones: f.zones}, Lease: api.Duration(f.lease), Outputs: f.outputs, OpenStdin: f.interactive, TTY: f.tty,
		Timeouts: api.Timeouts{Queue: api.Duration(f.queue), Pull: api.Duration(f.pullWithin),
			Run: api.Duration(f.timeout), Total: api.Duration(f.total)},
	}
	if given("entrypoint") {
		r.Entrypoint = []string{}
		if f.entrypoint != "" {
			r.Entrypoint = []string{f.entrypoint}
		}
	}
	if given("retry") {
		r.Retry.Infrastructure = &f.retry
		if f.interactive && f.retry > 0 {
			r.Delivery = "at_least_once"
		}
	}
	r.Retry.Program, r.Retry.OnExitCodes, r.Retry.Backoff = f.retryProgram, f.retryOn, api.Duration(f.backoff)
	if f.interactive && f.retryProgram > 0 {
		r.Delivery = "at_least_once"
	}
	if f.atMostOnce {
		r.Delivery = "at_most_once"
	}
	if f.registryUser != "" {
		r.RegistryAuth = &api.RegistryAuth{Username: f.registryUser, Password: env("ECS_REGISTRY_PASSWORD")}
	}
	var err error
	r.Files, err = localFiles(f.files)
	return r, errors.Join(f.notYet(), f.amounts(&r), err)
}

// notYet refuses what a later release brings.
func (f *runFlags) notYet() error {
	if f.pull != "" && f.pull != "missing" {
		return fmt.Errorf("--pull %s is not there yet: it comes with a later release", f.pull)
	}
	return nil
}

// amounts reads the flags that are sizes or amounts of CPU.
func (f *runFlags) amounts(r *api.TaskRequest) error {
	size := func(name, text string, into *api.Size) error {
		if text == "" {
			return nil
		}
		n, err := api.ParseSize(wholeUnit(text))
		if err != nil {
			return fmt.Errorf("--%s: %w", name, err)
		}
		*into = api.Size(n)
		return nil
	}
	err := errors.Join(size("memory", f.memory, &r.Resources.Memory), size("max-output", f.maxOutput, &r.MaxOutput))
	if f.cpus == "" {
		return err
	}
	n, cpuErr := api.ParseCPU(f.cpus)
	if cpuErr != nil {
		return errors.Join(err, fmt.Errorf("--cpus: %w", cpuErr))
	}
	r.Resources.CPU, r.Resources.CPULimit = api.CPU(n), api.CPU(n)
	return err
}

// wholeUnit writes out the one-letter units that docker run takes.
func wholeUnit(size string) string {
	for _, unit := range []string{"k", "m", "g"} {
		if number, short := strings.CutSuffix(strings.ToLower(size), unit); short {
			return number + strings.ToUpper(unit) + "iB"
		}
	}
	return size
}

func (f *runFlags) labelMap() map[string]string {
	if len(f.labels) == 0 {
		return nil
	}
	labels := make(map[string]string, len(f.labels))
	for _, l := range f.labels {
		name, value, _ := strings.Cut(l, "=")
		labels[name] = value
	}
	return labels
}

// withTag names the tag that people leave out.
func withTag(image string) string {
	last := image[strings.LastIndexByte(image, '/')+1:]
	if strings.ContainsAny(last, ":@") {
		return image
	}
	return image + ":latest"
}

// fromHere gives NAME its value from the environment; one that is not set here
// is not set there.
func fromHere(vars []string, env func(string) string) []string {
	var out []string
	for _, v := range vars {
		if !strings.Contains(v, "=") {
			value := env(v)
			if value == "" {
				continue
			}
			v += "=" + value
		}
		out = append(out, v)
	}
	return out
}

// run submits the task and, unless it is to go on by itself, stays with it
// until it has finished.
func (a *app) run(ctx context.Context, client *api.Client, request api.TaskRequest, f *runFlags) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	s := &session{app: a, client: client, leave: leave, accepted: make(chan string, 1), shown: make(map[string]int64)}
	s.passOn = f.tty && !f.interactive && !f.detach
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.obey(ctx)
	}()
	defer func() { leave(); <-ended }()

	task, err := client.Submit(ctx, request, api.SubmitOptions{Key: f.key})
	if err != nil {
		return s.refused(err)
	}
	s.accepted <- task.ID
	switch {
	case f.detach:
		fmt.Fprintln(a.stdout, task.ID)
		return nil
	case f.interactive || f.tty:
		return s.attach(ctx, task.ID, attachment{tty: f.tty, stdin: f.interactive, own: true})
	}
	return s.follow(ctx, task.ID)
}
