package ecstest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"

	"ecs/agent"
	"ecs/agent/output"
	"ecs/agent/runtime/fake"
	"ecs/agent/spool"
	"ecs/control"
	"ecs/control/api"
	"ecs/control/replica"
	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/gossip"
	"ecs/internal/memnet"
	"ecs/internal/pki"
	"ecs/internal/seal"
	"ecs/internal/task"
	"ecs/internal/telemetry"
	"ecs/proto/ecs/v1/rpc"
)

const (
	httpPort, healthPort, rpcPort, raftPort, gossipPort, outputPort = 8448, 8080, 7448, 7449, 7946, 7450
)

// since is a monotonic clock of the bubble.
func since(start time.Time) func() time.Duration {
	return func() time.Duration { return time.Since(start) + time.Hour }
}

// peerOf reads a caller's identity from its host name: in memory there is no
// certificate, and no one to pretend.
func peerOf(ctx context.Context) (pki.Identity, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return pki.Identity{}, errors.New("no peer")
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return pki.Identity{}, err
	}
	role := pki.RoleControl
	if strings.HasPrefix(host, "a") {
		role = pki.RoleAgent
	}
	return pki.Identity{Cluster: "bubble", Role: role, ID: host}, nil
}

func dialer(h *memnet.Host) func(addr string) (*grpc.ClientConn, error) {
	return func(addr string) (*grpc.ClientConn, error) {
		dial := h.DialFunc()
		return grpc.NewClient("passthrough:///"+addr, append(rpc.DialOptions(),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return dial(ctx, addr) }))...)
	}
}

// process is what starts, stops and crashes alike in both kinds of node.
type process struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
	up     atomic.Bool
}

// Up reports whether the node's process runs.
func (p *process) Up() bool { return p.up.Load() }

func (p *process) launch(c *Cluster, name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancelCause(c.ctx)
	p.cancel, p.done = cancel, make(chan struct{})
	p.up.Store(true)
	done := p.done
	c.running.Go(func() {
		defer close(done)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			c.T.Errorf("%s ended by itself: %v", name, err)
		}
		p.up.Store(false)
	})
}

// stop ends the process and waits for it. A nil cause asks for a good order.
func (p *process) stop(cause error) {
	if p.cancel != nil {
		p.cancel(cause)
		<-p.done
	}
}

func (c *Cluster) join() []string {
	return c.through()
}

func (c *Cluster) gossipConfig(h *memnet.Host, keys *gossip.Keyring) gossip.Config {
	transport, err := gossip.NewMemTransport(h, gossipPort)
	if err != nil {
		c.T.Fatalf("gossip transport of %s: %v", h.Name(), err)
	}
	return gossip.Config{Name: h.Name(), Keys: keys, Label: "bubble", Transport: transport, Join: c.join(),
		Logger: c.logger(h.Name()), Metrics: telemetry.Discard()}
}

// Control is one control node. Its log survives crashes, its memory does not.
type Control struct {
	process
	c      *Cluster
	host   *memnet.Host
	zone   string
	late   bool // it came when the cluster was there, and forms none
	stores *replica.Stores
	disk   ringDisk
	server *control.Server
}

