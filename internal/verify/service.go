package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"ecs/proto/api"
)

func (s *session) nodes(ctx context.Context) error {
	var got api.NodeList
	if _, err := s.want(ctx, http.StatusOK, &got, http.MethodGet, "/v2/nodes", ""); err != nil {
		return err
	}
	for _, n := range got.Nodes {
		if n.Status == "ready" && !n.Drain {
			s.node = n.ID
			return nil
		}
	}
	return fmt.Errorf("none of %d nodes takes tasks", len(got.Nodes))
}

// known skips what needs a node that takes tasks.
func (s *session) known() error {
	if s.node == "" {
		return fmt.Errorf("%w: no node takes tasks", ErrSkipped)
	}
	return nil
}

func (s *session) one(ctx context.Context) error {
	if err := s.known(); err != nil {
		return err
	}
	var got api.Node
	if _, err := s.want(ctx, http.StatusOK, &got, http.MethodGet, "/v2/nodes/"+s.node, ""); err != nil {
		return err
	}
	if got.ID != s.node || got.Capacity.CPU <= 0 {
		return fmt.Errorf("got node %s with %s cores, want %s with some", got.ID, got.Capacity.CPU, s.node)
	}
	_, err := s.want(ctx, http.StatusNotFound, nil, http.MethodGet, "/v2/nodes/no-such-node", "")
	return err
}

// drain takes a node out and puts it back at once, where that is allowed.
func (s *session) drain(ctx context.Context) error {
	if !s.Drain {
		return fmt.Errorf("%w: it would take a node out of service for a moment; --drain allows that", ErrSkipped)
	}
	if err := s.known(); err != nil {
		return err
	}
	var got api.Node
	_, err := s.want(ctx, http.StatusOK, &got, http.MethodPost, "/v2/nodes/"+s.node+"/drain", "")
	if err == nil && !got.Drain {
		err = errors.New("the node does not drain")
	}
	return errors.Join(err, s.undrain(context.WithoutCancel(ctx)))
}

// undrain changes nothing of a node that takes tasks.
func (s *session) undrain(ctx context.Context) error {
	if err := s.known(); err != nil {
		return err
	}
	var got api.Node
	_, err := s.want(ctx, http.StatusOK, &got, http.MethodPost, "/v2/nodes/"+s.node+"/undrain", "")
	if err == nil && got.Drain {
		return errors.New("the node drains still")
	}
	return err
}

func (s *session) cluster(ctx context.Context) error {
	var got api.Cluster
	_, err := s.want(ctx, http.StatusOK, &got, http.MethodGet, "/v2/cluster", "")
	if err == nil && (got.Leader == "" || len(got.Voters) == 0) {
		return fmt.Errorf("got leader %q and %d voters, want a leader among some", got.Leader, len(got.Voters))
	}
	return err
}

func (s *session) logs(ctx context.Context) error {
	if err := s.ran(); err != nil {
		return err
	}
	var got api.LogList
	a, err := s.want(ctx, http.StatusOK, &got, http.MethodGet, "/v2/logs?cid="+s.mark, "")
	if err != nil {
		return err
	}
	for _, want := range []string{`"request"`, `"attempt assigned"`, `"attempt ended"`, `"task ended"`} {
		if !strings.Contains(string(a.body), `"msg":`+want) {
			return fmt.Errorf("of %d lines none says %s", len(got.Lines), want)
		}
	}
	if len(got.Silent) > 0 {
		return fmt.Errorf("%s %s did not answer: %s", got.Silent[0].Role, got.Silent[0].Node, got.Silent[0].Detail)
	}
	return nil
}

func (s *session) images(ctx context.Context) error {
	var got api.ImageList
	_, err := s.want(ctx, http.StatusOK, &got, http.MethodGet, "/v2/images", "")
	if err == nil && got.Images == nil {
		return errors.New("got no list of images")
	}
	return err
}

// save takes the record, and looks only at whether it can be one.
func (s *session) save(ctx context.Context) error {
	a, err := s.want(ctx, http.StatusOK, nil, http.MethodPost, "/v2/cluster/snapshot", "")
	if kind := a.header.Get("Content-Type"); err == nil && (kind != "application/octet-stream" || len(a.body) < sha256.Size) {
		return fmt.Errorf("got %d bytes of %s, want a record and its checksum", len(a.body), kind)
	}
	return err
}

func (s *session) keys(ctx context.Context) error {
	var got api.KeyList
	if _, err := s.want(ctx, http.StatusOK, &got, http.MethodGet, "/v2/keys", ""); err != nil {
		return err
	}
	if got.Keys == nil {
		return errors.New("got no list of keys")
	}
	for _, k := range got.Keys {
		if k.Secret != "" {
			return fmt.Errorf("the secret of key %s is in the list", k.ID)
		}
	}
	return nil
}

func (s *session) tokens(ctx context.Context) error {
	var got api.TokenList
	a, err := s.want(ctx, http.StatusOK, &got, http.MethodGet, "/v2/join/tokens", "")
	switch {
	case err != nil:
		return err
	case got.Tokens == nil:
		return errors.New("got no list of tokens")
	case strings.Contains(string(a.body), "ecsjoin1."):
		return errors.New("a token itself is in the list")
	}
	return nil
}

// withdraw asks for one that there is not: it changes nothing.
func (s *session) withdraw(ctx context.Context) error {
	_, err := s.want(ctx, http.StatusNotFound, nil, http.MethodDelete, "/v2/join/tokens/"+strings.Repeat("0", 64), "")
	return err
}

func (s *session) revocations(ctx context.Context) error {
	var got api.RevocationList
	_, err := s.want(ctx, http.StatusOK, &got, http.MethodGet, "/v2/revocations", "")
	if err == nil && got.Revocations == nil {
		return errors.New("got no list of revocations")
	}
	return err
}

// page holds that an answer contains a text.
func page(path, text string) func(*session, context.Context) error {
	return func(s *session, ctx context.Context) error {
		a, err := s.want(ctx, http.StatusOK, nil, http.MethodGet, path, "")
		if err == nil && !strings.Contains(string(a.body), text) {
			return fmt.Errorf("%s: the answer does not contain %q", path, text)
		}
		return err
	}
}

func (s *session) strangers(ctx context.Context) error {
	a, err := s.want(ctx, http.StatusUnauthorized, nil, http.MethodGet, "/v2/nodes", "", "Authorization", "")
	if err == nil && !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Basic ") {
		return errors.New("401 without WWW-Authenticate")
	}
	return err
}
