package devcluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"al.essio.dev/pkg/shellescape"

	"ecs/agent/runtime/docker"
	"ecs/internal/admin"
)

// RemoveOptions say what is to leave a cluster that runs.
type RemoveOptions struct {
	Dir      string
	Names    []string
	Force    bool // also what can't leave in good order
	Progress io.Writer
	Within   time.Duration // for each; default 60s
}

// Remove has nodes leave in good order, one after the other, and removes all of
// them.
func Remove(ctx context.Context, o RemoveOptions) (*Status, error) {
	base, err := Options{Dir: o.Dir, Within: o.Within, Progress: o.Progress}.withDefaults()
	if err != nil {
		return nil, err
	}
	c, unlock, err := change(base.Dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for _, name := range o.Names {
		i := slices.IndexFunc(c.Nodes, func(n node) bool { return n.Name == name || n.ID == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no node %s in the cluster in %s: `ecsctl dev status --dir %s` lists them", name, c.dir, shellescape.Quote(c.dir))
		}
		if err := c.remove(ctx, c.Nodes[i], o.Force, base); err != nil {
			return nil, fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return c.status(ctx)
}

func (c *cluster) remove(ctx context.Context, n node, force bool, o Options) error {
	err := c.leave(ctx, n, o)
	if err != nil && !force && !c.wentBadly(ctx, n) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.Within) // force has a time of its own
	defer cancel()
	if err != nil {
		o.say("%s: %v", n.Name, err)
		if err := c.forceOut(ctx, n, o); err != nil {
			return err
		}
	}
	if err := c.discard(ctx, n); err != nil {
		return err
	}
	o.say("%s: gone", n.Name)
	return nil
}

// leave has a node leave in good order. It is never forced to: what the cluster
// refuses would cost it its majority.
func (c *cluster) leave(ctx context.Context, n node, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, o.Within)
	defer cancel()
	return admin.NewClient(c.path(n.Name, "data")).Leave(ctx, false, func(text string) { o.say("%s: %s", n.Name, text) })
}

// wentBadly reports that an agent which was to leave has ended, though not in good
// order: the engine was too slow, say. Its tasks move when its lease is over.
func (c *cluster) wentBadly(ctx context.Context, n node) bool {
	if n.Role != roleAgent {
		return false
	}
	daemon := func(p process) bool { return p.name == n.Name }
	if err := c.waitGone(ctx, daemon, killWithin); err != nil {
		return false
	}
	running, err := c.running()
	return err == nil && running[n.Name] == 0
}

// discard ends what still runs of a node and removes it: from the engine, from
// the record and its files.
func (c *cluster) discard(ctx context.Context, n node) error {
	of := func(p process) bool { return p.dir == n.Name }
	daemon := func(p process) bool { return of(p) && p.binary != fenceBinary }
	for _, step := range []struct {
		signal syscall.Signal
		which  func(process) bool
	}{{syscall.SIGTERM, daemon}, {syscall.SIGKILL, daemon}, {syscall.SIGTERM, of}, {syscall.SIGKILL, of}} {
		if err := c.waitGone(ctx, step.which, time.Second); err != nil {
			return err
		}
		sent, err := c.signal(step.signal, step.which)
		if err != nil {
			return err
		}
		if sent > 0 {
			if err := c.waitGone(ctx, step.which, killWithin); err != nil {
				return err
			}
		}
	}
	if n.Role == roleAgent {
		if err := c.cleanNode(ctx, n); err != nil {
			return err
		}
		c.HadAgents = true
	}
	c.Nodes = slices.DeleteFunc(c.Nodes, func(other node) bool { return other.Name == n.Name })
	if err := c.save(); err != nil {
		return err
	}
	return os.RemoveAll(c.path(n.Name))
}

// cleanNode removes an agent's containers, where it could not do so itself.
func (c *cluster) cleanNode(ctx context.Context, n node) error {
	engine, err := newEngine(c.DockerHost)
	if err != nil {
		return err
	}
	defer engine.Close()
	ctx, cancel := context.WithTimeout(ctx, cleanupWithin)
	defer cancel()
	_, err = docker.CleanupNode(ctx, engine, c.Name, n.ID)
	return err
}