// Start starts the node, with the log it had.
func (n *Control) Start() {
	c, h := n.c, n.host
	if n.stores == nil {
		n.stores = replica.MemStores()
	}
	listen := func(port int) net.Listener {
		l, err := h.Listen(port)
		if err != nil {
			c.T.Fatalf("listen on %s:%d: %v", h.Name(), port, err)
		}
		return l
	}
	expect := c.opts.Controls
	if n.late {
		expect = 0
	}
	box, err := seal.NewBox(c.sealKey)
	if err != nil {
		c.T.Fatal(err)
	}
	addr := func(port int) string { return fmt.Sprintf("%s:%d", h.Name(), port) }
	var audit *telemetry.Audit
	if c.opts.Audit != nil {
		audit = telemetry.NewAudit(c.opts.Audit, slog.String("node", h.Name()))
	}
	keys := n.disk.keyring(c)
	var firstKey control.FirstKey
	if c.opts.FirstKey != nil {
		firstKey = c.opts.FirstKey(h.Name())
	}
	server, err := control.New(control.Config{
		FirstKey: firstKey,
		ID:       h.Name(), Name: h.Name(), Zone: n.zone, Version: c.opts.Version(h.Name()), Cluster: "bubble", BootstrapExpect: expect,
		HTTPAdvertise: addr(httpPort), RPCAdvertise: addr(rpcPort), RaftAdvertise: addr(raftPort),
		HTTP: listen(httpPort), Health: listen(healthPort), RPC: listen(rpcPort),
		Raft:   replica.NewStream(listen(raftPort), addr(raftPort), h.DialFunc()),
		Stores: n.stores, Gossip: c.gossipConfig(h, keys),
		ServerCreds: insecure.NewCredentials(), DialPeer: dialer(h), DialAgent: dialer(h), Peer: peerOf,
		Seal: box, Auth: anyone{}, Log: c.logger(h.Name()), Recent: c.ring(h.Name()), Audit: audit, Metrics: telemetry.Discard(),
		Now: since(time.Now()), DrainFor: c.opts.Drain,
	})
	if err != nil {
		c.T.Fatalf("control node %s: %v", h.Name(), err)
	}
	n.server = server
	c.watch.control(n)
	n.launch(c, h.Name(), func(ctx context.Context) error {
		watching, stop := context.WithCancel(context.WithoutCancel(ctx))
		watched := make(chan struct{})
		go func() { defer close(watched); n.disk.follow(watching, c, h, keys, server.Members()) }()
		err := server.Run(ctx)
		stop()
		<-watched
		return err
	})
}

// Crash cuts the node off at once and ends its process.
func (n *Control) Crash() {
	n.host.Crash(true)
	n.stop(nil)
}

// Restart brings a crashed node back.
func (n *Control) Restart() {
	n.host.Restart()
	n.Start()
}

// Agent is one agent with an engine of its own. Engine, clock and disk outlive
// its process; the disk outlives the machine's boot too.
type Agent struct {
	process
	c      *Cluster
	host   *memnet.Host
	zone   string
	engine *fake.Engine
	dir    string
	disk   ringDisk
	boot   int
	clock  func() time.Duration
	agent  *agent.Agent
}

func newAgent(c *Cluster, i int) *Agent {
	a := &Agent{c: c, host: c.Net.Host(fmt.Sprintf("a%d", i+1)), zone: c.opts.Zones[i%len(c.opts.Zones)],
		engine: fake.NewEngine(), dir: c.T.TempDir()}
	a.powerOn()
	if slow := c.opts.SlowKill; slow > 0 {
		// A stream of its own, because kills come from many goroutines.
		a.engine.SlowKill(slow, c.Rand.Uint64())
	}
	return a
}

// powerOn begins another boot of the machine.
func (a *Agent) powerOn() {
	a.boot++
	a.clock = since(time.Now())
	a.engine.SetClock(a.clock)
}

// ID is the agent's node id.
func (a *Agent) ID() task.NodeID { return task.NodeID(a.host.Name()) }

