package devcluster

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"ecs/proto/api"
)

// forceOut has the other control nodes take one out of the configuration that did
// not leave by itself. It is killed once they agreed to, and not before: they may
// need its vote, and then it is kept as it is. Only where no other one answers is
// nobody asked: there is no cluster then.
func (c *cluster) forceOut(ctx context.Context, n node, o Options) error {
	if n.Role != roleControl {
		return nil // its tasks move
	}
	answered, err := c.askOut(ctx, n)
	if err == nil {
		answered, err = c.untilOut(ctx, n)
	}
	switch {
	case err == nil:
		return nil
	case !answered:
		o.say("%s: no other control node answers (%v): removed without asking", n.Name, err)
		return nil
	}
	return fmt.Errorf("the cluster does not let it go, so its data is kept: %w", err)
}

// untilOut kills a control node whose removal was agreed to, and asks until it is
// out: those that are left may have to elect a leader first.
func (c *cluster) untilOut(ctx context.Context, n node) (answered bool, err error) {
	of := func(p process) bool { return p.dir == n.Name }
	if _, err := c.signal(syscall.SIGKILL, of); err != nil {
		return true, err
	}
	if err := c.waitGone(ctx, of, killWithin); err != nil {
		return true, err
	}
	deadline := time.Now().Add(outWithin)
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		if _, err = c.askOut(ctx, n); err == nil || time.Now().After(deadline) {
			return true, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return true, err
		}
	}
}

// outWithin is how long the rest of a cluster may take to go on without a node.
const outWithin = 15 * time.Second

// askOut asks the other control nodes to have one leave, by force if it can't be
// asked. It reports whether any of their processes is there to answer; a node that is
// no member is out.
func (c *cluster) askOut(ctx context.Context, n node) (answered bool, err error) {
	err = errors.New("there is no other")
	for _, other := range c.Nodes {
		if other.Role != roleControl || other.Name == n.Name {
			continue
		}
		client, failed := c.client(other)
		if failed != nil {
			return true, failed
		}
		_, failed = client.Leave(ctx, n.ID, true)
		client.Close()
		switch {
		case failed == nil, errors.Is(failed, &api.Problem{Code: api.CodeNotFound}):
			return true, nil
		case errors.Is(failed, &api.Problem{Code: api.CodeMembership}):
			return true, fmt.Errorf("%s: %w", other.Name, failed)
		case !errors.Is(failed, syscall.ECONNREFUSED): // also one that takes too long
			answered, err = true, fmt.Errorf("%s: %w", other.Name, failed)
		case !answered:
			err = fmt.Errorf("%s: %w", other.Name, failed)
		}
	}
	return answered, err
}
