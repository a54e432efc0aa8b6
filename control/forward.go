package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc"

	"ecs/control/replica"
	"ecs/control/state"
	"ecs/internal/gossip"
	"ecs/internal/pki"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

const (
	// settleWithin bounds how long a write looks for a leader that takes it.
	// It covers an election, so that callers see no failure for one.
	settleWithin = 10 * time.Second
	// lookForLeader is how often a write that waits for a leader looks for one
	// when nothing says that there is a new one.
	lookForLeader = 250 * time.Millisecond
)

var (
	errNoLeader = &task.Error{Code: task.CodeNoLeader,
		Message: "the cluster has no leader now, nothing was written; try again"}
	errUnknown = &task.Error{Code: task.CodeUnknown,
		Message: "the write may or may not have happened; repeat it with the same Idempotency-Key"}
)

// decision is what committing a command led to, wherever that was done.
type decision struct {
	state.Outcome
	local bool // this node proposed it
	// elsewhere is a task that the leader named and did not send.
	elsewhere task.ID
}

// tooLarge refuses a command that fits no entry of the log.
func tooLarge(err error) *task.Error {
	return &task.Error{Code: task.CodeTooLarge, Message: err.Error()}
}

// settle commits a command that is safe to repeat: here when this node leads,
// else through the leader, once. It repeats for as long as leadership moves,
// which is why the command must carry its own identity.
func (s *Server) settle(ctx context.Context, c state.Command) (decision, error) {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	last := error(errNoLeader)
	for {
		elected, seen := s.replica.LeaderChanged(), s.members.Changed()
		d, err := s.try(ctx, c)
		var refusal *task.Error
		switch {
		case err == nil:
			return d, nil
		case errors.Is(err, errNoLeader):
		case errors.As(err, &refusal) && refusal.Code == task.CodeTooLarge:
			return decision{}, refusal
		default:
			last = errUnknown
			s.cfg.Log.Debug("write not settled yet", "err", err)
		}
		if s.pause(ctx, lookForLeader, elected, seen) != nil {
			return decision{}, last
		}
	}
}

// try commits here or forwards once. errNoLeader means that nothing was written.
func (s *Server) try(ctx context.Context, c state.Command) (decision, error) {
	if _, leading, _ := s.replica.Leadership(); leading {
		out, err := s.replica.Propose(ctx, c)
		if errors.Is(err, replica.ErrNotLeader) {
			return decision{}, errNoLeader
		}
		if errors.Is(err, replica.ErrTooBig) {
			return decision{}, tooLarge(err)
		}
		return decision{Outcome: out, local: true}, err
	}
	d, err := s.forwards.forward(ctx, c)
	if err != nil {
		return decision{}, err
	}
	return s.recorded(ctx, d)
}

// leaderClient is the leader's Peers service, or errNoLeader.
func (s *Server) leaderClient() (rpc.PeersClient, error) {
	_, addr := s.leaderAddr()
	if addr == "" {
		return nil, errNoLeader
	}
	conn, err := s.peers.to(addr)
	if err != nil {
		return nil, fmt.Errorf("dial the leader at %s: %w", addr, err)
	}
	return s.peerClient(conn), nil
}

// leaderAddr finds the leader's gRPC address: Raft says who leads, gossip where
// that node's other services are or last were.
func (s *Server) leaderAddr() (id, addr string) {
	id, _ = s.replica.Leader()
	if id == "" {
		return "", ""
	}
	return id, s.known.note(s.members.Snapshot())[id].RPCAddr
}

// acquaintances are the control nodes that gossip ever showed, by id, as it
// last showed them. Gossip forgets who does not answer for seconds, though Raft
// may well reach it or find it again later.
type acquaintances struct {
	mu   sync.Mutex
	byID map[string]gossip.Member // never changed, but replaced
}

// note adds what gossip shows now and gives all.
func (a *acquaintances) note(members []gossip.Member) map[string]gossip.Member {
	a.mu.Lock()
	defer a.mu.Unlock()
	cloned := false
	for _, m := range members {
		if m.Role != "control" || a.byID[m.ID] == m {
			continue
		}
		if !cloned {
			next := make(map[string]gossip.Member, len(a.byID)+1)
			maps.Copy(next, a.byID)
			a.byID, cloned = next, true
		}
		a.byID[m.ID] = m
	}
	return a.byID
}

// configured are the control nodes of Raft's configuration that gossip ever showed,
// by id. Others gossip only.
func (s *Server) configured() map[string]gossip.Member {
	known := s.known.note(s.members.Snapshot())
	configured := make(map[string]gossip.Member)
	for _, v := range s.replica.Voters() {
		if m, ok := known[v.ID]; ok {
			configured[v.ID] = m
		}
	}
	return configured
}

