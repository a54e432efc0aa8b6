package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// The roles of nodes.
const (
	NodeControl = "control"
	NodeAgent   = "agent"
)

// How long a join token may be good.
const (
	DefaultTokenTTL = 15 * time.Minute
	MaxTokenTTL     = time.Hour
)

// tokenPrefix begins every join token, so that one is known where it leaks.
const tokenPrefix = "ecsjoin1."

// JoinToken is what a new node needs to get its first certificate, once: a
// secret, and the authority that it is to trust.
type JoinToken struct {
	Pin    [32]byte // SHA-256 of the authority's certificate, DER
	Secret [32]byte
}

// String gives the token as people pass it on.
func (t JoinToken) String() string {
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(t.Pin[:], t.Secret[:]...))
}

// Hash is how the cluster knows the token: it keeps no secret.
func (t JoinToken) Hash() [32]byte { return sha256.Sum256(t.Secret[:]) }

// ParseJoinToken is the inverse of String. Errors never show the token.
func ParseJoinToken(s string) (JoinToken, error) {
	var t JoinToken
	text, ok := strings.CutPrefix(strings.TrimSpace(s), tokenPrefix)
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	// The decoder passes over line ends: a token has one form only.
	if !ok || err != nil || strings.ContainsAny(text, "\r\n") || len(raw) != len(t.Pin)+len(t.Secret) {
		return JoinToken{}, errors.New("that is no join token, as `ecsctl ca token` prints them, or not all of one")
	}
	copy(t.Pin[:], raw)
	copy(t.Secret[:], raw[len(t.Pin):])
	return t, nil
}

// TokenRequest asks for a join token.
type TokenRequest struct {
	Role string   `json:"role"`         // of the node: control or agent
	TTL  Duration `json:"ttl,omitzero"` // default DefaultTokenTTL, at most MaxTokenTTL
}

// IssuedToken is a join token, told once.
type IssuedToken struct {
	Token     string    `json:"token"`
	Role      string    `json:"role"`
	ExpiresAt time.Time `json:"expires_at"`
}

// The states of a join token.
const (
	TokenOpen      = "open"      // it admits one node
	TokenUsed      = "used"      // by Node
	TokenExpired   = "expired"   // by its time
	TokenWithdrawn = "withdrawn" // taken back
	TokenVoid      = "void"      // whoever made it may make none any more
)

// Token is a join token as the record has it, without its secret.
type Token struct {
	ID        string    `json:"id"` // SHA-256 of its secret, hexadecimal
	Role      string    `json:"role"`
	State     string    `json:"state"`
	CreatedAt time.Time `json:"created_at"`
	CreatedBy string    `json:"created_by,omitempty"` // a key
	ExpiresAt time.Time `json:"expires_at"`
	// SpentAt is when it was used or withdrawn.
	SpentAt time.Time `json:"spent_at,omitzero"`
	Node    string    `json:"node,omitempty"` // that used it
}

// TokenList is the join tokens of the record.
type TokenList struct {
	Tokens []Token `json:"tokens"`
}

// Admission asks for a node's first certificate.
type Admission struct {
	Token   string `json:"token"`
	Role    string `json:"role"`    // that the node wants; it must be the token's
	Request string `json:"request"` // a certificate request, PEM; nothing but its key counts
}

// Admitted is what a new node needs.
type Admitted struct {
	Cluster     string   `json:"cluster"`
	Node        string   `json:"node"`               // its id, for ever
	Certificate string   `json:"certificate"`        // PEM
	Authority   string   `json:"authority"`          // the cluster's, PEM
	GossipKey   string   `json:"gossip_key"`         // base64
	SealKey     string   `json:"seal_key,omitempty"` // base64; for control nodes
	Join        []string `json:"join"`               // gossip addresses
}

// RevocationRequest ends what certificates are good for: one by its serial
// number, or all that a node has so far.
type RevocationRequest struct {
	Node   string `json:"node,omitempty"`   // its id or name
	Serial string `json:"serial,omitempty"` // hexadecimal
	// Force takes a node that the cluster does not know: an id as it is in its
	// certificate.
	Force bool `json:"force,omitempty"`
}

// Revocation is a certificate, or all of a node up to RevokedAt, that no node
// accepts any more.
type Revocation struct {
	Node      string    `json:"node,omitempty"`
	Serial    string    `json:"serial,omitempty"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	RevokedBy string    `json:"revoked_by,omitempty"`
}

// RevocationList is all of them.
type RevocationList struct {
	Revocations []Revocation `json:"revocations"`
}

// MakeToken makes a join token. When the answer is lost, *Uncertain, there may be
// one that nobody has: it ends by itself.
func (c *Client) MakeToken(ctx context.Context, r TokenRequest) (*IssuedToken, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode the request for a token: %w", err)
	}
	t := new(IssuedToken)
	_, err = c.do(ctx, call{method: http.MethodPost, path: "/v2/join/tokens", body: body, once: true, into: t})
	return t, err
}

// Tokens gives the join tokens of the record, used and old ones included until
// others take their place.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	list := new(TokenList)
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/v2/join/tokens", into: list})
	return list.Tokens, err
}

// WithdrawToken has a join token admit nobody. It is named by its ID or so much of
// its beginning as no other has.
func (c *Client) WithdrawToken(ctx context.Context, id string) (*Token, error) {
	t := new(Token)
	_, err := c.do(ctx, call{method: http.MethodDelete, path: "/v2/join/tokens/" + url.PathEscape(id), into: t})
	return t, err
}

// Admit gets a new node its first certificate. It may be repeated with the same
// request while the token is good. The caller checks the authority against the
// token's Pin.
func (c *Client) Admit(ctx context.Context, r Admission) (*Admitted, error) {
	a := new(Admitted)
	return a, c.post(ctx, "/v2/join", r, a)
}

// RevokeCertificate has no node accept a certificate any more.
func (c *Client) RevokeCertificate(ctx context.Context, r RevocationRequest) (*Revocation, error) {
	v := new(Revocation)
	return v, c.post(ctx, "/v2/revocations", r, v)
}

// Revocations gives the certificates that no node accepts.
func (c *Client) Revocations(ctx context.Context) ([]Revocation, error) {
	list := new(RevocationList)
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/v2/revocations", into: list})
	return list.Revocations, err
}

func (c *Client) post(ctx context.Context, path string, body, into any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the body of %s: %w", path, err)
	}
	_, err = c.do(ctx, call{method: http.MethodPost, path: path, body: b, into: into})
	return err
}
