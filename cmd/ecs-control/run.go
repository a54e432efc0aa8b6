package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/credentials"

	"ecs/control"
	"ecs/control/replica"
	"ecs/internal/access"
	"ecs/internal/admin"
	"ecs/internal/daemon"
	"ecs/internal/gossip"
	"ecs/internal/pki"
	"ecs/internal/telemetry"
	"ecs/internal/tracing"
	"ecs/internal/version"
)

// heapFloor is how far the heap may grow, in bytes, while the node is busy.
const heapFloor = 256 << 20

// listeners are a control node's open ports. A control.Server closes those it
// serves; closing them again does no harm.
type listeners struct{ http, health, rpc, raft, redirect net.Listener }

func (l *listeners) open(o *options) (err error) {
	for _, port := range []struct {
		listener *net.Listener
		addr     string
	}{{&l.http, o.httpAddr}, {&l.health, o.healthAddr}, {&l.rpc, o.rpcAddr}, {&l.raft, o.raftAddr}, {&l.redirect, o.redirectAddr}} {
		if port.addr == "" {
			continue // of the redirect
		}
		if *port.listener, err = net.Listen("tcp", port.addr); err != nil {
			return err
		}
	}
	return nil
}

func (l *listeners) close() {
	for _, listener := range []net.Listener{l.http, l.health, l.rpc, l.raft, l.redirect} {
		if listener != nil {
			listener.Close()
		}
	}
}

// lastWord bounds how long the log may take of a node that must end at once.
const lastWord = time.Second

func (o *options) run(ctx context.Context, log *slog.Logger, ring *telemetry.Ring) (err error) {
	if o.node == nil {
		if err := o.Trust.AwaitJoin(ctx, &o.Place, pki.RoleControl, o.sealKey, o.check, log); err != nil {
			return err
		}
		o.expect = 0 // a token is for a cluster that is there: this node forms none
	}
	id := o.node.Identity()
	log = log.With("node", id.ID)
	data, err := daemon.OpenDataDir(o.DataDir, id.ID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	var ports listeners
	defer ports.close()
	if err := ports.open(o); err != nil {
		return err
	}
	if !daemon.Loopback(o.httpAddr) && o.public == nil {
		log.Warn("keys and secrets cross the network in the clear: HTTP listens beyond loopback without TLS", "addr", o.httpAddr)
	}
	if o.keys != nil && o.role.Value != string(access.Run) {
		log.Warn("every key of the htpasswd file may do more than run its own tasks", "role", o.role.Value, "path", o.htpasswd)
	}
	daemon.WarnOfExpiry(log, o.node)
	keys, err := data.Keyring(o.gossipKey)
	if err != nil {
		return err
	}
	peers := data.Peers(log)
	cfg, err := o.config(ctx, log, ports, peers)
	if err != nil {
		return err
	}
	cfg.Gossip.Keys = keys
	cfg.Recent, cfg.AuditArgv = ring, o.auditArgv
	if o.auditLog != "" {
		if cfg.Audit, err = telemetry.OpenAudit(o.auditLog, log, slog.String("node", id.ID)); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, cfg.Audit.Close()) }()
	}
	cfg.Traces, err = tracing.FromEnv(ctx, tracing.Config{Endpoint: o.otlp, Service: "ecs-control", Node: id.ID, Zone: o.Zone, Release: version.String()})
	if err != nil {
		return err
	}
	defer closeTraces(ctx, cfg.Traces, log)
	server, err := control.New(cfg)
	if err != nil {
		return err
	}
	defer o.renewing(ctx, log, server)()
	relaxed := make(chan struct{})
	collecting, stop := context.WithCancel(ctx)
	go func() { defer close(relaxed); daemon.RelaxCollector(collecting, heapFloor) }()
	defer func() { stop(); <-relaxed }()
	if o.public != nil {
		for _, w := range o.warnings {
			log.Warn(w)
		}
		watching, unwatch := context.WithCancel(ctx)
		watched := make(chan struct{})
		go func() { defer close(watched); _ = o.public.Run(watching, log) }() // it only ends with its context
		defer func() { unwatch(); <-watched }()
	}
	log.Info("serving", "name", o.Name, "cluster", id.Cluster, "zone", o.Zone, "http", ports.http.Addr().String(), "rpc", cfg.RPCAdvertise)
	admitted, err := admin.Listen(o.DataDir)
	if err != nil {
		return err
	}
	// The operator hears the end of a leave: the door closes last.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	var beside errgroup.Group
	rings := &daemon.RingWatch{Keys: keys, Controls: server.ControlAddrs, Dial: daemon.Dialer(o.node, pki.RoleControl), Log: log,
		Known: append(data.Controls(log), daemon.GuessControls(slices.Concat(o.Join, peers))...)}
	beside.Go(func() error { return admin.Serve(life, admitted, operated{server, o, rings}) })
	beside.Go(func() error { data.KeepPeers(life, server.Members(), log); return nil })
	beside.Go(func() error {
		_ = rings.Run(life) // it only ends with its context
		return nil
	})
	err = server.Run(ctx)
	end()
	if errors.Is(err, control.ErrStale) || errors.Is(err, control.ErrApart) {
		err = daemon.Final(err)
	}
	err = errors.Join(err, beside.Wait())
	if server.Left() {
		err = errors.Join(err, data.Forget("raft"))
	}
	return err
}

