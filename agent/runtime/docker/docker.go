// Package docker runs attempts as containers of a Docker Engine, 20.10 or
// later. It is the only importer of the engine's client, test helpers apart.
//
// What it leaves on the engine carries labels that name the cluster, the node
// and the attempt; it never touches a container without its own.
package docker

import (
	"context"
	"errors"
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
	"ecs/internal/fence"
)

// How long one call to the engine may take. A call that takes longer has
// failed; what it was asked may still happen, so every user of these undoes
// what it started.
const (
	shortCall = 10 * time.Second // the engine looks something up
	longCall  = time.Minute      // the engine makes, starts or removes something
)

const (
	// DefaultStarts is how many starts run on the engine at once. More make
	// each slower and none sooner: they queue for the engine's own locks.
	DefaultStarts = 4
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
	// InitBinary is the program ecs-init, which is PID 1 of every container.
	InitBinary string
	// StateDir is where attempts have their directories and their records for
	// the next process of this agent. Programs must be executable in it; it is
	// this agent's alone.
	StateDir string
	// Starts is how many starts run on the engine at once. Default DefaultStarts;
	// agents that share an engine share this out among them.
	Starts int
	// Fence ends attempts from outside when their lease is over. Nil: nothing
	// does.
	Fence   Fence
	Log     *slog.Logger
	Metrics *metrics.Metrics
}

// Fence is what fence.Client does.
type Fence interface {
	Add(ctx context.Context, e fence.Entry) error
	Renew(id string, deadline time.Duration)
	Remove(ctx context.Context, id string) error
	Kill(ctx context.Context, id string) error
	Healthy() error
}

var _ Fence = (*fence.Client)(nil)

// Runtime implements runtime.Runtime and runtime.ImageStore on one engine. It
// is safe for concurrent use.
type Runtime struct {
	cfg     Config
	client  *client.Client
	log     *slog.Logger
	homes   homes
	images  imageConfigs
	lookups lookups
	starts  *turns
	parking parking
	egress  *egress
	hung    atomic.Int32 // calls in a row that got no answer in time

	// life ends with Close, and with it everything in tasks.
	life   context.Context
	finish context.CancelCauseFunc
	tasks  sync.WaitGroup

	learned struct {
		sync.Mutex
		facts
		known time.Time // when they were; zero: never
	}
}

var (
	_ runtime.Runtime    = (*Runtime)(nil)
	_ runtime.ImageStore = (*Runtime)(nil)
)

// New makes a Runtime and does no I/O. A wrong Host is told by every method.
func New(cfg Config) *Runtime {
	if cfg.Starts <= 0 {
		cfg.Starts = DefaultStarts
	}
	c := cfg.Client
	if c == nil {
		c = newClient(cfg.Host)
	}
	r := &Runtime{
		cfg:    cfg,
		client: c,
		log:    cfg.Log,
		homes:  homes{root: cfg.StateDir, binary: cfg.InitBinary},
		starts: newTurns(cfg.Starts),
	}
	r.life, r.finish = context.WithCancelCause(context.Background())
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

// errClosed is why containers are no longer listened to.
var errClosed = errors.New("the agent has given up its hold on the container")

// Close lets go of every container and gives the client's connections back;
// nothing is written to any sink after it. What is on the engine stays:
// containers, which run on, are the next process's to adopt or to reap, and the
// network of the cluster, which other agents may be about to use, is Cleanup's.
func (r *Runtime) Close(context.Context) error {
	r.finish(errClosed)
	r.tasks.Wait()
	if r.cfg.Client == nil {
		return r.client.Close()
	}
	return nil
}

// Probe implements runtime.Runtime.
func (r *Runtime) Probe(ctx context.Context) (runtime.Engine, error) {
	if host := r.client.DaemonHost(); !strings.HasPrefix(host, "unix://") {
		return runtime.Engine{}, fmt.Errorf("docker engine at %s: it has to be on this machine, where its containers can be reached", host)
	}
	if _, err := r.homes.install(); err != nil {
		return runtime.Engine{}, fmt.Errorf("prepare for containers: %w", err)
	}
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

// facts are what an engine is.
type facts struct {
	system.Info
	score int // the least oom_score_adj it can give
}

// info is what the engine says of itself, asked for now and then.
func (r *Runtime) info(ctx context.Context) (facts, error) {
	r.learned.Lock()
	f, known := r.learned.facts, r.learned.known
	r.learned.Unlock()
	if !known.IsZero() && time.Since(known) < factsFor {
		return f, nil
	}
	err := r.call(ctx, "info", shortCall, func(ctx context.Context) (err error) {
		if f.Info, err = r.client.Info(ctx); err == nil {
			f.score, err = r.lowestScore(ctx)
		}
		return err
	})
	if err != nil {
		return facts{}, err
	}
	r.learned.Lock()
	r.learned.facts, r.learned.known = f, time.Now()
	r.learned.Unlock()
	return f, nil
}

// forget makes the next info ask again: another engine may answer then.
func (r *Runtime) forget() {
	r.learned.Lock()
	r.learned.known = time.Time{}
	r.learned.Unlock()
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
