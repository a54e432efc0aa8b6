// Command ecsctl is for users and operators of ECS: it runs tasks, looks after
// nodes and starts whole clusters on one machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"ecs/internal/version"
)

// Exit statuses, besides those of `run`.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: os.Getenv, signals: signals,
		unguard: func() { signal.Reset(os.Interrupt, syscall.SIGTERM) }}
	os.Exit(a.main(os.Args[1:]))
}

// app is one invocation, with what it is given of the world.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) string
	// signals brings Ctrl-C. All commands but run end in good order with the
	// first, and call unguard, so that the second ends the process.
	signals <-chan os.Signal
	unguard func()
	raw     atomic.Bool // the terminal is: lines end with a carriage return, too

	endpoint, key, secret, ca string // flags; the environment fills what they leave empty
}

// exitError ends the program with a status. Without err there is nothing more
// to say.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

// main runs the command that args name and gives the exit status.
func (a *app) main(args []string) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel(nil)
	root := a.root()
	root.SetArgs(args)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.PersistentPreRun = func(c *cobra.Command, _ []string) {
		if c.Name() == runName {
			return // it has its own idea of Ctrl-C
		}
		watch.Go(func() {
			select {
			case <-a.signals:
				a.unguard()
				cancel(errInterrupted)
			case <-ctx.Done():
			}
		})
	}
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	status := exitFailed
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		status, err = exit.status, exit.err
	case context.Cause(ctx) == errInterrupted:
		status = exitCancelled
	}
	if err != nil {
		a.say("%s%s", printable(err.Error()), remedy(err))
	}
	return status
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "ecsctl",
		Short:         "Run commands in fresh containers somewhere in a cluster, and look after the cluster",
		Version:       version.String(),
		Args:          none,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("ecsctl {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%w (see: %s --help)", err, c.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.endpoint, "endpoint", "", "URLs of control nodes, separated by commas (ECS_ENDPOINT; default "+defaultEndpoint+")")
	flags.StringVar(&a.key, "api-key", "", "API key (ECS_KEY)")
	flags.StringVar(&a.secret, "api-secret", "", "its secret (ECS_SECRET)")
	flags.StringVar(&a.ca, "ca-cert", "", "`file` with the authority of the service's certificate, PEM, instead of the system's (ECS_CA_CERT)")
	root.AddCommand(a.runCommand(), a.attachCommand(), a.tasksCommand(), a.nodesCommand(), a.imagesCommand(), a.clusterCommand(), a.keysCommand(),
		a.joinCommand(), a.leaveCommand(), a.logsCommand(), a.verifyCommand(), a.loadCommand(),
		a.caCommand(), a.credsCommand(), a.devCommand(), a.versionCommand())
	return root
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: none,
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprintln(a.stdout, "ecsctl", version.String())
			return nil
		},
	}
}

// say tells the person something, apart from what programs read.
func (a *app) say(format string, args ...any) {
	text := fmt.Sprintf("ecsctl: "+format+"\n", args...)
	if a.raw.Load() {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	fmt.Fprint(a.stderr, text)
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: none,
		RunE: func(c *cobra.Command, _ []string) error {
			return usage("which one? see: %s --help", c.CommandPath())
		}}
	c.AddCommand(commands...)
	return c
}

// none takes no arguments, and says so.
func none(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("%q is not known here (see: %s --help)", args[0], c.CommandPath())
	}
	return nil
}

// atLeastOne takes one or more of what.
func atLeastOne(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage("%s is needed (see: %s --help)", what, c.CommandPath())
		}
		return nil
	}
}

// exactlyOne takes one of what.
func exactlyOne(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage("%s is needed, and nothing else (see: %s --help)", what, c.CommandPath())
		}
		return nil
	}
}
