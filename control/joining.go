package control

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"ecs/internal/gossip"
)

// JoinCluster has this node become a control node of the cluster that the nodes
// at the gossip addresses belong to, and returns once the leader sends it the log.
// A node that belongs to another cluster is refused.
func (s *Server) JoinCluster(ctx context.Context, addrs []string, say func(string)) error {
	s.cfg.Audit.Note(ctx, "join asked for on this machine", slog.Any("addrs", addrs))
	if s.replica.HasState() {
		return s.joinAgain(addrs, say)
	}
	say("looking for the cluster")
	if err := s.members.Join(ctx, addrs); err != nil {
		return err
	}
	say(fmt.Sprintf("gossip shows %d nodes; asking the leader", len(s.members.Snapshot())))
	told := ""
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !s.belongs() {
		if err := s.joining.Load(); err != nil && (*err).Error() != told {
			told = (*err).Error()
			say(told)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	say("the log has caught up; autopilot gives the node a vote if one more is of use")
	return nil
}

// belongs reports whether this node is in the configuration and follows a leader.
func (s *Server) belongs() bool {
	id, _ := s.replica.Leader()
	return id != "" && s.named() && s.store.Snapshot().Cluster() != ""
}

// joinAgain answers who asks a member to join: it is one already, of this cluster
// or of another. It does not even gossip with another.
func (s *Server) joinAgain(addrs []string, say func(string)) error {
	for _, m := range s.members.Snapshot() {
		if slices.Contains(addrs, m.GossipAddr) {
			say("it is a member already")
			return nil
		}
	}
	return fmt.Errorf("this node belongs to a cluster already (%s), and nobody of that is at %s: "+
		"have it leave that one first (ecsctl leave), or empty its data directory", s.store.Snapshot().Cluster(), strings.Join(addrs, ", "))
}

// Members is this node's view of gossip.
func (s *Server) Members() *gossip.Members { return s.members }

// Standing says where this node stands in its cluster, for people.
func (s *Server) Standing() string {
	id, _ := s.replica.Leader()
	switch {
	case !s.replica.HasState():
		return "in no cluster yet: it waits for others, or for ecsctl join"
	case !s.named():
		return "no control node of the cluster has it in the configuration now"
	case id == s.cfg.ID:
		return "the leader"
	}
	for _, v := range s.replica.Voters() {
		if v.ID == s.cfg.ID && v.Voter {
			return "a voter, leader " + id
		}
	}
	return "a control node without a vote, leader " + id
}
