package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"ecs/control/api"
	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/task"
)

// FirstKey keeps the first admin key of a cluster for its operator.
type FirstKey interface {
	// Draw gives the key and secret to make, the same ones until Drop, so that
	// a node that dies between the two makes no second key.
	Draw() (key, secret string, err error)
	// Kept is the key that was drawn, empty when there is none or its operator has
	// taken it away.
	Kept() (key string, err error)
	// Tell says where they are, once they count.
	Tell()
	// Drop forgets them: they are not needed, or no more.
	Drop() error
}

// firstKeyAgain is how long after a failure the first admin key is tried again.
const firstKeyAgain = 5 * time.Second

// firstKey makes the first admin key where there never was any key, while this node
// leads. Without it nobody could make others. It waits for control nodes of one
// version: one that does not know this command could not go on.
func (s *Server) firstKey(ctx context.Context) error {
	if s.cfg.FirstKey == nil {
		return nil
	}
	told := ""
	for s.store.Snapshot().KeyCount() == 0 {
		changed, keys := s.members.Changed(), s.store.Snapshot().WatchKeys()
		wait := firstKeyAgain
		if other := s.otherVersion(); other != "" {
			if other != told {
				s.cfg.Log.Info("the first admin key waits for control nodes of one version", "other", other)
			}
			told = other
		} else if err := s.makeFirstKey(ctx); err == nil {
			return nil
		} else if ctx.Err() == nil {
			s.cfg.Log.Error("no first admin key yet; tried again", "err", err)
			changed = nil // of many nodes, for nothing
		}
		if err := s.pause(ctx, wait, changed, keys); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) makeFirstKey(ctx context.Context) error {
	key, secret, err := s.cfg.FirstKey.Draw()
	if err != nil {
		return fmt.Errorf("keep the first admin key: %w", err)
	}
	hash, err := api.HashSecret(secret)
	if err != nil {
		return fmt.Errorf("hash the first admin key's secret: %w", err)
	}
	made := access.Key{ID: key, Name: "first", Role: access.Admin, Hash: hash}
	out, err := s.replica.Propose(ctx, state.PutKey{Key: made, First: true})
	if err != nil {
		return fmt.Errorf("make the first admin key: %w", err)
	}
	if out.Err == nil {
		s.cfg.Audit.Note(ctx, "first admin key made", slog.String("key", key))
	} else if !errors.Is(out.Err, &task.Error{Code: task.CodeStale}) && !errors.Is(out.Err, &task.Error{Code: task.CodeKeyConflict}) {
		return out.Err
	}
	return s.settleFirstKey()
}

// settleFirstKey tells of a first admin key that is kept here and counts, and drops
// one that does not: another node made it, or it was revoked. An earlier process
// may have ended before it could do either.
func (s *Server) settleFirstKey() error {
	if s.cfg.FirstKey == nil {
		return nil
	}
	key, err := s.cfg.FirstKey.Kept()
	if err != nil || key == "" {
		return err
	}
	sn := s.store.Snapshot()
	switch k := sn.Key(key); {
	case sn.KeyCount() == 0: // it is still to be made
		return nil
	case k != nil && k.Counts():
		s.cfg.FirstKey.Tell()
		return nil
	}
	s.cfg.Log.Info("a first admin key that does not count is dropped", "key", key)
	return s.cfg.FirstKey.Drop()
}