// operated is a control node as its operator changes it.
type operated struct {
	*control.Server
	o     *options
	rings *daemon.RingWatch
}

// About implements admin.Node.
func (n operated) About() admin.About {
	id := n.o.node.Identity()
	return admin.About{Role: string(id.Role), ID: id.ID, Name: n.o.Name, Cluster: id.Cluster, State: n.Standing()}
}

// Join implements admin.Node.
func (n operated) Join(ctx context.Context, addrs []string, say func(string)) error {
	return n.rings.Join(ctx, addrs, func() error { return n.JoinCluster(ctx, addrs, say) })
}

func (o *options) config(ctx context.Context, log *slog.Logger, ports listeners, peers []string) (control.Config, error) {
	id := o.node.Identity()
	metrics, handler := telemetry.NewMetrics("ecs")
	cfg := control.Config{
		ID: id.ID, Name: o.Name, Zone: o.Zone, Version: version.String(), Cluster: id.Cluster,
		DataDir: o.DataDir, BootstrapExpect: o.expect,
		HTTP: ports.http, Health: ports.health, RPC: ports.rpc,
		Gossip: gossip.Config{Name: id.ID, Label: id.Cluster, BindAddr: o.GossipAddr,
			Join: o.Join, Rejoin: func() []string { return peers }, Logger: log, Metrics: metrics},
		ServerCreds:     credentials.NewTLS(o.node.ServerTLS(pki.RoleControl, pki.RoleAgent)),
		DialPeer:        daemon.Dialer(o.node, pki.RoleControl),
		DialAgent:       daemon.Dialer(o.node, pki.RoleAgent),
		Peer:            pki.FromContext,
		SnapshotEntries: uint64(o.snapshotEntries), SnapshotInterval: o.snapshotInterval,
		Seal: o.box, Keys: o.keys, KeysRole: access.Role(o.role.Value), Limits: o.limits, Proxies: o.trusted, Authority: o.authority, Guard: o.node, Log: log, Metrics: metrics, MetricsHandler: handler,
		Now: daemon.Boottime, NotAfter: o.node.Expires, DrainFor: o.drain,
		// A leader whose disk hangs would keep its followers and answer
		// nobody: nothing is waited for.
		Fatal: func(err error) {
			said := make(chan struct{})
			go func() {
				defer close(said)
				log.Error("ending at once", "err", err)
			}()
			select {
			case <-said:
			case <-time.After(lastWord): // the log may be on that disk
			}
			os.Exit(daemon.ExitFailed)
		},
	}
	if o.keys == nil || o.role.Value != string(access.Admin) {
		cfg.FirstKey = firstKeyIn(o.DataDir, log) // nobody could make a key
	}
	if o.public != nil {
		cfg.TLS, cfg.Redirect, cfg.PublicNotAfter = o.public.TLS(), ports.redirect, o.public.NotAfter
	}
	var err error
	if cfg.Gossip.AdvertiseAddr, err = o.AdvertiseGossip(ctx); err != nil {
		return cfg, err
	}
	for _, a := range []struct {
		advertised *string
		listener   net.Listener
	}{{&cfg.HTTPAdvertise, ports.http}, {&cfg.RPCAdvertise, ports.rpc}, {&cfg.RaftAdvertise, ports.raft}} {
		if *a.advertised, err = daemon.Advertise(a.listener.Addr().String(), o.Advertise); err != nil {
			return cfg, fmt.Errorf("advertise %s: %w", a.listener.Addr(), err)
		}
	}
	cfg.Raft = replica.NewTLSStream(ports.raft, cfg.RaftAdvertise,
		o.node.ServerTLS(pki.RoleControl), o.node.DialFunc(pki.RoleControl))
	return cfg, nil
}

// closeTraces sends the last spans. That they can't be sent is worth a word and
// no more.
func closeTraces(ctx context.Context, traces *tracing.Tracer, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := traces.Close(ctx); err != nil {
		log.Warn("traces are lost", "err", err)
	}
}

// renewing keeps the node's certificate young until what it gives is called.
func (o *options) renewing(ctx context.Context, log *slog.Logger, server *control.Server) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	r := daemon.Renewal{Node: o.node, File: o.Cert, Controls: server.ControlAddrs, Dial: daemon.Dialer(o.node, pki.RoleControl), Log: log}
	go func() {
		defer close(ended)
		_ = r.Run(ctx) // it only ends with its context
	}()
	return func() { cancel(); <-ended }
}
