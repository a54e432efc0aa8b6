// Package dispatch keeps the sessions of agents with the leader: registrations
// and leases, assignments out, results in.
//
// The lease rules are those of DESIGN.md section 4. A lease is counted here
// from the moment a heartbeat is answered and by the agent from the moment it
// sent it, so the agent's view always ends first. A heartbeat is answered only
// after a leadership check that began after it arrived, and never once its
// epoch is marked expired; only then is the loss of the node proposed.
package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/armon/go-metrics"

	"ecs/control/state"
	"ecs/internal/pki"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// Log is the replicated log, as far as sessions need it.
type Log interface {
	// Propose commits a command; see replica.Node.
	Propose(ctx context.Context, c state.Command) (state.Outcome, error)
	// VerifyAtNextBeat returns nil when this node still led at some moment
	// after the call; it may take a beat of the log's own heartbeats.
	VerifyAtNextBeat(ctx context.Context) error
	// Leader names the present leader, as far as this node knows.
	Leader() (id, raftAddr string)
}

// Config is what a Server needs. All fields are required.
type Config struct {
	Log      Log
	Snapshot func() *state.Snapshot
	// LeaderAddr gives the gRPC address of the present leader, or "".
	LeaderAddr func() (id, addr string)
	// Peer identifies the other end of a call; its certificate says who it is.
	Peer func(context.Context) (pki.Identity, error)
	// OpenSecrets opens the sealed secrets of a task for its agent.
	OpenSecrets func(id task.ID, sealed []byte) (task.Secrets, error)
	// Now is a monotonic clock that also counts suspended time.
	Now     func() time.Duration
	Logger  *slog.Logger
	Metrics *metrics.Metrics
}

// Server answers agents. It serves sessions while Lead runs and redirects
// agents to the leader otherwise.
type Server struct {
	rpc.UnimplementedSessionsServer
	cfg Config
	mu  struct {
		sync.Mutex
		tenure *tenure // nil while not leading
		// turned is closed when tenure changes.
		turned chan struct{}
	}
}

// New makes a Server that redirects until Lead is called.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg}
	s.mu.turned = make(chan struct{})
	return s
}

// tenure is the part of a Server that lives for one term of leadership.
type tenure struct {
	*Server
	term   uint64
	ctx    context.Context
	checks *checks

	mu struct {
		sync.Mutex
		leases   map[task.NodeID]*lease
		sessions map[task.NodeID]*session
		marks    map[task.Token]*mark
		handing  map[task.Token]*handover // output that is being handed on
		parkings uint64                   // see Hints
		shares   shares
		// changed is closed when what Hints says may have changed.
		changed chan struct{}
		// rearm is closed when an expiry may have moved closer.
		rearm chan struct{}
	}
	active sync.WaitGroup // sessions
}

func (s *Server) slowCheck(took time.Duration) {
	s.cfg.Logger.Warn("a check of leadership was slow: is this machine, or the network to the other control nodes, overloaded?", "took", took)
}

// Lead serves agents as the leader of term until ctx ends. The caller has
// passed a barrier, so that every committed registration is in the snapshot;
// each gets a full lease and margin from now.
func (s *Server) Lead(ctx context.Context, term uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &tenure{Server: s, term: term, ctx: ctx, checks: newChecks(s.cfg.Log.VerifyAtNextBeat, s.slowCheck)}
	t.mu.leases = make(map[task.NodeID]*lease)
	t.mu.sessions = make(map[task.NodeID]*session)
	t.mu.marks = make(map[task.Token]*mark)
	t.mu.handing = make(map[task.Token]*handover)
	t.mu.changed = make(chan struct{})
	t.mu.rearm = make(chan struct{})
	t.adoptLocked(s.cfg.Snapshot(), s.cfg.Now()) // nobody else has t yet
	s.setTenure(t)
	defer func() {
		s.setTenure(nil)
		cancel()
		t.active.Wait()
	}()

	var g sync.WaitGroup
	g.Go(func() { t.checks.run(ctx) })
	err := t.watchLeases(ctx)
	cancel()
	g.Wait()
	return err
}

func (s *Server) setTenure(t *tenure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.tenure = t
	close(s.mu.turned)
	s.mu.turned = make(chan struct{})
}

// enter returns the present tenure with a session counted in, or nil.
func (s *Server) enter() *tenure {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.tenure == nil || s.mu.tenure.ctx.Err() != nil {
		return nil
	}
	s.mu.tenure.active.Add(1)
	return s.mu.tenure
}

// Session serves one agent's stream.
func (s *Server) Session(stream rpc.Sessions_SessionServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello == nil || hello.GetNode() == nil {
		return refuse(stream, "the first message of a session is a hello with the node")
	}
	peer, err := s.cfg.Peer(stream.Context())
	if err != nil {
		return refuse(stream, "who are you: "+err.Error())
	}
	if peer.Role != pki.RoleAgent || peer.ID != hello.GetNode().GetId() {
		return refuse(stream, "the certificate is for "+string(peer.Role)+" "+peer.ID+", not for agent "+hello.GetNode().GetId())
	}
	t := s.enter()
	if t == nil {
		id, addr := s.cfg.LeaderAddr()
		return stream.Send(&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Redirect{
			Redirect: &ecsv1.Redirect{Id: id, RpcAddr: addr}}})
	}
	defer t.active.Done()
	err = t.serve(stream, hello)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func refuse(stream rpc.Sessions_SessionServer, reason string) error {
	return stream.Send(refused(false, reason))
}

func refused(expired bool, reason string) *ecsv1.ControlMessage {
	return &ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Refused{
		Refused: &ecsv1.Refused{Expired: expired, Reason: reason}}}
}
