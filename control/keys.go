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
	return api.NewKeyring(s.cfg.Keys, s.cfg.KeysRole, s)
}
