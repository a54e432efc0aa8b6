package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ecs/control/state"
	"ecs/internal/gossip"
	"ecs/internal/pki"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

const (
	roleControl = string(pki.RoleControl)
	roleAgent   = string(pki.RoleAgent)
)

const (
	// askAgain is how often a node that is not in the configuration asks to be.
	askAgain = time.Second
	// askWithin bounds one such call.
	askWithin = 10 * time.Second
	// lookAround is how often a node that belongs looks whether it still does.
	lookAround = 5 * time.Second
)

// ErrStale ends a node: it says that the cluster went on without this node and can't take it
// back as it is.
var ErrStale = errors.New("the cluster was recovered without this node, whose data is of before: " +
	"empty its data directory and have it join again (runbook: Lost majority)")

// ErrApart ends a node: it says that two control nodes were recovered, each to a cluster of its own.
var ErrApart = errors.New("the cluster was recovered twice, here and on another control node, which go on apart: " +
	"choose one, empty the data directory of the other and have it join (runbook: Lost majority)")

// errClaim says that another control node went on alone while this one serves in a majority.
var errClaim = errors.New("another control node was recovered to a cluster of its own while this one serves in a majority: " +
	"choose one, empty the data directory of the other and have it join (runbook: Lost majority)")

// newcomerFor is how long a node counts as one that has just come.
const newcomerFor = 30 * time.Second

