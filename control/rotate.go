package control

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"ecs/control/api"
	"ecs/control/state"
	"ecs/internal/gossip"
	"ecs/internal/seal"
	"ecs/internal/task"
)

const (
	// A rotation waits for every node that is there. One that is gone as far as its
	// lease says, or a control node that Raft does not reach, is waited for so much
	// longer: missedAfter when gossip does not show it either, and doubtedAfter when
	// it does, for whoever has the old key can have gossip show anything.
	missedAfter  = 15 * time.Second
	doubtedAfter = time.Minute
	// lookAtHolders is how often it is looked who has gone meanwhile.
	lookAtHolders = time.Second
)

// RotateGossipKey begins a rotation to a key drawn here.
func (s *Server) RotateGossipKey(ctx context.Context, by string) error {
	if err := s.Sync(ctx); err != nil {
		return err
	}
	for _, m := range s.configured() { // who only gossips, with the old key, is nobody
		if m.Version != s.cfg.Version {
			// One that does not know the command could not go on.
			return &task.Error{Code: task.CodeRotation, Message: fmt.Sprintf("control nodes of different versions run, %s here and %s on %s: finish the upgrade first",
				s.cfg.Version, m.Version, m.ID)}
		}
	}
	fresh, err := seal.NewKey()
	if err != nil {
		return err
	}
	rotate := state.RotateGossipKey{By: by}
	if g := s.store.Snapshot().GossipKeys(); g != nil {
		rotate.Version = g.Version
	}
	if rotate.Old, err = sealKey(s.cfg.Seal, s.cfg.Gossip.Keys.Ring().Keys[0]); err != nil {
		return err
	}
	if rotate.New, err = sealKey(s.cfg.Seal, fresh); err != nil {
		return err
	}
	return s.change(ctx, rotate, "rotate the gossip key")
}

// seeRotationThrough goes on with a rotation step by step while this node leads, also
// with one that an earlier leader began.
func (s *Server) seeRotationThrough(ctx context.Context) error {
	missing := make(map[string]time.Time) // since when each is
	for {
		sn := s.store.Snapshot()
		stepped, confirmed := sn.WatchGossipKeys(), sn.WatchGossipHolders()
		g := sn.GossipKeys()
		if g == nil || g.Step == "" {
			clear(missing)
			select {
			case <-stepped:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		waiting, skipped := s.sort(s.behind(sn, g), missing, time.Now())
		if len(waiting) == 0 {
			if err := s.advance(ctx, g, skipped); err != nil {
				return err
			}
		}
		if err := s.pause(ctx, lookAtHolders, stepped, confirmed); err != nil {
			return err
		}
	}
}

func (s *Server) advance(ctx context.Context, g *state.GossipKeys, skipped []string) error {
	over := state.AdvanceGossipKey{Version: g.Version, Step: g.Step, Skipped: skipped}
	out, err := s.replica.Propose(ctx, over)
	if err != nil {
		return fmt.Errorf("end step %s of the gossip key's rotation: %w", g.Step, err)
	}
	if out.Err != nil {
		s.cfg.Log.Debug("rotation not a step further", "step", g.Step, "err", out.Err)
		return nil // somebody came in between; looked at again
	}
	s.cfg.Log.Info("step of the gossip key's rotation over", "step", g.Step, "key", g.Next().ID, "skipped", skipped)
	s.cfg.Audit.Note(ctx, "gossip_key", slog.String("step_over", g.Step), slog.String("key", g.Next().ID), slog.Any("skipped", skipped))
	return nil
}

// behind are the nodes that should have the newest ring and have not confirmed it:
// control nodes of the configuration and agents of the record. Who only gossips is
// nobody: that may be the very one whom the rotation is to lock out.
func (s *Server) behind(sn *state.Snapshot, g *state.GossipKeys) []api.Holder {
	shown := make(map[string]gossip.Member)
	for _, m := range s.members.Snapshot() {
		shown[m.ID] = m
	}
	var all []api.Holder
	for _, v := range s.replica.Voters() {
		if sn.GossipVersion(v.ID) < g.Version {
			all = append(all, api.Holder{ID: v.ID, Name: shown[v.ID].Name, Role: roleControl, Gone: !s.reached(v.ID, shown)})
		}
	}
	for n := range sn.Nodes() {
		if n.Status != task.Left && sn.GossipVersion(string(n.ID)) < g.Version {
			all = append(all, api.Holder{ID: string(n.ID), Name: n.Name, Role: roleAgent, Gone: n.Status == task.Lost})
		}
	}
	return all
}

// reached reports whether a control node is there: by Raft as far as the leader is
// asked, and by gossip for any other.
func (s *Server) reached(id string, shown map[string]gossip.Member) bool {
	if _, leading, _ := s.replica.Leadership(); leading {
		return s.answers(id)
	}
	_, ok := shown[id]
	return ok || id == s.cfg.ID
}

// sort tells those who are waited for from those who have been gone for long enough.
func (s *Server) sort(behind []api.Holder, missing map[string]time.Time, now time.Time) (waiting []api.Holder, skipped []string) {
	shown, still := make(map[string]bool), make(map[string]bool)
	for _, m := range s.members.Snapshot() {
		shown[m.ID] = true
	}
	for _, h := range behind {
		still[h.ID] = true
		since, known := missing[h.ID]
		switch limit := missedAfter; {
		case !h.Gone:
			delete(missing, h.ID)
			waiting = append(waiting, h)
		case !known:
			missing[h.ID] = now
			waiting = append(waiting, h)
		default:
			if shown[h.ID] {
				limit = doubtedAfter
			}
			if now.Sub(since) < limit {
				waiting = append(waiting, h)
			} else {
				skipped = append(skipped, h.ID)
			}
		}
	}
	maps.DeleteFunc(missing, func(id string, _ time.Time) bool { return !still[id] })
	return waiting, skipped
}

// rotation is how far it is, as this node knows.
func (s *Server) rotation() api.Rotation {
	sn := s.store.Snapshot()
	g := sn.GossipKeys()
	if g == nil {
		return api.Rotation{KeyID: gossip.KeyID(s.cfg.Gossip.Keys.Ring().Keys[0])}
	}
	return api.Rotation{Version: g.Version, KeyID: g.Ring[0].ID, NextID: g.Next().ID, Step: g.Step, StartedAt: g.StartedAt,
		EndedAt: g.EndedAt, StartedBy: g.StartedBy, Waiting: s.behind(sn, g), Skipped: g.Skipped}
}
