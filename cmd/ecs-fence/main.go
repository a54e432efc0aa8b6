// Command ecs-fence ends the attempts of this machine at their deadlines, from
// outside, also when the agent or the engine no longer can. See ecs/internal/fence.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"ecs/internal/daemon"
	"ecs/internal/fence"
	"ecs/internal/telemetry"
)

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	os.Exit(program().Main(os.Args[1:], os.Stdout, os.Stderr, signals))
}

// options are the settings of a fence.
type options struct {
	socket, stateDir string
	uid              func() int
}

func program() daemon.Program {
	o := &options{uid: os.Geteuid}
	return daemon.Program{Name: "ecs-fence", Define: o.define, Check: o.check, Run: o.run}
}

func (o *options) define(fs *flag.FlagSet) {
	fs.StringVar(&o.socket, "socket", "/run/ecs/fence.sock", "`path` of the socket that agents speak to; only root may")
	fs.StringVar(&o.stateDir, "state-dir", "/run/ecs/fence", "`directory` of deadlines, for one fence alone, on a tmpfs")
}

func (o *options) check() error {
	var faults []error
	for name, path := range map[string]string{"socket": o.socket, "state-dir": o.stateDir} {
		if !filepath.IsAbs(path) {
			faults = append(faults, fmt.Errorf("--%s %q: want an absolute path", name, path))
		}
	}
	return errors.Join(faults...)
}

var errNotRoot = errors.New("ecs-fence must run as root to kill the processes of tasks: start its systemd unit, or use sudo")

func (o *options) run(ctx context.Context, log *slog.Logger, _ *telemetry.Ring) error {
	if o.uid() != 0 {
		return errNotRoot
	}
	if err := fence.Prioritise(); err != nil {
		log.Warn("a saturated machine may delay the fence", "err", err)
	}
	return fence.NewServer(fence.ServerConfig{Socket: o.socket, StateDir: o.stateDir, Log: log}).Run(ctx)
}
