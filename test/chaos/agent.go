package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"ecs/agent"
	"ecs/agent/output"
	"ecs/agent/runtime/fake"
	"ecs/agent/spool"
	"ecs/internal/daemon"
	"ecs/internal/gossip"
	"ecs/internal/pki"
	"ecs/internal/task"
	"ecs/internal/telemetry"
	"ecs/proto/ecs/v1/rpc"
	"ecs/test/chaos/procs"
)

// The commands that make this program something other than the test itself.
const (
	agentCommand   = "agent"
	programCommand = "program"
)

// processAgent is ecs-agent with package procs for its engine: everything else of
// it is what ecs-agent is made of.
type processAgent struct {
	daemon.Place
	daemon.Trust
	outputAddr, healthAddr, witness string
	cpus                            daemon.CPUs
	memory                          daemon.Bytes
	node                            *pki.Node
	gossipKey                       []byte
}

func (o *processAgent) program() daemon.Program {
	return daemon.Program{Name: "chaos-agent", Define: o.define, Check: o.check, Run: o.run}
}

func (o *processAgent) define(fs *flag.FlagSet) {
	o.Place.Define(fs, "")
	o.Trust.Define(fs)
	fs.StringVar(&o.outputAddr, "output-addr", ":7450", "")
	fs.StringVar(&o.healthAddr, "health-addr", "", "")
	fs.StringVar(&o.witness, "witness", "", "`directory` that programs tell of their life in")
	fs.Var(&o.cpus, "cpus", "")
	fs.Var(&o.memory, "memory", "")
}

func (o *processAgent) check() (err error) {
	o.node, o.gossipKey, err = o.Trust.Load(pki.RoleAgent)
	return errors.Join(o.Place.Check(), err)
}

func (o *processAgent) run(ctx context.Context, log *slog.Logger, _ *telemetry.Ring) (err error) {
	id := o.node.Identity()
	data, err := daemon.OpenDataDir(o.DataDir, id.ID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	files, err := spool.Open(data.Path("spool"), 1<<30, log)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.outputAddr)
	if err != nil {
		return err
	}
	defer listener.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	engine, err := procs.New(procs.Config{Dir: data.Path("attempts"), Node: id.ID, Program: []string{self, programCommand}, Witness: o.witness})
	if err != nil {
		return err
	}
	capacity := task.Capacity{MilliCPU: int64(o.cpus), Memory: int64(o.memory)}
	keys, err := data.Keyring(o.gossipKey)
	if err != nil {
		return err
	}
	members := gossip.New(gossip.Config{
		Self: gossip.Member{ID: id.ID, Role: string(pki.RoleAgent), Zone: o.Zone, Version: "chaos", MilliCPU: capacity.MilliCPU, Memory: capacity.Memory},
		Name: id.ID, Keys: keys, Label: id.Cluster, BindAddr: o.GossipAddr, Join: o.Join, Logger: log, Metrics: telemetry.Discard(),
	})
	dial := daemon.Dialer(o.node, pki.RoleControl, new(gossipmonger).option())
	a := agent.New(agent.Config{
		ID: task.NodeID(id.ID), Name: o.Name, Zone: o.Zone, Version: "chaos", Capacity: capacity, OutputAddr: listener.Addr().String(),
		Runtime: engine, Images: fake.NewEngine().Images(), Spool: files,
		Controls:  func() ([]string, <-chan struct{}) { return controlAddrs(members) },
		Dial:      func(_ context.Context, addr string) (*grpc.ClientConn, error) { return dial(addr) },
		DialAgent: daemon.Dialer(o.node, pki.RoleAgent),
		Now:       daemon.Boottime, JournalDir: data.Path("journal"), Grace: -1, Log: log, Metrics: telemetry.Discard(),
	})
	guard := &output.Guard{Peer: pki.FromContext, Grants: a}
	server := grpc.NewServer(append(rpc.ServerOptions(), grpc.Creds(credentials.NewTLS(o.node.ServerTLS(pki.RoleControl, pki.RoleAgent))),
		grpc.ChainUnaryInterceptor(guard.Unary()), grpc.ChainStreamInterceptor(guard.Stream()))...)
	rpc.RegisterOutputServer(server, output.New(files, guard))
	rpc.RegisterAttachServer(server, output.NewAttach(a))
	return o.live(ctx, a, server, listener, members)
}

// live runs the agent until it has left, and what serves it until then.
func (o *processAgent) live(ctx context.Context, a *agent.Agent, server *grpc.Server, listener net.Listener, members *gossip.Members) error {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	health := &http.Server{Addr: o.healthAddr, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { tell(w, a.Status()) })}
	var g errgroup.Group
	g.Go(func() error { return members.Run(life) })
	g.Go(func() error { return server.Serve(listener) })
	g.Go(func() error {
		if err := health.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve health: %w", err)
		}
		return nil
	})
	err := a.Run(ctx)
	stop()
	server.Stop()
	_ = health.Close() // nobody waits for an answer
	if rest := g.Wait(); !errors.Is(rest, context.Canceled) {
		err = errors.Join(err, rest)
	}
	return err
}

// tell answers as ecs-agent's readyz does.
func tell(w http.ResponseWriter, s agent.Status) {
	if !s.Connected {
		http.Error(w, "no session with a leader", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintf(w, "ready, %d tasks, leader %s, last answer %.1f s ago\n", s.Running, s.Leader, s.Contact.Seconds())
}

func controlAddrs(members *gossip.Members) ([]string, <-chan struct{}) {
	changed := members.Changed() // before the look, so that no change is missed
	var addrs []string
	for _, m := range members.Snapshot() {
		if m.Role == string(pki.RoleControl) {
			addrs = append(addrs, m.RPCAddr)
		}
	}
	return addrs, changed
}
