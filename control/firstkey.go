package control

import (
	"context"
	"errors"
	"fmt"

	"ecs/control/api"
	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/pki"
	"ecs/internal/task"
)

// FirstKey keeps the first admin key of a cluster for its operator.
type FirstKey interface {
	// Draw gives the key and secret to make, the same ones until Drop, so that
	// a node that dies between the two makes no second key.
	Draw() (key, secret string, err error)
	// Tell says where they are, once they count.
	Tell()
	// Drop forgets them: they were not needed.
	Drop() error
}

// makeFirstKey makes the first admin key where there never was any key, while
// this node leads. Without it nobody could make others.
func (s *Server) makeFirstKey(ctx context.Context) error {
	if s.cfg.FirstKey == nil || s.store.Snapshot().KeyCount() > 0 {
		return nil
	}
	for _, m := range s.members.Snapshot() {
		if m.Role == string(pki.RoleControl) && m.Version != s.cfg.Version {
			// One that does not know this command could not go on.
			s.cfg.Log.Info("the first admin key waits for control nodes of one version", "other", m.Version)
			return nil
		}
	}
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
	// The hash is salted anew each time, so a key that an earlier try of this
	// node made is told by its id.
	if k := s.store.Snapshot().Key(key); k != nil && k.Counts() {
		s.cfg.FirstKey.Tell()
		return nil
	}
	if errors.Is(out.Err, &task.Error{Code: task.CodeStale}) {
		return s.cfg.FirstKey.Drop()
	}
	return out.Err
}
