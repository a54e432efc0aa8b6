package control

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"ecs/control/api"
	"ecs/control/dispatch"
	"ecs/control/replica"
	"ecs/control/state"
	"ecs/internal/gossip"
	"ecs/internal/telemetry"
	"ecs/proto/ecs/v1/rpc"
)

// Server is one control node.
type Server struct {
	cfg      Config
	store    *state.Store
	replica  *replica.Node
	members  *gossip.Members
	sessions *dispatch.Server
	placing  atomic.Pointer[placer] // while this node leads
	peers    *connections           // to other control nodes
	forwards *forwarder             // to the leader
	outputs  *connections           // to agents' output ports
	known    acquaintances
	ends     ends
	draining atomic.Bool
	joining  atomic.Pointer[error] // why this node was not taken in last
	goodbye  goodbye
	started  time.Time
	keyring  *api.Keyring  // nil: Config.Auth takes its place
	caught   chan struct{} // closed once the record was up to date
}

// New makes a control node; it does no I/O.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, started: time.Now(), store: state.NewStore(state.Limits{}), peers: newConnections(cfg.DialPeer), outputs: newConnections(cfg.DialAgent), goodbye: newGoodbye(), caught: make(chan struct{})}
	if cfg.Auth == nil {
		s.keyring = api.NewKeyring(cfg.Keys, cfg.KeysRole, s)
	}
	s.ends.init()
	s.replica = replica.New(s.replicaConfig())
	s.forwards = newForwarder(s.forwardToLeader)
	g := cfg.Gossip
	g.Self = gossip.Member{ID: cfg.ID, Name: cfg.Name, Role: roleControl, Zone: cfg.Zone, Version: cfg.Version,
		RPCAddr: cfg.RPCAdvertise, RaftAddr: cfg.RaftAdvertise, HTTPAddr: cfg.HTTPAdvertise, Expect: cfg.BootstrapExpect}
	given := g.Rejoin
	g.Rejoin = func() []string {
		addrs := s.whereabouts()
		if given != nil {
			addrs = append(addrs, given()...)
		}
		return addrs
	}
	s.members = gossip.New(g)
	s.sessions = dispatch.New(dispatch.Config{Log: s.replica, Snapshot: s.store.Snapshot, LeaderAddr: s.leaderAddr,
		Peer: cfg.Peer, OpenSecrets: s.openSecrets, Now: cfg.Now, Logger: cfg.Log, Metrics: cfg.Metrics})
	return s, nil
}

// Run serves until ctx ends or something fails for good. When ctx ends the
// health check fails first, requests are accepted for DrainFor longer and
// answered within ShutdownGrace, then leadership is handed over and everything
// stops.
func (s *Server) Run(ctx context.Context) error {
	// Servers outlive ctx: they stop after the drain.
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, life := errgroup.WithContext(life)
	g.Go(func() error { return s.gossip(life) })
	g.Go(func() error { return s.remember(life) })
	g.Go(func() error { return s.replica.Run(life) })
	g.Go(func() error { return s.serveRPC(life) })
	g.Go(func() error { return s.serveHealth(life) })
	g.Go(func() error { return s.serveRedirect(life) })
	g.Go(func() error { return s.belong(life) })
	g.Go(func() error { return s.catchUp(life) })
	g.Go(func() error { return s.terms(life) })
	g.Go(func() error { return s.forwards.run(life) })
	g.Go(func() error { return s.tellEnds(life) })
	g.Go(func() error { return s.keepOut(life) })
	open, closePublic := context.WithCancel(life)
	defer closePublic()
	answered := make(chan struct{})
	g.Go(func() error {
		defer close(answered)
		err := s.servePublic(open)
		if life.Err() == nil && open.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // the others go on
		}
		return err
	})
	g.Go(func() error {
		if s.untilEnd(ctx, life) {
			closePublic()
			<-answered
			s.handOver(life)
		}
		stop()
		return nil
	})
	err := g.Wait()
	defer close(s.goodbye.done)
	s.peers.close()
	s.outputs.close()
	stopped := errors.Is(err, context.Canceled) && (ctx.Err() != nil || s.goodbye.left)
	if stopped {
		return nil
	}
	if s.goodbye.err != nil {
		return fmt.Errorf("leave: %w", s.goodbye.err)
	}
	return err
}

// untilEnd returns when the node was told to stop, or has left, or life ended by
// itself. It reports whether the others are still to be told. A leave that is
// called off ends nothing.
func (s *Server) untilEnd(ctx, life context.Context) (tell bool) {
	for {
		select {
		case <-ctx.Done():
			s.goodbye.refuse()
			s.drain(life)
			return true
		case f := <-s.goodbye.asked:
			if s.depart(life, f) {
				return true
			}
		case <-life.Done():
			return false
		}
	}
}

// gossip runs once it is known whether this node belongs to a cluster: one that
// comes back must never look like one that could form a new one.
func (s *Server) gossip(ctx context.Context) error {
	select {
	case <-s.replica.Ready():
	case <-ctx.Done(): // Run still closes what it was given
	}
	if s.replica.HasState() {
		s.members.Update(func(m *gossip.Member) { m.Bootstrapped = true })
	}
	return s.members.Run(ctx)
}

// setDraining tells load balancers and members whether this node is about to go.
func (s *Server) setDraining(on bool) {
	s.draining.Store(on)
	s.members.Update(func(m *gossip.Member) { m.Draining = on })
}

