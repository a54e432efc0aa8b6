package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// The roles of API keys. Each may do what those before it may.
const (
	RoleRun     = "run"     // its own tasks
	RoleOperate = "operate" // sees and stops all tasks; nodes and drains
	RoleAdmin   = "admin"   // keys, join tokens and the cluster itself
)

// KeyRequest asks for a new API key.
type KeyRequest struct {
	Name string `json:"name,omitempty"` // for people
	Role string `json:"role"`
	// Limits of its own; nil: the control nodes' defaults, 0: none.
	Rate        *int `json:"rate,omitempty"`        // requests a second, of each control node
	Concurrency *int `json:"concurrency,omitempty"` // requests at once, at each control node
	Quota       *int `json:"quota,omitempty"`       // tasks that wait for a node
}

// Key is an API key.
type Key struct {
	ID   string `json:"id"` // what callers send as the key
	Name string `json:"name,omitempty"`
	Role string `json:"role"`
	// Secret is told once, by the answer that made the key.
	Secret      string    `json:"secret,omitempty"`
	Rate        *int      `json:"rate,omitempty"`
	Concurrency *int      `json:"concurrency,omitempty"`
	Quota       *int      `json:"quota,omitempty"`
	CreatedAt   time.Time `json:"created_at,omitzero"`
	CreatedBy   string    `json:"created_by,omitempty"` // a key
	RevokedAt   time.Time `json:"revoked_at,omitzero"`
	RevokedBy   string    `json:"revoked_by,omitempty"`
}

// KeyList is every key of the record, by id. Those of htpasswd files are not
// among them.
type KeyList struct {
	Keys []Key `json:"keys"`
}

// MakeKey makes an API key. Its secret is in this answer and nowhere else. When
// the answer is lost, *Uncertain, the key may exist without anybody who has its
// secret: look for it with Keys and revoke it.
func (c *Client) MakeKey(ctx context.Context, r KeyRequest) (*Key, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	k := new(Key)
	_, err = c.do(ctx, call{method: http.MethodPost, path: "/v2/keys", body: body, once: true, into: k})
	return k, err
}

// Keys gives every key of the record, revoked ones included.
func (c *Client) Keys(ctx context.Context) ([]Key, error) {
	list := new(KeyList)
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/v2/keys", into: list})
	return list.Keys, err
}

// RevokeKey ends a key at once. Revoking it again changes nothing.
func (c *Client) RevokeKey(ctx context.Context, id string) (*Key, error) {
	k := new(Key)
	_, err := c.do(ctx, call{method: http.MethodDelete, path: "/v2/keys/" + url.PathEscape(id), into: k})
	return k, err
}
