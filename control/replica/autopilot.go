package replica

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"
)

// Candidate is what is known of a control node apart from raft.
type Candidate struct {
	Zone    string
	Leaving bool // it is about to go: it gets no vote
}

// When a control node may vote.
const (
	// quietFor is how long a node may be silent before it counts as failed.
	quietFor = 3 * time.Second
	// trailing is how many entries a node may be behind.
	trailing = 1000
	// lookEvery paces looks at all nodes, judgeEvery changes of who votes.
	lookEvery  = time.Second
	judgeEvery = 2 * time.Second
)

// KeepVoters keeps 3 or 5 voters in distinct zones while this node leads, until
// ctx ends; see chooseVoters. candidates gives what is known of control nodes, by
// id; it must not block.
func (n *Node) KeepVoters(ctx context.Context, candidates func() map[string]Candidate) {
	up := n.up.Load()
	if up == nil {
		return
	}
	pilot := autopilot.New(&rudder{Raft: up.raft, node: n, ctx: ctx}, &cockpit{node: n, up: up, candidates: candidates},
		autopilot.WithLogger(newHCLogger(n.cfg.Logger)),
		autopilot.WithPromoter(promoter{}),
		autopilot.WithUpdateInterval(lookEvery),
		autopilot.WithReconcileInterval(judgeEvery))
	pilot.Start(ctx)
	<-ctx.Done()
	<-pilot.Stop()
}

// cockpit is what autopilot asks the application.
type cockpit struct {
	node       *Node
	up         *running
	candidates func() map[string]Candidate
}

// AutopilotConfig implements autopilot.ApplicationIntegration.
func (c *cockpit) AutopilotConfig() *autopilot.Config {
	return &autopilot.Config{LastContactThreshold: quietFor, MaxTrailingLogs: trailing, MinQuorum: leastVoters,
		ServerStabilizationTime: c.node.cfg.Stabilization}
}

// NotifyState implements autopilot.ApplicationIntegration.
func (*cockpit) NotifyState(*autopilot.State) {}

// RemoveFailedServer implements autopilot.ApplicationIntegration. It is never
// called: nothing removes a node but an operator, or the node itself.
func (*cockpit) RemoveFailedServer(*autopilot.Server) {}

// KnownServers implements autopilot.ApplicationIntegration. Whether a node lives
// is told by its answers (FetchServerStats), not by gossip.
func (c *cockpit) KnownServers() map[raft.ServerID]*autopilot.Server {
	known := c.candidates()
	servers := make(map[raft.ServerID]*autopilot.Server)
	for _, s := range c.up.servers() {
		about := known[string(s.ID)]
		status := autopilot.NodeAlive
		if about.Leaving {
			status = autopilot.NodeLeft
		}
		servers[s.ID] = &autopilot.Server{ID: s.ID, Name: string(s.ID), Address: s.Address, NodeStatus: status,
			Meta: map[string]string{metaZone: about.Zone}, IsLeader: string(s.ID) == c.node.cfg.ID}
	}
	return servers
}

const metaZone = "zone"

// FetchServerStats implements autopilot.ApplicationIntegration. The leader knows
// all of it from its exchanges with the followers.
func (c *cockpit) FetchServerStats(_ context.Context, servers map[raft.ServerID]*autopilot.Server) map[raft.ServerID]*autopilot.ServerStats {
	stats := make(map[raft.ServerID]*autopilot.ServerStats)
	term, last := c.up.raft.CurrentTerm(), c.up.raft.LastIndex()
	for id := range servers {
		if string(id) == c.node.cfg.ID {
			stats[id] = &autopilot.ServerStats{LastTerm: term, LastIndex: last}
			continue
		}
		s := &autopilot.ServerStats{LastContact: 2 * quietFor}
		if heard, ok := c.up.transport.contact(id, term); ok && heard.Match > 0 {
			// A match in this term is one of entries of this term: the leader's
			// first entry in it comes before all that autopilot compares with.
			s = &autopilot.ServerStats{LastContact: heard.Heard, LastIndex: heard.Match, LastTerm: term}
		}
		stats[id] = s
	}
	return stats
}

// promoter is chooseVoters for autopilot.
type promoter struct{}

// GetServerExt implements autopilot.Promoter.
func (promoter) GetServerExt(*autopilot.Config, *autopilot.ServerState) any { return nil }

// GetStateExt implements autopilot.Promoter.
func (promoter) GetStateExt(*autopilot.Config, *autopilot.State) any { return nil }

// GetNodeTypes implements autopilot.Promoter.
func (promoter) GetNodeTypes(*autopilot.Config, *autopilot.State) map[raft.ServerID]autopilot.NodeType {
	return nil
}

// FilterFailedServerRemovals implements autopilot.Promoter.
func (promoter) FilterFailedServerRemovals(*autopilot.Config, *autopilot.State, *autopilot.FailedServers) *autopilot.FailedServers {
	return &autopilot.FailedServers{}
}

// IsPotentialVoter implements autopilot.Promoter.
func (promoter) IsPotentialVoter(autopilot.NodeType) bool { return true }

// CalculatePromotionsAndDemotions implements autopilot.Promoter.
func (promoter) CalculatePromotionsAndDemotions(c *autopilot.Config, state *autopilot.State) (changes autopilot.RaftChanges) {
	now := time.Now()
	var servers []server
	for _, id := range slices.Sorted(maps.Keys(state.Servers)) {
		s := state.Servers[id]
		servers = append(servers, server{id: string(id), zone: s.Server.Meta[metaZone], voter: s.HasVotingRights(),
			leader: id == state.Leader, healthy: s.Health.Healthy, stable: s.Health.IsStable(now, c.ServerStabilizationTime)})
	}
	promote, demote := chooseVoters(servers)
	if promote != "" {
		changes.Promotions = []raft.ServerID{raft.ServerID(promote)}
	}
	if demote != "" {
		changes.Demotions = []raft.ServerID{raft.ServerID(demote)}
	}
	return changes
}
