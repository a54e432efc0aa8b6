package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"al.essio.dev/pkg/shellescape"

	"ecs/agent/runtime/docker"
)

// How long the parts of Down may take.
const (
	termWithin    = 12 * time.Second // agents first, then control nodes, each
	killWithin    = 5 * time.Second
	cleanupWithin = 30 * time.Second
	downWithin    = 2*termWithin + 3*killWithin + cleanupWithin
)

// Down ends the cluster in dir and removes all of it: processes, containers,
// network, files. It may be repeated, and works whatever is left of the
// cluster. The error says what could not be removed.
func Down(ctx context.Context, dir string) error {
	c, err := open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return noCluster(dir)
	}
	if err != nil {
		return err
	}
	return c.down(ctx)
}

// noCluster is fine when there is nothing at all, and else no reason to remove
// what somebody has there.
func noCluster(dir string) error {
	if dir == "" {
		dir = DefaultDir
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s holds no cluster: nothing was removed", dir)
	}
	return err
}

func (c *cluster) down(ctx context.Context) error {
	if err := c.stop(ctx); err != nil {
		return fmt.Errorf("the cluster in %s still runs: %w", c.dir, err)
	}
	if err := c.cleanEngine(ctx); err != nil {
		// The record is what the next try goes by.
		return errors.Join(
			fmt.Errorf("containers or networks labelled ecs.cluster=%s may be left on the engine: %w", c.Name, err),
			fmt.Errorf("once it answers, run `ecsctl dev down --dir %s` again", shellescape.Quote(c.dir)),
			c.removeFiles(recordFile))
	}
	if err := c.removeFiles(""); err != nil {
		return fmt.Errorf("remove the cluster's files: %w", err)
	}
	return nil
}

// stop ends the processes: agents first, while there is somebody to report to;
// their fences last, when there is nobody left to fence.
func (c *cluster) stop(ctx context.Context) error {
	agents := func(p process) bool { return p.binary == agentBinary }
	nodes := func(p process) bool { return p.binary != fenceBinary }
	all := func(process) bool { return true }
	for _, step := range []struct {
		signal syscall.Signal
		which  func(process) bool
		within time.Duration
	}{
		{syscall.SIGTERM, agents, c.patience},
		{syscall.SIGTERM, nodes, c.patience},
		{syscall.SIGKILL, nodes, killWithin},
		{syscall.SIGTERM, all, killWithin},
		{syscall.SIGKILL, all, killWithin},
	} {
		sent, err := c.signal(step.signal, step.which)
		if err != nil {
			return err
		}
		if sent == 0 {
			continue
		}
		if err := c.waitGone(ctx, step.which, step.within); err != nil {
			return err
		}
	}
	left, err := c.running()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("these processes do not end: %v", left)
	}
	return err
}

// waitGone waits until none of the chosen processes runs any more, for a while.
func (c *cluster) waitGone(ctx context.Context, which func(process) bool, within time.Duration) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(within)
	defer late.Stop()
	for {
		running, err := c.running()
		if err != nil {
			return err
		}
		gone := true
		for _, p := range c.processes() {
			gone = gone && !(which(p) && running[p.name] != 0)
		}
		if gone {
			return nil
		}
		select {
		case <-tick.C:
		case <-late.C:
			return nil // the next step is harder
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// cleanEngine removes what agents left on the engine. Without an agent that was
// ever started there can be nothing.
func (c *cluster) cleanEngine(ctx context.Context) error {
	if !c.usedEngine() {
		return nil
	}
	engine, err := newEngine(c.DockerHost)
	if err != nil {
		return err
	}
	defer engine.Close()
	ctx, cancel := context.WithTimeout(ctx, cleanupWithin)
	defer cancel()
	_, err = docker.Cleanup(ctx, engine, c.Name)
	return err
}

func (c *cluster) usedEngine() bool {
	entries, err := os.ReadDir(c.dir)
	// An earlier down got as far as the engine: the record is all it left.
	broken := err != nil || len(entries) == 1
	if c.HadAgents {
		return true
	}
	for _, n := range c.Nodes {
		if n.Role == roleAgent && (broken || c.started(n)) {
			return true
		}
	}
	return false
}

// removeFiles removes everything in the cluster's directory but keep and, when
// the directory was made for the cluster and nothing is kept, it as well. The
// record goes last, so that a removal that breaks off can be repeated.
func (c *cluster) removeFiles(keep string) error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == recordFile || e.Name() == keep {
			continue
		}
		if err := os.RemoveAll(filepath.Join(c.dir, e.Name())); err != nil {
			return err
		}
	}
	if keep == recordFile {
		return nil
	}
	if err := os.Remove(c.path(recordFile)); err != nil {
		return err
	}
	if c.MadeDir {
		return os.Remove(c.dir)
	}
	return nil
}
