package control

import (
	"context"
	"errors"
	"time"

	"ecs/control/replica"
	"ecs/control/state"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"

	"github.com/oklog/ulid/v2"
)

// aliveWithin is how lately a node must have answered to count as alive where
// that decides what may be done to it.
const aliveWithin = 3 * time.Second

// Join takes a control node into the configuration, without a vote, for itself.
func (p *peerServer) Join(ctx context.Context, req *ecsv1.JoinRequest) (*ecsv1.JoinAnswer, error) {
	// Also a foreign one is answered: it is told what to do.
	if err := p.fromControl(ctx); err != nil {
		return nil, err
	}
	peer, err := p.s.cfg.Peer(ctx)
	if err != nil {
		return nil, err
	}
	err = p.s.takeIn(ctx, peer.ID, req)
	past := p.s.replica.Lineage()
	answer := &ecsv1.JoinAnswer{Cluster: past.Cluster, Recovery: past.Recovery}
	if refusal, err := asRefusal(err); err != nil {
		return nil, err
	} else if refusal != nil {
		answer.Refusal = taskwire.FromError(refusal)
		_, answer.LeaderAddr = p.s.leaderAddr()
	}
	return answer, nil
}

// asRefusal splits what a caller is to be told from what failed here.
func asRefusal(err error) (*task.Error, error) {
	var refusal *task.Error
	switch {
	case err == nil:
		return nil, nil
	case errors.Is(err, replica.ErrNotLeader):
		return errNoLeader, nil
	case errors.Is(err, replica.ErrUnknown):
		return errUnknown, nil
	case errors.As(err, &refusal):
		return refusal, nil
	}
	return nil, err
}

// takeIn adds a control node without a vote, or notes where it is now. It may be
// repeated.
func (s *Server) takeIn(ctx context.Context, id string, req *ecsv1.JoinRequest) error {
	if _, leading, _ := s.replica.Leadership(); !leading {
		return errNoLeader
	}
	if err := s.mayJoin(id, req); err != nil {
		return err
	}
	return s.replica.Reconfigure(ctx, func(t *replica.Turn) error { return s.add(t, id, req) })
}

// mayJoin refuses nodes that have no place in this cluster, or none any more.
func (s *Server) mayJoin(id string, req *ecsv1.JoinRequest) error {
	sn := s.store.Snapshot()
	switch {
	case id == s.cfg.ID:
		return membership("the id %s is that of the leader: each node needs a certificate of its own", id)
	case req.GetCluster() != "" && sn.Cluster() != "" && req.GetCluster() != sn.Cluster():
		return membership("node %s belongs to another cluster, %s: empty its data directory before it joins this one", id, req.GetCluster())
	case !req.GetEmpty() && req.GetIncarnation() != sn.Incarnation():
		return &task.Error{Code: task.CodeMembership, Message: ErrStale.Error()}
	case !req.GetEmpty() && req.GetRecovery() != sn.Recovery():
		return &task.Error{Code: task.CodeMembership, Message: ErrApart.Error()}
	}
	return nil
}

// add is takeIn's turn.
func (s *Server) add(t *replica.Turn, id string, req *ecsv1.JoinRequest) error {
	named := false
	for _, v := range s.replica.Voters() {
		if v.ID != id {
			continue
		}
		named = true
		heard, known := s.replica.Contact(id)
		answers := known && heard.Heard < aliveWithin
		switch {
		case answers && v.Addr != req.GetRaftAddr():
			return membership("another node with the id %s is alive at %s: each needs a certificate and a data directory of its own", id, v.Addr)
		case answers && req.GetEmpty():
			return membership("node %s was heard of %s ago with its data", id, heard.Heard.Round(time.Millisecond))
		case !req.GetEmpty() && v.Addr == req.GetRaftAddr():
			return nil
		case req.GetEmpty() && v.Voter:
			// What it acknowledged is gone, so its vote must not count: it is
			// out before it is in again.
			s.cfg.Log.Warn("a voter comes back without its data", "member", id)
			if err := t.Remove(id); err != nil {
				return err
			}
		}
	}
	if !named && !req.GetEmpty() {
		// It was out of reach and so was not told. Nobody is taken in before the
		// configuration names it, so it is of no newer one than this.
		return membership("node %s was taken out of the cluster: empty its data directory and have it join", id)
	}
	if err := t.Add(id, req.GetRaftAddr()); err != nil {
		return err
	}
	s.cfg.Log.Info("control node taken in", "member", id, "addr", req.GetRaftAddr(), "empty", req.GetEmpty())
	return nil
}

// name gives a cluster that has none its identity.
func (s *Server) name(ctx context.Context) error {
	if s.store.Snapshot().Cluster() != "" {
		return nil
	}
	return s.command(ctx, state.Found{Cluster: ulid.Make().String()}, "name the cluster")
}

// keepVoters has the right control nodes vote while this node leads.
func (s *Server) keepVoters(ctx context.Context) error {
	s.replica.KeepVoters(ctx, func() map[string]replica.Candidate {
		known := make(map[string]replica.Candidate)
		for id, m := range s.known.note(s.members.Snapshot()) {
			known[id] = replica.Candidate{Zone: m.Zone, Leaving: m.Draining}
		}
		known[s.cfg.ID] = replica.Candidate{Zone: s.cfg.Zone, Leaving: s.draining.Load()}
		return known
	})
	return ctx.Err()
}