// drain tells load balancers and members that this node leaves, and gives them
// time to notice.
func (s *Server) drain(ctx context.Context) {
	s.setDraining(true)
	s.cfg.Log.Info("draining", "for", s.cfg.DrainFor)
	noticed := time.NewTimer(s.cfg.DrainFor)
	defer noticed.Stop()
	select {
	case <-noticed.C:
	case <-ctx.Done():
	}
}

// handOverWithin bounds how long a leader that stops looks for the next one.
const handOverWithin = 5 * time.Second

// handOver makes another node the leader, if this one is and there are others.
func (s *Server) handOver(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	heir := func(v replica.Voter) bool { return v.Voter && v.ID != s.cfg.ID }
	if _, leading, _ := s.replica.Leadership(); leading && slices.ContainsFunc(s.replica.Voters(), heir) {
		ctx, cancel := context.WithTimeout(ctx, handOverWithin)
		defer cancel()
		if err := s.replica.TransferLeadership(ctx); err != nil {
			s.cfg.Log.Warn("leadership not handed over", "err", err)
		}
	}
}

func (s *Server) serveRPC(ctx context.Context) error {
	server := grpc.NewServer(append(rpc.ServerOptions(), grpc.Creds(s.cfg.ServerCreds),
		grpc.ChainUnaryInterceptor(telemetry.UnaryServerCID()),
		grpc.ChainStreamInterceptor(telemetry.StreamServerCID()))...)
	rpc.RegisterSessionsServer(server, s.sessions)
	peers := &peerServer{s: s}
	rpc.RegisterPeersServer(server, peers)
	rpc.RegisterLogsServer(server, telemetry.NewLogServer(s.cfg.Recent, peers.authorize))
	rpc.RegisterCertificatesServer(server, s.certificates())
	rpc.RegisterGossipKeysServer(server, &gossipKeys{s: s})
	return serve(ctx, func() error { return server.Serve(s.cfg.RPC) }, server.Stop)
}

func (s *Server) servePublic(ctx context.Context) error {
	handler, err := s.handler()
	if err != nil {
		return err
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching.Go(func() { _ = handler.EndLapsed(ctx) }) // it only ends with its context
	err = s.serveHTTP(ctx, s.cfg.HTTP, s.cfg.TLS, handler, handler.Detach)
	handler.Close() // Detach: when it failed by itself
	return err
}

func (s *Server) serveHealth(ctx context.Context) error {
	return s.serveHTTP(ctx, s.cfg.Health, nil, api.NewHealth(s), func() {})
}

// serveRedirect sends those who come without TLS to where it is.
func (s *Server) serveRedirect(ctx context.Context) error {
	if s.cfg.Redirect == nil || s.cfg.TLS == nil {
		return nil
	}
	_, port, err := net.SplitHostPort(s.cfg.HTTPAdvertise)
	if err != nil {
		return fmt.Errorf("redirect to %s: %w", s.cfg.HTTPAdvertise, err)
	}
	return s.serveHTTP(ctx, s.cfg.Redirect, nil, api.NewRedirect(port), func() {})
}

// serveHTTP serves until ctx ends, over TLS where there is a configuration for
// it. detach sends those away whom the server itself does not count.
func (s *Server) serveHTTP(ctx context.Context, l net.Listener, secure *tls.Config, handler http.Handler, detach func()) error {
	h := api.NewServer(handler)
	run := func() error { return h.Serve(l) }
	if secure != nil {
		h.TLSConfig = secure
		run = func() error { return h.ServeTLS(l, "", "") } // adds HTTP/2
	}
	return serve(ctx, run, func() {
		var leaving sync.WaitGroup
		leaving.Go(detach)
		shutdown(h, cmp.Or(s.cfg.ShutdownGrace, shutdownGrace))
		leaving.Wait()
	})
}

// shutdownGrace is Config.ShutdownGrace's default.
const shutdownGrace = 5 * time.Second

// shutdown lets an HTTP server finish its answers, for so long.
func shutdown(h *http.Server, grace time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if h.Shutdown(ctx) != nil {
		_ = h.Close() // what is left had its time
	}
}

// serve runs a blocking server until it fails or ctx ends, and waits for it.
func serve(ctx context.Context, run func() error, stop func()) error {
	failed := make(chan error, 1)
	go func() { failed <- run() }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
		stop()
		<-failed
		return ctx.Err()
	}
}

func (s *Server) replicaConfig() replica.Config {
	c := replica.DefaultConfig()
	if s.cfg.SnapshotEntries > 0 {
		// As many stay as in production, by their share: a follower that was away for
		// a while needs no snapshot.
		c.SnapshotThreshold, c.TrailingLogs = s.cfg.SnapshotEntries, s.cfg.SnapshotEntries+s.cfg.SnapshotEntries/4
	}
	if s.cfg.SnapshotInterval > 0 {
		c.SnapshotInterval = s.cfg.SnapshotInterval
	}
	c.ID, c.Addr, c.Stream, c.Stores = s.cfg.ID, s.cfg.RaftAdvertise, s.cfg.Raft, s.cfg.Stores
	if s.cfg.Stores == nil {
		c.Dir = filepath.Join(s.cfg.DataDir, "raft")
	}
	c.Store, c.Logger, c.Metrics, c.Fatal = s.store, s.cfg.Log, s.cfg.Metrics, s.cfg.Fatal
	c.Compose, c.Over = s.compose, s.noteEnds
	c.Closed = true
	return c
}
