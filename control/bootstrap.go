package control

import (
	"context"
	"fmt"

	"ecs/internal/gossip"
)

// bootstrap forms a new cluster once gossip shows the expected number of
// control nodes, all as new as this one. Each of them starts Raft with the same
// sorted configuration, which Raft allows and which needs no one to go first.
// A node that has state, or sees one that has, never does it: it is added to
// the cluster that exists.
func (s *Server) bootstrap(ctx context.Context) error {
	select {
	case <-s.replica.Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		if s.replica.HasState() {
			s.members.Update(func(m *gossip.Member) { m.Bootstrapped = true })
			return nil
		}
		changed := s.members.Changed()
		servers, ok := founders(s.members.Snapshot(), s.cfg.BootstrapExpect)
		if ok {
			err := s.replica.Bootstrap(servers)
			if err != nil && s.replica.HasState() {
				continue // another one was first and has asked for our vote
			}
			if err != nil {
				return fmt.Errorf("bootstrap with %d control nodes: %w", len(servers), err)
			}
			s.cfg.Log.Info("cluster formed", "voters", servers)
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// founders returns the control nodes that may form a cluster, by id, when they
// are exactly as many as each of them expects and none belongs to one.
func founders(members []gossip.Member, expect int) (map[string]string, bool) {
	servers := make(map[string]string, expect)
	for _, m := range members {
		if m.Role != "control" {
			continue
		}
		if m.Bootstrapped || m.Expect != expect {
			return nil, false
		}
		servers[m.ID] = m.RaftAddr
	}
	return servers, len(servers) == expect
}
