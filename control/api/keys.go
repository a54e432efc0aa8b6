package api

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"unicode"

	"github.com/julienschmidt/httprouter"

	"ecs/internal/access"
	"ecs/internal/task"
	"ecs/proto/api"
)

// maxKeyName bounds the name of a key, in bytes.
const maxKeyName = 128

// keys serves GET /v2/keys.
func (h *Handler) keys(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	if _, err := query(r, nil); err != nil {
		return err
	}
	if err := h.sync(r.Context()); err != nil {
		return err
	}
	list := api.KeyList{Keys: []api.Key{}}
	for k := range h.cfg.Reader.Snapshot().Keys() {
		list.Keys = append(list.Keys, renderKey(k))
	}
	h.json(w, r, http.StatusOK, list)
	return nil
}

// makeKey serves POST /v2/keys. It draws key and secret; the secret is in this
// answer and nowhere else.
func (h *Handler) makeKey(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	if _, err := query(r, nil); err != nil {
		return err
	}
	body, err := readBody(w, r, api.MaxBodyV1)
	if err != nil {
		return err
	}
	k, err := parseKey(body)
	if err != nil {
		return err
	}
	secret := drawn()
	k.ID, k.CreatedBy = drawn(), exchangeOf(r).owner
	exchangeOf(r).asked = []slog.Attr{slog.String("key", k.ID), slog.String("role", string(k.Role))}
	if k.Hash, err = HashSecret(secret); err != nil {
		return fmt.Errorf("hash a secret: %w", err)
	}
	if err := h.cfg.Keys.PutKey(r.Context(), k); err != nil {
		return err
	}
	made := h.cfg.Reader.Snapshot().Key(k.ID)
	if made == nil {
		return fmt.Errorf("key %s is not in the record after it was made", k.ID)
	}
	h.cfg.Log.InfoContext(r.Context(), "key made", "key", k.ID, "role", k.Role, "by", k.CreatedBy)
	answer := renderKey(made)
	answer.Secret = secret
	h.json(w, r, http.StatusCreated, answer)
	return nil
}

// revokeKey serves DELETE /v2/keys/{id}.
func (h *Handler) revokeKey(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	if err := noBody(w, r); err != nil {
		return err
	}
	id, by := p.ByName("id"), exchangeOf(r).owner
	if err := h.cfg.Keys.RevokeKey(r.Context(), id, by); err != nil {
		if errors.Is(err, &task.Error{Code: task.CodeNotFound}) {
			return refusal(api.CodeNotFound, "there is no such key in the record; one of an htpasswd file is revoked there, on every control node")
		}
		return err
	}
	k := h.cfg.Reader.Snapshot().Key(id)
	if k == nil { // a thousand were revoked since
		return refusal(api.CodeNotFound, "there is no such key")
	}
	h.cfg.Log.InfoContext(r.Context(), "key revoked", "key", id, "by", by)
	h.json(w, r, http.StatusOK, renderKey(k))
	return nil
}

// drawn is 128 random bits.
func drawn() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return hex.EncodeToString(b)
}

// parseKey reads the body of POST /v2/keys. The error is a *task.Error that lists
// every fault.
func parseKey(body []byte) (access.Key, error) {
	f := new(faults)
	root, ok := decode(body, f)
	if !ok {
		return access.Key{}, f.err()
	}
	o := fieldsOf(root, f)
	k := access.Key{Name: o.text("name")}
	if len(k.Name) > maxKeyName || strings.ContainsFunc(k.Name, unicode.IsControl) {
		f.add(o.at("name"), "", "must be at most %d bytes without control characters", maxKeyName)
	}
	var err error
	if k.Role, err = access.ParseRole(o.text("role")); err != nil {
		f.add(o.at("role"), "", "must be %s, %s or %s", access.Run, access.Operate, access.Admin)
	}
	k.Limits = access.Limits{Rate: limit(o, "rate"), Concurrency: limit(o, "concurrency"), Quota: limit(o, "quota")}
	o.done()
	return k, f.err()
}

// limit reads one limit of a key: absent is the default, 0 is none.
func limit(o *fields, name string) int {
	n, there := o.count(name, 0, access.MaxLimit)
	if there && n == 0 {
		return access.NoLimit
	}
	return int(n)
}

func renderKey(k *access.Key) api.Key {
	return api.Key{ID: k.ID, Name: k.Name, Role: string(k.Role),
		Rate: renderLimit(k.Limits.Rate), Concurrency: renderLimit(k.Limits.Concurrency), Quota: renderLimit(k.Limits.Quota),
		CreatedAt: k.CreatedAt, CreatedBy: k.CreatedBy, RevokedAt: k.RevokedAt, RevokedBy: k.RevokedBy}
}

func renderLimit(n int) *int {
	switch n {
	case 0:
		return nil
	case access.NoLimit:
		return new(0)
	}
	return &n
}
