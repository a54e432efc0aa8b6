package control

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"ecs/internal/gossip"
)

// found forms a new cluster of the servers, by id. Each of them starts Raft with
// the same sorted configuration, which Raft allows and which needs no one to go
// first.
func (s *Server) found(servers map[string]string) error {
	if err := s.replica.Bootstrap(servers); err != nil {
		return fmt.Errorf("bootstrap with %d control nodes: %w", len(servers), err)
	}
	s.members.Update(func(m *gossip.Member) { m.Bootstrapped, m.Founders = true, hashOf(servers) })
	s.cfg.Log.Info("cluster formed", "voters", servers)
	return nil
}

// foundWithin bounds how long founders wait for each other; a node that comes
// later joins.
const foundWithin = time.Minute

// allFounded ends the time in which others may form the same cluster, once every
// founder has or it took too long: one that has lost its disk since must not begin
// anew.
func (s *Server) allFounded(members []gossip.Member) {
	if s.members.Self().Founders == 0 {
		return
	}
	belong := 0
	for _, m := range members {
		if m.Role == roleControl && m.Bootstrapped {
			belong++
		}
	}
	if belong >= s.cfg.BootstrapExpect || time.Since(s.started) > foundWithin {
		s.members.Update(func(m *gossip.Member) { m.Founders = 0 })
	}
}

// founders returns the control nodes that may form a cluster, by id, when they
// are exactly as many as each of them expects and none belongs to one: except to
// the very one that these are just forming.
func founders(members []gossip.Member, expect int) (map[string]string, bool) {
	servers := make(map[string]string, expect)
	var begun []uint64
	for _, m := range members {
		if m.Role != roleControl || m.Expect == 0 && !m.Bootstrapped {
			continue // it waits to join what these form
		}
		if m.Expect != expect || m.Bootstrapped && m.Founders == 0 {
			return nil, false
		}
		if m.Bootstrapped {
			begun = append(begun, m.Founders)
		}
		servers[m.ID] = m.RaftAddr
	}
	if expect == 0 || len(servers) != expect {
		return nil, false
	}
	same := !slices.ContainsFunc(begun, func(h uint64) bool { return h != hashOf(servers) })
	return servers, same
}

// hashOf tells sets of founders apart; it is never 0.
func hashOf(servers map[string]string) uint64 {
	h := fnv.New64a()
	for _, id := range slices.Sorted(maps.Keys(servers)) {
		fmt.Fprintf(h, "%s=%s\n", id, servers[id])
	}
	return max(h.Sum64(), 1)
}
