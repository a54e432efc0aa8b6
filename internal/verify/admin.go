package verify

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"ecs/proto/api"
)

// warm wishes for as many containers of an image as are wished for already.
func (s *session) warm(ctx context.Context) error {
	var held api.ImageList
	if _, err := s.want(ctx, http.StatusOK, &held, http.MethodGet, "/v2/images", ""); err != nil {
		return err
	}
	count := 0
	for _, i := range held.Images {
		if i.Image == s.Image || strings.HasSuffix(i.Image, "/"+s.Image) {
			count = i.Warm
		}
	}
	var got api.WarmAnswer
	_, err := s.want(ctx, http.StatusOK, &got, http.MethodPost, "/v2/images/warm", fmt.Sprintf(`{"image":%q,"count":%d}`, s.Image, count))
	if err == nil && (got.Image == "" || got.Count != count) {
		return fmt.Errorf("got a wish for %d of %q, want %d of %s", got.Count, got.Image, count, s.Image)
	}
	return err
}

// leave sends nobody away: it asks for a node that there is not.
func (s *session) leave(ctx context.Context) error {
	_, err := s.want(ctx, http.StatusNotFound, nil, http.MethodPost, "/v2/nodes/no-such-node/leave", "")
	return err
}

// makeKey makes a key that may do little, and uses it.
func (s *session) makeKey(ctx context.Context) error {
	var got api.Key
	if _, err := s.want(ctx, http.StatusCreated, &got, http.MethodPost, "/v2/keys", `{"name":"`+s.mark+`","role":"run","rate":100}`); err != nil {
		return err
	}
	if got.ID == "" || got.Secret == "" || got.Role != api.RoleRun {
		return fmt.Errorf("got key %q of role %q, want one of role run with its secret", got.ID, got.Role)
	}
	s.key = got.ID
	theirs := *s
	theirs.Key, theirs.Secret = got.ID, got.Secret
	_, err := theirs.want(ctx, http.StatusOK, nil, http.MethodGet, "/v2/tasks", "")
	_, refused := theirs.want(ctx, http.StatusForbidden, nil, http.MethodGet, "/v2/keys", "")
	s.secret = got.Secret
	return errors.Join(err, refused)
}

// revokeKey revokes that key, which counts no more then.
func (s *session) revokeKey(ctx context.Context) error {
	if s.key == "" {
		return fmt.Errorf("%w: no key was made", ErrSkipped)
	}
	var got api.Key
	if _, err := s.want(ctx, http.StatusOK, &got, http.MethodDelete, "/v2/keys/"+s.key, ""); err != nil {
		return err
	}
	if got.ID != s.key || got.RevokedAt.IsZero() || got.Secret != "" {
		return fmt.Errorf("got key %s revoked at %v, want %s revoked now", got.ID, got.RevokedAt, s.key)
	}
	theirs := *s
	theirs.Key, theirs.Secret = s.key, s.secret
	_, err := theirs.want(ctx, http.StatusUnauthorized, nil, http.MethodGet, "/v2/tasks", "")
	return err
}

// rotateNothing asks for a rotation with a parameter that there is not: a real one is for
// good.
func (s *session) rotateNothing(ctx context.Context) error {
	_, err := s.want(ctx, http.StatusBadRequest, nil, http.MethodPost, "/v2/cluster/gossip-key?by=verify", "")
	return err
}

// makeToken makes a join token that nobody uses and that ends by itself.
func (s *session) makeToken(ctx context.Context) error {
	var got api.IssuedToken
	_, err := s.want(ctx, http.StatusCreated, &got, http.MethodPost, "/v2/join/tokens", `{"role":"agent","ttl":"1s"}`)
	if err == nil && (got.Token == "" || got.Role != api.NodeAgent || got.ExpiresAt.IsZero()) {
		return fmt.Errorf("got a token for the role %q until %v, want one for an agent", got.Role, got.ExpiresAt)
	}
	return err
}

// join lets nobody in: what it shows is no token.
func (s *session) join(ctx context.Context) error {
	a, err := s.ask(ctx, http.MethodPost, "/v2/join", `{"token":"none","role":"agent","request":"none"}`)
	if err == nil && a.status == http.StatusForbidden {
		return fmt.Errorf("%w: tokens are taken over HTTPS only", ErrSkipped)
	}
	if err == nil && a.status != http.StatusBadRequest {
		return fmt.Errorf("got %d %s, want 400", a.status, short(a.body))
	}
	return errors.Join(err, problem(a, "/v2/join"))
}

// revokeNothing names no certificate, which would be for ever.
func (s *session) revokeNothing(ctx context.Context) error {
	_, err := s.want(ctx, http.StatusBadRequest, nil, http.MethodPost, "/v2/revocations", "{}")
	return err
}
