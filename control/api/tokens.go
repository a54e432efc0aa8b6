package api

import (
	"encoding/hex"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/julienschmidt/httprouter"

	"ecs/internal/access"
	"ecs/proto/api"
)

// tokens serves GET /v2/join/tokens.
func (h *Handler) tokens(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	if _, err := query(r, nil); err != nil {
		return err
	}
	if err := h.sync(r.Context()); err != nil {
		return err
	}
	list := api.TokenList{Tokens: []api.Token{}}
	for t := range h.cfg.Reader.Snapshot().Tokens() {
		list.Tokens = append(list.Tokens, h.renderToken(t))
	}
	h.json(w, r, http.StatusOK, list)
	return nil
}

// leastTokenID is how much of a token's id names it, in digits, at least.
const leastTokenID = 6

// withdrawToken serves DELETE /v2/join/tokens/{id}.
func (h *Handler) withdrawToken(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	if err := noBody(w, r); err != nil {
		return err
	}
	id := strings.ToLower(p.ByName("id"))
	exchangeOf(r).asked = []slog.Attr{slog.String("id", id)}
	if len(id) < leastTokenID || len(id) > 2*len(access.Token{}.Hash) || strings.Trim(id, "0123456789abcdef") != "" {
		return badParameter("id", "must be the id of a token as GET /v2/join/tokens has it, or 6 digits and more of its beginning")
	}
	if err := h.sync(r.Context()); err != nil {
		return err
	}
	t, err := h.tokenNamed(id)
	if err != nil {
		return err
	}
	if t.SpentAt.IsZero() {
		by := exchangeOf(r).owner
		if err := h.cfg.Authority.Withdraw(r.Context(), t, by); err != nil {
			return err
		}
		h.cfg.Log.InfoContext(r.Context(), "join token withdrawn", "id", id, "by", by)
	}
	now := h.cfg.Reader.Snapshot().Token(t.Hash)
	if now == nil { // it made room
		return refusal(api.CodeNotFound, "there is no such token")
	}
	if !now.SpentAt.IsZero() && !now.Withdrawn() {
		return refusal(api.CodeStale, "a node used the token before: revoke the node's certificates (POST /v2/revocations)")
	}
	h.json(w, r, http.StatusOK, h.renderToken(now))
	return nil
}

// tokenNamed finds a token by the beginning of its id.
func (h *Handler) tokenNamed(id string) (*access.Token, error) {
	var found *access.Token
	for t := range h.cfg.Reader.Snapshot().Tokens() {
		if !strings.HasPrefix(hex.EncodeToString(t.Hash[:]), id) {
			continue
		}
		if found != nil {
			return nil, badParameter("id", "names more than one token; give more of it")
		}
		found = t
	}
	if found == nil {
		return nil, refusal(api.CodeNotFound, "there is no such token")
	}
	return found, nil
}

func (h *Handler) renderToken(t *access.Token) api.Token {
	v := api.Token{ID: hex.EncodeToString(t.Hash[:]), Role: t.Role, State: api.TokenOpen,
		CreatedAt: t.CreatedAt, CreatedBy: t.CreatedBy, ExpiresAt: t.ExpiresAt, SpentAt: t.SpentAt}
	switch {
	case t.Withdrawn():
		v.State = api.TokenWithdrawn
	case !t.SpentAt.IsZero():
		v.State, v.Node = api.TokenUsed, t.Node
	case !time.Now().Before(t.ExpiresAt):
		v.State = api.TokenExpired
	case !h.cfg.Authority.Vouched(t):
		v.State = api.TokenVoid
	}
	return v
}
