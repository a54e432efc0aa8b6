// Package daemon is what the mains of the daemons share: settings from flags,
// environment and one YAML file, signals, exit statuses, and the identity a
// node keeps in its data directory.
package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"ecs/internal/telemetry"
	"ecs/internal/version"
)

// Exit statuses of a daemon.
const (
	ExitOK     = 0
	ExitFailed = 1 // it ran and failed, or was ended by a second signal
	ExitUsage  = 2 // the settings are wrong; nothing was started
	ExitFinal  = 3 // it failed, and would again: somebody has to do something first
)

// Final marks an error that a restart does not mend.
func Final(err error) error { return finalError{err} }

type finalError struct{ error }

// Unwrap gives the error itself.
func (e finalError) Unwrap() error { return e.error }

// Program is one daemon.
type Program struct {
	Name string // as people type it: ecs-control
	// Define declares the daemon's own flags. Those every daemon has (config,
	// check-config, version, log-level) are declared for it.
	Define func(*flag.FlagSet)
	// Check reports every problem of the settings at once. It may read files,
	// and changes nothing.
	Check func() error
	// Run is the daemon's life. It returns once everything it started has
	// stopped; the end of ctx asks for that, in good order.
	Run func(ctx context.Context, log *slog.Logger, ring *telemetry.Ring) error
}

// Main runs p and returns the exit status. The first of signals ends it in good
// order, the second at once, without waiting for Run.
func (p Program) Main(args []string, stdout, stderr io.Writer, signals <-chan os.Signal) int {
	set := newSettings(p)
	switch err := set.parse(args); {
	case errors.Is(err, flag.ErrHelp):
		set.help(stdout)
		return ExitOK
	case err == nil && set.version:
		fmt.Fprintf(stdout, "%s %s\n", p.Name, version.String())
		return ExitOK
	case err == nil:
		err = errors.Join(checkDebug(set.debugAddr), p.Check())
		fallthrough
	default:
		if err != nil {
			fmt.Fprintf(stderr, "%s: %v\n(%s --help lists every setting)\n", p.Name, err, p.Name)
			return ExitUsage
		}
	}
	if set.checkOnly {
		fmt.Fprintln(stdout, "the settings are valid")
		return ExitOK
	}
	lines := telemetry.NewBehind(stderr)
	var writing sync.WaitGroup
	writing.Go(lines.Run)
	defer writing.Wait()
	defer lines.Close()
	log, ring := telemetry.NewLoggerWithRing(lines, set.level, slog.String("daemon", p.Name))
	return p.live(log, ring, set.debugAddr, signals)
}

func (p Program) live(log *slog.Logger, ring *telemetry.Ring, debugAddr string, signals <-chan os.Signal) int {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	if debugAddr != "" {
		closeDebug, err := serveDebug(debugAddr)
		if err != nil {
			log.Error("ended", "err", err)
			return ExitFailed
		}
		defer closeDebug()
	}
	log.Info("starting", "version", version.String(), "pid", os.Getpid())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx, log, ring) }()
	for {
		select {
		case err := <-ended:
			if err != nil && !(ctx.Err() != nil && errors.Is(err, context.Canceled)) {
				log.Error("ended", "err", err)
				if errors.As(err, new(finalError)) {
					return ExitFinal
				}
				return ExitFailed
			}
			log.Info("ended")
			return ExitOK
		case s := <-signals:
			if ctx.Err() != nil {
				log.Warn("ending at once", "signal", s.String())
				return ExitFailed
			}
			log.Info("ending in good order; once more to end at once", "signal", s.String())
			stop()
		}
	}
}
