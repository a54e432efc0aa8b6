package devcluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"

	"ecs/internal/task"
	"ecs/proto/api"
)

// Up starts a cluster and returns once every node of it is ready. When that
// fails or ctx ends first, nothing of it is left.
func Up(ctx context.Context, o Options) (*Status, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	if err := o.possible(ctx); err != nil {
		return nil, err
	}
	c, err := plan(o)
	if err != nil {
		return nil, err
	}
	if err := c.claim(); err != nil {
		return nil, err
	}
	if err = c.bringUp(ctx, o); err == nil {
		if o.Agents > 0 && c.withoutNetwork(ctx) {
			o.say("the agents offer no network to tasks: run as root")
		}
		return c.status(ctx)
	}
	o.say("Removing what was started.")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downWithin)
	defer cancel()
	return nil, errors.Join(err, c.down(ctx))
}

// possible looks for what is in the way, before anything is made.
func (o Options) possible(ctx context.Context) error {
	if err := checkDir(o.Dir); err != nil {
		return err
	}
	for i := range o.Controls {
		if err := checkPort(o.HTTPPort + i); err != nil {
			return err
		}
	}
	if o.Agents == 0 {
		return nil
	}
	return pingEngine(ctx, o.DockerHost)
}

func (c *cluster) bringUp(ctx context.Context, o Options) error {
	if err := c.writeFiles(o); err != nil {
		return err
	}
	o.say("Starting %d control nodes and %d agents in %s.", o.Controls, o.Agents, c.dir)
	if !c.Fenced && o.Agents > 0 {
		o.say("the agents have no outer fence (ecs-fence): run as root")
	}
	for _, p := range c.processes() {
		if err := c.start(p, o.Binaries); err != nil {
			return err
		}
	}
	ready, cancel := context.WithTimeout(ctx, o.Within)
	defer cancel()
	if err := c.waitReady(ready); err != nil {
		if ctx.Err() != nil {
			return ctx.Err() // the caller's, not ours
		}
		return err
	}
	return nil
}

// notReady says which node is not ready, and why.
type notReady struct {
	node node
	why  error
}

func (e *notReady) Error() string { return e.node.Name + " is not ready: " + e.why.Error() }
func (e *notReady) Unwrap() error { return e.why }

// waitReady waits until every node of the cluster is ready, one has died or ctx
// ends.
func (c *cluster) waitReady(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		running, err := c.running()
		if err != nil {
			return err
		}
		for _, p := range c.processes() {
			if running[p.name] == 0 && c.ended(p) {
				return fmt.Errorf("%s ended by itself; the end of its log:\n%s", p.name, c.logTail(p.log))
			}
		}
		// A look that the end of ctx cut short says nothing of the nodes.
		if err := c.ready(ctx); ctx.Err() == nil || last == nil {
			last = err
		}
		if last == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			var late *notReady
			if errors.As(last, &late) {
				return fmt.Errorf("no cluster in time: %w; the end of its log:\n%s", last, c.logTail(nodeProcess(late.node).log))
			}
			return fmt.Errorf("no cluster in time: %w", last)
		}
	}
}

// ready asks every node whether it is ready, all at once, and every control
// node whether it sees all agents ready. The error is a *notReady.
func (c *cluster) ready(ctx context.Context) error {
	const answerWithin = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var g errgroup.Group
	for _, n := range c.Nodes {
		g.Go(func() error {
			err := healthy(ctx, n.Health)
			if err == nil && n.Role == roleControl {
				return c.seesAgents(ctx, n)
			}
			if err != nil {
				return &notReady{n, err}
			}
			return nil
		})
	}
	return g.Wait()
}

func healthy(ctx context.Context, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("its health check says %s", resp.Status)
	}
	return nil
}

// seesAgents reports the first agent that control node n does not see ready.
func (c *cluster) seesAgents(ctx context.Context, n node) error {
	client, err := c.client(n)
	if err != nil {
		return &notReady{n, err}
	}
	nodes, err := client.Nodes(ctx)
	if err != nil {
		return &notReady{n, err}
	}
	seen := make(map[string]string, len(nodes))
	for _, a := range nodes {
		seen[a.ID] = a.Status
		if a.Unfit != "" {
			seen[a.ID] = a.Unfit
		}
	}
	for _, a := range c.Nodes {
		if a.Role == roleAgent && seen[a.ID] != "ready" {
			if seen[a.ID] == "" {
				seen[a.ID] = "it has not registered"
			}
			return &notReady{a, errors.New(seen[a.ID])}
		}
	}
	return nil
}

// withoutNetwork reports that no agent can give tasks a network, as far as that
// can be asked.
func (c *cluster) withoutNetwork(ctx context.Context) bool {
	client, err := c.client(c.Nodes[0])
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	nodes, err := client.Nodes(ctx)
	return err == nil && !slices.ContainsFunc(nodes, func(n api.Node) bool {
		return n.Attributes[task.AttributeEgress] == "true"
	})
}

// pingEngine asks for a sign of life: without an engine, every agent would wait
// in vain.
func pingEngine(ctx context.Context, host string) error {
	engine, err := newEngine(host)
	if err != nil {
		return err
	}
	defer engine.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := engine.Ping(ctx); err != nil {
		return fmt.Errorf("no container engine answers at %s (run: ops/setup/engine.sh): %w", engine.DaemonHost(), err)
	}
	return nil
}

func newEngine(host string) (*client.Client, error) {
	options := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if host != "" {
		options = append(options, client.WithHost(host))
	}
	c, err := client.NewClientWithOpts(options...)
	if err != nil {
		return nil, fmt.Errorf("engine address %q: %w", host, err)
	}
	return c, nil
}
