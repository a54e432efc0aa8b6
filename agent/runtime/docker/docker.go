// Package docker runs attempts as containers of a Docker Engine, 20.10 or
// later. It is the only importer of the engine's client, test helpers apart.
//
// What it leaves on the engine carries labels that name the cluster, the node
// and the attempt; it never touches a container without its own.
package docker

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/armon/go-metrics"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"

	"ecs/agent/runtime"
)

// How long one call to the engine may take. A call that takes longer has
// failed; what it was asked may still happen, so every user of these undoes
// what it started.
const (
	shortCall = 10 * time.Second // the engine looks something up
	longCall  = time.Minute      // the engine makes, starts or removes something
)

const (
	// maxStarts is how many starts run on the engine at once. More make
	// each slower and none sooner: they queue for the engine's own locks.
	maxStarts = 4
	// hungCalls in a row without an answer make Probe call the engine unfit.
	hungCalls = 3
	// factsFor is how long Probe believes what the engine said of itself;
	// asking makes the engine run three programs.
	factsFor = 5 * time.Minute
)

// Config is what New needs.
type Config struct {
	Client *client.Client // nil: one is made for Host
	Host   string         // empty: $DOCKER_HOST, or the local socket
	// Cluster and Node name the agent in labels. Agents that share an engine
	// must differ in one of them.
	Cluster, Node string
	// Egress offers network to tasks: a bridge for the whole cluster, with
	// the host's own ports, the metadata server and EgressDeny closed off by
	// iptables.
	Egress bool
	// EgressDeny are the networks (CIDR, IPv4) that tasks can't reach, apart
	// from name servers of this machine's that are in them. Nil: the private
	// subnets that this machine is connected to, where the cluster's other nodes
	// are; name them where the machine's address says nothing of its subnet
	// (a cloud that gives /32). Empty: none.
	EgressDeny []string
	Log        *slog.Logger
	Metrics    *metrics.Metrics
}

// Runtime implements runtime.Runtime and runtime.ImageStore on one engine. It
// is safe for concurrent use.
type Runtime struct {
	cfg    Config
	client *client.Client
	log    *slog.Logger
	// local: the engine runs on this machine, so its containers' cgroups and
	// processes can be seen from here.
	local  bool
	starts chan struct{} // one slot for each start under way
	egress *egress
	hung   atomic.Int32 // calls in a row that got no answer in time

	facts struct {
		sync.Mutex
		info  system.Info
		known time.Time // when info was asked for; zero: never
	}
}

var (
	_ runtime.Runtime    = (*Runtime)(nil)
	_ runtime.ImageStore = (*Runtime)(nil)
)

// New makes a Runtime and does no I/O. A wrong Host is told by every method.
func New(cfg Config) *Runtime {
	c := cfg.Client
	if c == nil {
		c = newClient(cfg.Host)
	}
	r := &Runtime{
		cfg:    cfg,
		client: c,
		log:    cfg.Log,
		local:  strings.HasPrefix(c.DaemonHost(), "unix://"),
		starts: make(chan struct{}, maxStarts),
	}
	if cfg.Egress {
		r.egress = newEgress(c, cfg)
	}
	return r
}

func newClient(host string) *client.Client {
	if host == "" {
		host = os.Getenv("DOCKER_HOST")
	}
	if host == "" {
		host = client.DefaultDockerHost
	}
	c, err := client.NewClientWithOpts(client.WithHost(host), client.WithTLSClientConfigFromEnv(), client.WithAPIVersionNegotiation())
	if err == nil {
		return c
	}
	broken := fmt.Errorf("engine address %q: %w", host, err)
	c, err = client.NewClientWithOpts(client.WithDialContext(func(context.Context, string, string) (net.Conn, error) {
		return nil, broken
	}))
	if err != nil {
		panic(err) // the library's own defaults
	}
	return c
}

// Close gives the client's connections back. What is on the engine stays:
// containers are Reap's, and the network of the cluster, which other agents may
// be about to use, Cleanup's.
func (r *Runtime) Close(context.Context) error {
	if r.cfg.Client == nil {
		return r.client.Close()
	}
	return nil
}

// Probe implements runtime.Runtime.
func (r *Runtime) Probe(ctx context.Context) (runtime.Engine, error) {
	if err := r.alive(ctx); err != nil {
		r.forget()
		return runtime.Engine{}, fmt.Errorf("docker engine at %s: %w", r.client.DaemonHost(), err)
	}
	info, err := r.info(ctx)
	if err != nil {
		return runtime.Engine{}, fmt.Errorf("docker engine at %s: %w", r.client.DaemonHost(), err)
	}
	e := runtime.Engine{
		Version:    info.ServerVersion,
		APIVersion: r.client.ClientVersion(),
		MilliCPU:   int64(info.NCPU) * 1000,
		Memory:     info.MemTotal,
		EgressWhy:  "this node offers no network to tasks (egress is off)",
	}
	e.Description = fmt.Sprintf("Docker %s, API %s, cgroup v%s", e.Version, e.APIVersion, info.CgroupVersion)
	if r.egress != nil {
		if _, err := r.egress.ensure(ctx); err != nil {
			e.EgressWhy = err.Error()
		} else {
			e.Egress, e.EgressWhy = true, ""
		}
	}
	return e, nil
}

// alive asks the engine for a sign of life. After hungCalls it asks for one
// that needs more of the engine than its front door.
func (r *Runtime) alive(ctx context.Context) error {
	if r.hung.Load() < hungCalls {
		return r.call(ctx, "ping", shortCall, func(ctx context.Context) error {
			_, err := r.client.Ping(ctx)
			return err
		})
	}
	err := r.call(ctx, "list", shortCall, func(ctx context.Context) error {
		_, err := r.client.ContainerList(ctx, container.ListOptions{Filters: r.own(), All: true})
		return err
	})
	if err != nil {
		return fmt.Errorf("%d calls in a row got no answer: %w", r.hung.Load(), err)
	}
	return nil
}

// info is what the engine says of itself, asked for now and then.
func (r *Runtime) info(ctx context.Context) (system.Info, error) {
	r.facts.Lock()
	info, known := r.facts.info, r.facts.known
	r.facts.Unlock()
	if !known.IsZero() && time.Since(known) < factsFor {
		return info, nil
	}
	err := r.call(ctx, "info", shortCall, func(ctx context.Context) (err error) {
		info, err = r.client.Info(ctx)
		return err
	})
	if err != nil {
		return system.Info{}, err
	}
	r.facts.Lock()
	r.facts.info, r.facts.known = info, time.Now()
	r.facts.Unlock()
	return info, nil
}

// forget makes the next info ask again: another engine may answer then.
func (r *Runtime) forget() {
	r.facts.Lock()
	r.facts.known = time.Time{}
	r.facts.Unlock()
}

// call gives one engine call its deadline and counts it. An answer in time,
// also a refusal, is a sign of life.
func (r *Runtime) call(ctx context.Context, name string, limit time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer from the engine in %s", limit))
	defer cancel()
	begun := time.Now()
	err := do(ctx)
	r.measure(name, begun, err)
	if err == nil || ctx.Err() == nil {
		r.hung.Store(0)
		return err
	}
	if time.Since(begun) >= limit {
		r.hung.Add(1)
		return fmt.Errorf("%s: %w", name, context.Cause(ctx))
	}
	return err
}
