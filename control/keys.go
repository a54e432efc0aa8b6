package control

import (
	"context"
	"fmt"

	"ecs/control/api"
	"ecs/control/state"
	"ecs/internal/access"
)

// PutKey makes an API key.
func (s *Server) PutKey(ctx context.Context, k access.Key) error {
	if err := s.accessKnown(); err != nil {
		return err
	}
	return s.change(ctx, state.PutKey{Key: k}, "make a key")
}

// RevokeKey ends an API key.
func (s *Server) RevokeKey(ctx context.Context, id, by string) error {
	return s.change(ctx, state.RevokeKey{ID: id, By: by}, "revoke key "+id)
}

// change commits a command and waits until this node's own record has it. What
// refuses it is a *task.Error.
func (s *Server) change(ctx context.Context, c state.Command, what string) error {
	d, err := s.settle(ctx, c)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if d.Err != nil {
		return d.Err
	}
	return s.applied(ctx, d)
}

// authenticator knows the keys of the record and of the file.
func (s *Server) authenticator() api.Authenticator {
	if s.cfg.Auth != nil {
		return s.cfg.Auth
	}
	return s.keyring
}

// accessKnown refuses to be the first to write of keys, tokens or revocations while
// control nodes of another version run: one of before there were any stops at them.
func (s *Server) accessKnown() error {
	sn := s.store.Snapshot()
	if sn.AccessKnown() {
		return nil
	}
	if other := s.otherVersion(); other != "" {
		return membership("control nodes of another version run (%s), and one that does not know keys and tokens would stop: finish the upgrade first", other)
	}
	return nil
}

// otherVersion is one that another control node has than this one; empty: none. One
// that is away counts as it was last seen: it comes back to what was written
// meanwhile.
func (s *Server) otherVersion() string {
	known := s.configured()
	for _, m := range known {
		if m.Version != s.cfg.Version {
			return m.Version
		}
	}
	for _, v := range s.replica.Voters() {
		if _, seen := known[v.ID]; !seen && v.ID != s.cfg.ID {
			return "unknown: that of " + v.ID
		}
	}
	return ""
}