// belong makes this node part of a cluster and keeps it one. A node without
// state forms a new cluster with others as new as itself, or asks the leader of
// one that exists to take it in; one with state asks when the configuration does
// not name it where it is.
func (s *Server) belong(ctx context.Context) error {
	select {
	case <-s.replica.Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	old := s.replica.HasState()
	if err := s.enter(ctx); err != nil {
		return err
	}
	s.members.Update(func(m *gossip.Member) { m.Bootstrapped = true })
	return s.stay(ctx, old)
}

// enter returns once this node has state or may get it.
func (s *Server) enter(ctx context.Context) error {
	for !s.replica.HasState() {
		changed := s.members.Changed()
		members := s.members.Snapshot()
		if servers, ok := founders(members, s.cfg.BootstrapExpect); ok {
			if err := s.found(servers); err != nil {
				return err
			}
			continue
		}
		if established(members) {
			past, err := s.askToJoin(ctx, true)
			if err == nil {
				if err := s.replica.Admit(past); err != nil {
					return err
				}
				s.cfg.Log.Info("joined the cluster, without a vote for now")
				return nil
			}
			s.refused(err)
		}
		if err := s.pause(ctx, askAgain, changed); err != nil {
			return err
		}
	}
	return nil
}

// established reports whether one of the members belongs to a cluster.
func established(members []gossip.Member) bool {
	for _, m := range members {
		if m.Role == roleControl && m.Bootstrapped && m.Founders == 0 {
			return true
		}
	}
	return false
}

// stay asks to be taken in again whenever the configuration does not name this
// node at its address, or nobody leads it though others belong.
//
// old says that this node started with what it has on its disk.
func (s *Server) stay(ctx context.Context, old bool) error {
	told := make(map[string]bool) // recoveries
	for {
		changed, elected := s.members.Changed(), s.replica.LeaderChanged()
		s.tellRecovery()
		members := s.members.Snapshot()
		s.allFounded(members)
		if old {
			if err := s.compareRecoveries(members, s.led(), told); err != nil {
				return err
			}
		}
		if !s.draining.Load() && !s.named() && established(members) {
			if _, err := s.askToJoin(ctx, false); err != nil {
				s.refused(err)
			}
			elected = nil // the answer is a change by itself
			changed = nil
		}
		if err := s.pause(ctx, lookAround, changed, elected); err != nil {
			return err
		}
	}
}

// tellRecovery has gossip say which recovery this node's record is of.
func (s *Server) tellRecovery() {
	sn := s.store.Snapshot()
	s.members.Update(func(m *gossip.Member) {
		if sn.Incarnation() >= m.Incarnation {
			m.Incarnation, m.Recovery = sn.Incarnation(), sn.Recovery()
		}
	})
}

// led reports whether this node is part of a majority, as far as it can know.
func (s *Server) led() bool {
	id, _ := s.replica.Leader()
	return id != "" || s.replica.LastContact() <= lookAround
}

// compareRecoveries ends this node when others went on without it. What gossip says is
// no proof of that: one that serves in a majority goes on, unless it has just come with
// what it had. Of two that were recovered apart the one that comes later ends. Were both
// there before, cut off from each other or by somebody's mistake, only people can tell
// which is to go, and both say so.
func (s *Server) compareRecoveries(members []gossip.Member, led bool, told map[string]bool) error {
	sn := s.store.Snapshot()
	for _, m := range members {
		switch {
		case m.Role != roleControl || m.ID == s.cfg.ID || m.Incarnation < sn.Incarnation():
		case m.Incarnation > sn.Incarnation():
			if !led || time.Since(s.started) < newcomerFor {
				return ErrStale
			}
			if !told[m.Recovery] {
				told[m.Recovery] = true
				s.cfg.Log.Error("not one cluster any more", "with", m.ID, "err", errClaim)
			}
		case m.Recovery == "" || m.Recovery == sn.Recovery() || told[m.Recovery]:
		case time.Since(s.started) < newcomerFor:
			return ErrApart
		default:
			told[m.Recovery] = true
			s.cfg.Log.Error("not one cluster any more", "with", m.ID, "err", ErrApart)
		}
	}
	return nil
}

// named reports whether the newest configuration has this node where it is, as
// far as that can be known: one that was removed is not told.
func (s *Server) named() bool {
	if id, _ := s.replica.Leader(); id == "" && s.replica.LastContact() > lookAround {
		return false
	}
	for _, v := range s.replica.Voters() {
		if v.ID == s.cfg.ID {
			return v.Addr == s.cfg.RaftAdvertise
		}
	}
	return false
}

// refused tells loudly why this node is not taken in, and quietly that nobody
// could be asked.
func (s *Server) refused(err error) {
	var refusal *task.Error
	last := s.joining.Load()
	if last != nil && (*last).Error() == err.Error() {
		return // told already
	}
	if errors.As(err, &refusal) && refusal.Code != task.CodeNoLeader {
		s.cfg.Log.Error("the cluster does not take this node in", "err", err)
	} else {
		s.cfg.Log.Debug("not taken in yet", "err", err)
	}
	s.joining.Store(&err)
}

// pause waits for one of the channels, or for a while.
func (s *Server) pause(ctx context.Context, d time.Duration, wake ...<-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	var first, second <-chan struct{}
	if len(wake) > 0 {
		first = wake[0]
	}
	if len(wake) > 1 {
		second = wake[1]
	}
	select {
	case <-timer.C:
	case <-first:
	case <-second:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// askToJoin asks control nodes that belong to a cluster until one that leads has
// taken this node in. It gives the past that the leader's record is of.
func (s *Server) askToJoin(ctx context.Context, empty bool) (past state.Lineage, err error) {
	sn := s.store.Snapshot()
	req := &ecsv1.JoinRequest{RaftAddr: s.cfg.RaftAdvertise, Empty: empty, Cluster: sn.Cluster(), Incarnation: sn.Incarnation(), Recovery: sn.Recovery()}
	last := error(errNoLeader)
	asked := make(map[string]bool)
	var addrs []string
	if _, addr := s.leaderAddr(); addr != "" && !empty {
		addrs = append(addrs, addr)
	}
	for _, m := range s.members.Snapshot() {
		if m.Role == roleControl && m.Bootstrapped && m.ID != s.cfg.ID {
			addrs = append(addrs, m.RPCAddr)
		}
	}
	for len(addrs) > 0 {
		addr := addrs[0]
		addrs = addrs[1:]
		if addr == "" || asked[addr] || addr == s.cfg.RPCAdvertise {
			continue
		}
		asked[addr] = true
		answer, err := s.askOne(ctx, addr, req)
		if err != nil {
			last = err
			continue
		}
		refusal := taskwire.ToError(answer.GetRefusal())
		if refusal == nil {
			return state.Lineage{Cluster: answer.GetCluster(), Recovery: answer.GetRecovery()}, nil
		}
		last = refusal
		if refusal.Code != task.CodeNoLeader {
			return past, refusal
		}
		addrs = append([]string{answer.GetLeaderAddr()}, addrs...)
	}
	return past, last
}

func (s *Server) askOne(ctx context.Context, addr string, req *ecsv1.JoinRequest) (*ecsv1.JoinAnswer, error) {
	conn, err := s.peers.to(addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	answer, err := s.peerClient(conn).Join(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("ask %s to be taken in: %w", addr, err)
	}
	return answer, nil
}