// Start starts the agent on its engine.
func (a *Agent) Start() {
	c, h := a.c, a.host
	log := c.logger(h.Name())
	files, err := spool.Open(filepath.Join(a.dir, "spool"), 1<<30, log)
	if err != nil {
		c.T.Fatalf("spool of %s: %v", h.Name(), err)
	}
	l, err := h.Listen(outputPort)
	if err != nil {
		c.T.Fatalf("listen on %s: %v", h.Name(), err)
	}
	keys := a.disk.keyring(c)
	cfg := c.gossipConfig(h, keys)
	cfg.Self = gossip.Member{ID: h.Name(), Role: "agent", Zone: a.zone, Version: "test"}
	members := gossip.New(cfg)
	dial := dialer(h)
	a.agent = agent.New(agent.Config{
		ID: a.ID(), Name: h.Name(), Zone: a.zone, Version: "test", Capacity: c.opts.Capacity,
		OutputAddr: fmt.Sprintf("%s:%d", h.Name(), outputPort),
		Runtime:    a.engine.For(h.Name()), Images: a.engine.Images(), Spool: files,
		JournalDir: filepath.Join(a.dir, "journal"), BootID: strconv.Itoa(a.boot),
		Controls: func() ([]string, <-chan struct{}) {
			changed := members.Changed()
			return controlsIn(members), changed
		},
		Dial:      func(_ context.Context, addr string) (*grpc.ClientConn, error) { return dial(addr) },
		DialAgent: dial,
		Now:       a.clock, Log: log, Metrics: telemetry.Discard(), Grace: time.Second,
		WarmCount: 4, WarmMemory: 1 << 30,
	})
	recent := c.ring(h.Name())
	a.launch(c, h.Name(), func(ctx context.Context) error {
		guard := &output.Guard{Peer: peerOf, Grants: a.agent}
		server := grpc.NewServer(append(rpc.ServerOptions(), grpc.ChainUnaryInterceptor(guard.Unary()), grpc.ChainStreamInterceptor(guard.Stream()))...)
		rpc.RegisterOutputServer(server, output.New(files, guard))
		rpc.RegisterAttachServer(server, output.NewAttach(a.agent))
		rpc.RegisterLogsServer(server, telemetry.NewLogServer(recent, nil))
		served := make(chan struct{})
		go func() { defer close(served); _ = server.Serve(l) }()
		life, stop := context.WithCancel(context.WithoutCancel(ctx))
		gossiped, watched := make(chan struct{}), make(chan struct{})
		go func() { defer close(gossiped); _ = members.Run(life) }()
		go func() { defer close(watched); a.disk.follow(life, c, h, keys, members) }()
		err := a.agent.Run(ctx)
		stop()
		server.Stop()
		<-served
		<-gossiped
		<-watched
		return err
	})
}

// Crash ends the whole machine at once: engine, programs and agent.
func (a *Agent) Crash() {
	a.engine.Crash()
	a.engine.Orphan(a.host.Name())
	a.host.Crash(true)
	a.stop(agent.ErrKilled)
}

// Restart brings a crashed machine back, with nothing running.
func (a *Agent) Restart() {
	a.powerOn()
	a.Revive()
}

// Kill ends the processes of agents, all at once. Their programs go on.
func (c *Cluster) Kill(agents ...*Agent) {
	var all sync.WaitGroup
	for _, a := range agents {
		a.engine.Orphan(a.host.Name())
		a.host.Crash(false)
		all.Go(func() { a.stop(agent.ErrKilled) }) // gossip takes its time to end
	}
	all.Wait()
}

// Revive starts the agent again on what it has left behind.
func (a *Agent) Revive() {
	a.host.Restart()
	a.Start()
}

// anyone lets every key in, as the owner of that name, to its own tasks.
type anyone struct{}

func (anyone) Remembered(key, _ string) (access.Principal, bool) {
	return access.Principal{Owner: key, Role: access.Run}, key != ""
}

func (anyone) Holder(key string) (access.Principal, string, bool) {
	return access.Principal{Owner: key, Role: access.Run}, "", key != ""
}

func (anyone) Authenticate(context.Context, api.Attempt) (access.Principal, error) {
	return access.Principal{}, api.ErrWrongSecret
}

func (anyone) Counts(access.Principal) bool { return true }

func (anyone) Changed() (<-chan struct{}, time.Duration) { return nil, 0 }

// Name is the node's host name and id.
func (n *Control) Name() string { return n.host.Name() }

// Snapshot is the node's present record.
func (n *Control) Snapshot() *state.Snapshot { return n.server.Snapshot() }

// Ready reports whether the node's health check passes.
func (n *Control) Ready() bool { return n.server.Health(context.Background()).Ready }