// forget drops one that left for good: nothing looks for it any more.
func (a *acquaintances) forget(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := maps.Clone(a.byID)
	delete(next, id)
	a.byID = next
}

// addresses are where gossip reached them.
func (a *acquaintances) addresses() []string {
	var addrs []string
	for _, m := range a.note(nil) {
		if m.GossipAddr != "" {
			addrs = append(addrs, m.GossipAddr)
		}
	}
	return addrs
}

// whereabouts are where gossip should find members: the control nodes that it ever
// showed, and the agents of the record. After a partition each side finds the
// other by them.
func (s *Server) whereabouts() []string {
	addrs := s.known.addresses()
	for n := range s.store.Snapshot().Nodes() {
		if n.GossipAddr != "" && n.Status != task.Left {
			addrs = append(addrs, n.GossipAddr)
		}
	}
	return addrs
}

// remember follows gossip until ctx ends.
func (s *Server) remember(ctx context.Context) error {
	for {
		changed := s.members.Changed()
		s.forgetStrangers(s.known.note(s.members.Snapshot()))
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// forgetStrangers drops those that neither gossip shows nor the configuration
// names.
func (s *Server) forgetStrangers(known map[string]gossip.Member) {
	voters := s.replica.Voters()
	if len(voters) == 0 {
		return
	}
	familiar := make(map[string]bool)
	for _, v := range voters {
		familiar[v.ID] = true
	}
	for _, m := range s.members.Snapshot() {
		familiar[m.ID] = true
	}
	for id := range known {
		if !familiar[id] {
			s.known.forget(id)
		}
	}
}

// peerServer answers other control nodes. It never forwards: a request makes
// one hop at most.
type peerServer struct {
	rpc.UnimplementedPeersServer
	s *Server
}

// authorize lets the control nodes of this cluster call.
func (p *peerServer) authorize(ctx context.Context) error {
	if err := p.fromControl(ctx); err != nil {
		return err
	}
	return p.s.related(ctx)
}

func (p *peerServer) fromControl(ctx context.Context) error {
	peer, err := p.s.cfg.Peer(ctx)
	if err != nil {
		return err
	}
	if peer.Role != pki.RoleControl {
		return fmt.Errorf("%s %s may not speak for control nodes", peer.Role, peer.ID)
	}
	return nil
}

// ReadIndex answers with an index that covers everything committed before the
// call.
func (p *peerServer) ReadIndex(ctx context.Context, _ *ecsv1.ReadIndexRequest) (*ecsv1.ReadIndexAnswer, error) {
	if err := p.authorize(ctx); err != nil {
		return nil, err
	}
	index, err := p.s.replica.ReadIndex(ctx)
	if err != nil {
		return &ecsv1.ReadIndexAnswer{Refusal: taskwire.FromError(errNoLeader)}, nil
	}
	return &ecsv1.ReadIndexAnswer{Index: index}, nil
}

// Explain says why a pending task waits.
func (p *peerServer) Explain(ctx context.Context, req *ecsv1.ExplainRequest) (*ecsv1.ExplainAnswer, error) {
	if err := p.authorize(ctx); err != nil {
		return nil, err
	}
	because, position, err := p.s.explainHere(task.ID(req.GetTask()))
	var refusal *task.Error
	if errors.As(err, &refusal) {
		return &ecsv1.ExplainAnswer{Refusal: taskwire.FromError(refusal)}, nil
	}
	return &ecsv1.ExplainAnswer{Because: because, Position: int32(position)}, err
}

// connections keeps one gRPC connection an address.
type connections struct {
	dial func(addr string) (*grpc.ClientConn, error)
	mu   struct {
		sync.Mutex
		open map[string]*grpc.ClientConn
	}
}

func newConnections(dial func(string) (*grpc.ClientConn, error)) *connections {
	c := &connections{dial: dial}
	c.mu.open = make(map[string]*grpc.ClientConn)
	return c
}

// to returns the connection to addr; gRPC connects it when it is first used.
func (c *connections) to(addr string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn := c.mu.open[addr]; conn != nil {
		return conn, nil
	}
	conn, err := c.dial(addr)
	if err != nil {
		return nil, err
	}
	c.mu.open[addr] = conn
	return conn, nil
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for addr, conn := range c.mu.open {
		_ = conn.Close() // it only says that it was closed already
		delete(c.mu.open, addr)
	}
}
