package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/armon/go-metrics"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"ecs/agent"
	"ecs/agent/images"
	"ecs/agent/output"
	"ecs/agent/runtime/docker"
	"ecs/agent/spool"
	"ecs/internal/admin"
	"ecs/internal/daemon"
	"ecs/internal/fence"
	"ecs/internal/gossip"
	"ecs/internal/pki"
	"ecs/internal/task"
	"ecs/internal/telemetry"
	"ecs/internal/version"
	"ecs/proto/ecs/v1/rpc"
)

func (o *options) run(ctx context.Context, log *slog.Logger, ring *telemetry.Ring) (err error) {
	if o.node == nil {
		if err := o.Trust.AwaitJoin(ctx, &o.Place, pki.RoleAgent, "", o.check, log); err != nil {
			return err
		}
	}
	id := o.node.Identity()
	data, err := daemon.OpenDataDir(o.DataDir, id.ID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	daemon.WarnOfExpiry(log, o.node)
	outputs, err := spool.Open(data.Path("spool"), int64(o.spoolSize), log)
	if err != nil {
		return fmt.Errorf("open the spool: %w", err)
	}
	listener, err := net.Listen("tcp", o.outputAddr)
	if err != nil {
		return err
	}
	defer listener.Close()
	outputAddr, err := daemon.Advertise(listener.Addr().String(), o.Advertise)
	if err != nil {
		return err
	}
	measured, scrape := telemetry.NewMetrics("ecs")
	outer := o.outerFence(log)
	engine := docker.New(docker.Config{Host: o.dockerHost, Cluster: id.Cluster, Node: id.ID, Egress: o.egress, EgressDeny: o.egressDeny,
		InitBinary: o.init, StateDir: data.Path("containers"), Starts: o.starts, Fence: outer, Log: log, Metrics: measured})
	peers := data.Peers(log)
	gossiping, err := o.gossip(ctx, log, measured, peers)
	if err != nil {
		return err
	}
	if gossiping.Keys, err = data.Keyring(o.gossipKey); err != nil {
		return err
	}
	members := gossip.New(gossiping)
	ctx, leaving := withLeaving(ctx)
	dial := daemon.Dialer(o.node, pki.RoleControl)
	a := agent.New(agent.Config{
		ID: task.NodeID(id.ID), Name: o.Name, Zone: o.Zone, Version: version.String(),
		Capacity: o.capacity, OutputAddr: outputAddr, Runtime: engine, Spool: outputs,
		Images: images.New(images.Config{Store: engine, DefaultRegistry: o.defaultRegistry, Insecure: o.insecure,
			DenyLocal: o.localImages.Value == "deny", Log: log, Metrics: measured}),
		Controls:  func() ([]string, <-chan struct{}) { return controls(members) },
		Dial:      func(_ context.Context, addr string) (*grpc.ClientConn, error) { return dial(addr) },
		DialAgent: daemon.Dialer(o.node, pki.RoleAgent), HandOver: grace(o.handOver),
		Now: daemon.Boottime, JournalDir: data.Path("journal"), Grace: grace(o.grace), Removals: o.starts, Log: log, Metrics: measured,
		WarmCount: o.warmCount, WarmMemory: int64(o.warmMemory),
		Unfit: func() string { return why(outer.Healthy()) },
		Leave: func() { leaving.begin() }, GossipAddr: members.Addr,
	})
	log.Info("serving", "node", id.ID, "name", o.Name, "cluster", id.Cluster, "zone", o.Zone, "output", outputAddr,
		"milli_cpu", o.capacity.MilliCPU, "memory", o.capacity.Memory)
	services := []service{members.Run, outer.Run,
		func(ctx context.Context) error {
			guard := &output.Guard{Peer: pki.FromContext, Grants: a}
			return o.serveOutput(ctx, listener, guard, output.New(outputs, guard), output.NewAttach(a), telemetry.NewLogServer(ring, nil))
		}}
	renewal := daemon.Renewal{Node: o.node, File: o.Cert, Dial: dial, Log: log,
		Controls: func() []string { addrs, _ := controls(members); return addrs }}
	revoked := daemon.RevocationWatch{Node: o.node, Controls: renewal.Controls, Dial: dial, Log: log}
	rings := &daemon.RingWatch{Keys: gossiping.Keys, Controls: renewal.Controls, Dial: dial, Log: log,
		Known: append(data.Controls(log), daemon.GuessControls(slices.Concat(o.Join, peers))...)}
	services = append(services, renewal.Run, revoked.Run, rings.Run)
	if o.healthAddr != "" {
		services = append(services, func(ctx context.Context) error { return serveHTTP(ctx, o.healthAddr, health(a, scrape)) })
	}
	admitted, err := admin.Listen(o.DataDir)
	if err != nil {
		return errors.Join(err, closeEngine(ctx, engine))
	}
	// The operator hears the end of a leave: the door closes last.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	var door errgroup.Group
	door.Go(func() error {
		return admin.Serve(life, admitted, &operated{o: o, agent: a, members: members, rings: rings, leaving: leaving})
	})
	services = append(services, func(ctx context.Context) error { data.KeepPeers(ctx, members, log); return nil })
	err = errors.Join(live(ctx, a, services), closeEngine(ctx, engine))
	leaving.ended(err)
	end()
	err = errors.Join(err, door.Wait())
	if leaving.left() {
		err = errors.Join(err, data.Forget())
	}
	return err
}

// outerFence is the agent's side of ecs-fence, or nil when there is to be none.
func (o *options) outerFence(log *slog.Logger) *fence.Client {
	if o.fenceSocket == "" {
		log.Warn("NO OUTER FENCE: --fence-socket is empty. A task that gets the better of its container's first process " +
			"may run on after its lease, beside its next attempt")
		return nil
	}
	return fence.New(o.fenceSocket, log)
}

// why is an error for people, or nothing.
func why(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// service runs until its context ends.
type service func(context.Context) error

// live runs the agent until it has left, and what it needs for that until then.
func live(ctx context.Context, a *agent.Agent, services []service) error {
	// What fails ends the agent in good order, too; what serves it outlives it.
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var g errgroup.Group
	for _, run := range services {
		g.Go(func() error {
			defer leave()
			if err := run(life); err != nil && life.Err() == nil {
				return err
			}
			return nil
		})
	}
	err := a.Run(ctx)
	stop()
	return errors.Join(g.Wait(), err)
}

func (o *options) gossip(ctx context.Context, log *slog.Logger, measured *metrics.Metrics, peers []string) (gossip.Config, error) {
	id := o.node.Identity()
	advertised, err := o.AdvertiseGossip(ctx)
	return gossip.Config{
		Self: gossip.Member{ID: id.ID, Role: string(pki.RoleAgent), Zone: o.Zone, Version: version.String(),
			MilliCPU: o.capacity.MilliCPU, Memory: o.capacity.Memory},
		Name: id.ID, Label: id.Cluster, BindAddr: o.GossipAddr, AdvertiseAddr: advertised,
		Join: o.Join, Rejoin: func() []string { return peers }, Logger: log, Metrics: measured,
	}, err
}

// controls gives the gRPC addresses of the control nodes that gossip shows.
func controls(members *gossip.Members) ([]string, <-chan struct{}) {
	changed := members.Changed() // before the look, so that no change is missed
	var addrs []string
	for _, m := range members.Snapshot() {
		if m.Role == string(pki.RoleControl) {
			addrs = append(addrs, m.RPCAddr)
		}
	}
	return addrs, changed
}

// grace turns the setting's "none" into the agent's.
func grace(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

func (o *options) serveOutput(ctx context.Context, listener net.Listener, guard *output.Guard, outputs rpc.OutputServer, attach rpc.AttachServer, logs rpc.LogsServer) error {
	server := grpc.NewServer(append(rpc.ServerOptions(),
		grpc.Creds(credentials.NewTLS(o.node.ServerTLS(pki.RoleControl, pki.RoleAgent))),
		grpc.ChainUnaryInterceptor(guard.Unary()),
		grpc.ChainStreamInterceptor(guard.Stream(), telemetry.StreamServerCID()))...)
	rpc.RegisterOutputServer(server, outputs)
	rpc.RegisterAttachServer(server, attach)
	rpc.RegisterLogsServer(server, logs)
	stopped := context.AfterFunc(ctx, server.Stop)
	defer stopped()
	if err := server.Serve(listener); err != nil {
		return fmt.Errorf("serve output: %w", err)
	}
	return nil
}

// closeEngine gives the connections to the engine back.
func closeEngine(ctx context.Context, engine *docker.Runtime) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	if err := engine.Close(ctx); err != nil {
		return fmt.Errorf("leave the engine: %w", err)
	}
	return nil
}
