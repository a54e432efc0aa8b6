package api

import (
	"context"
	"encoding/base64"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/julienschmidt/httprouter"

	"ecs/internal/access"
	"ecs/internal/task"
	"ecs/proto/api"
)

// Authority makes join tokens and gives new nodes what they need. Errors that a
// caller can act on are *task.Error.
type Authority interface {
	MakeToken(ctx context.Context, role string, ttl time.Duration, by string) (api.JoinToken, time.Time, error)
	// Admit uses a token up for one certificate request.
	Admit(ctx context.Context, token api.JoinToken, role string, requestPEM []byte) (Admitted, error)
	Revoke(ctx context.Context, r access.Revoked) error
	// Withdraw has a token admit nobody.
	Withdraw(ctx context.Context, t *access.Token, by string) error
	// Vouched reports whether whoever made a token may still make some.
	Vouched(t *access.Token) bool
}

// Admitted is what a new node needs.
type Admitted struct {
	Cluster, Node         string
	CertPEM, AuthorityPEM []byte
	GossipKey, SealKey    []byte // SealKey: of control nodes alone
	Join                  []string
}

// makeToken serves POST /v2/join/tokens.
func (h *Handler) makeToken(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	body, err := h.small(w, r)
	if err != nil {
		return err
	}
	req, err := parseTokenRequest(body)
	if err != nil {
		return err
	}
	exchangeOf(r).asked = []slog.Attr{slog.String("role", req.Role)}
	by := exchangeOf(r).owner
	token, ends, err := h.cfg.Authority.MakeToken(r.Context(), req.Role, time.Duration(req.TTL), by)
	if err != nil {
		return err
	}
	h.cfg.Log.InfoContext(r.Context(), "join token made", "role", req.Role, "expires", ends, "by", by)
	h.json(w, r, http.StatusCreated, api.IssuedToken{Token: token.String(), Role: req.Role, ExpiresAt: ends})
	return nil
}

// admitNode serves POST /v2/join. It needs no key: the token is one.
func (h *Handler) admitNode(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	if !exchangeOf(r).secure && !fromHere(r) {
		return refusal(api.CodeForbidden, "a token and the keys that it brings do not cross a network in the clear: use HTTPS")
	}
	body, err := h.small(w, r)
	if err != nil {
		return err
	}
	token, role, request, err := parseAdmission(body)
	if err != nil {
		return err
	}
	exchangeOf(r).asked = []slog.Attr{slog.String("role", role)}
	if err := h.knownToken(r, token); err != nil {
		return err
	}
	got, err := h.cfg.Authority.Admit(r.Context(), token, role, request)
	if err != nil {
		return err
	}
	exchangeOf(r).asked = append(exchangeOf(r).asked, slog.String("node", got.Node))
	h.cfg.Log.InfoContext(r.Context(), "node admitted", "admitted", got.Node, "role", role, "from", addressOf(r))
	h.json(w, r, http.StatusCreated, api.Admitted{Cluster: got.Cluster, Node: got.Node, Certificate: string(got.CertPEM), Authority: string(got.AuthorityPEM),
		GossipKey: base64.StdEncoding.EncodeToString(got.GossipKey), SealKey: base64.StdEncoding.EncodeToString(got.SealKey), Join: got.Join})
	return nil
}

// knownToken refuses a token that the record does not hold. The leader is asked
// whether it does as often as an address may guess a secret, and nobody else: what
// a stranger makes up is signed by nobody and writes nothing.
func (h *Handler) knownToken(r *http.Request, token api.JoinToken) error {
	known := func() bool { return h.cfg.Reader.Snapshot().Token(token.Hash()) != nil }
	if known() {
		return nil
	}
	from, now := addressOf(r), time.Now()
	if err := h.gates.tokens.spare(from, guesses(), now); err != nil {
		return err
	}
	h.gates.tokens.spend(from, guesses(), now)
	if err := h.sync(r.Context()); err != nil {
		return err
	}
	if !known() {
		return TokenRefused()
	}
	h.gates.tokens.refund(from, guesses(), time.Now())
	return nil
}

// TokenRefused says no more than that a join token is refused: why is nobody's
// business who has none that is good.
func TokenRefused() error {
	return &task.Error{Code: task.CodeToken, Message: "the join token is unknown, used, too old, or for another role"}
}

// small reads the body of a call that takes no query.
func (h *Handler) small(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if _, err := query(r, nil); err != nil {
		return nil, err
	}
	return readBody(w, r, maxAdmission)
}

// maxAdmission bounds a body with a certificate request in it.
const maxAdmission = 16 << 10

// fromHere reports whether the request did not leave this machine.
func fromHere(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

func parseTokenRequest(body []byte) (api.TokenRequest, error) {
	f := new(faults)
	root, ok := decode(body, f)
	if !ok {
		return api.TokenRequest{}, f.err()
	}
	o := fieldsOf(root, f)
	req := api.TokenRequest{Role: nodeRole(o), TTL: api.Duration(o.duration("ttl", time.Second, api.MaxTokenTTL))}
	if req.TTL == 0 {
		req.TTL = api.Duration(api.DefaultTokenTTL)
	}
	o.done()
	return req, f.err()
}

func nodeRole(o *fields) string {
	role := o.text("role")
	if role != api.NodeControl && role != api.NodeAgent {
		o.faults.add(o.at("role"), "", "must be %s or %s", api.NodeControl, api.NodeAgent)
	}
	return role
}

func parseAdmission(body []byte) (token api.JoinToken, role string, request []byte, err error) {
	f := new(faults)
	root, ok := decode(body, f)
	if !ok {
		return token, "", nil, f.err()
	}
	o := fieldsOf(root, f)
	if token, err = api.ParseJoinToken(o.text("token")); err != nil {
		f.add(o.at("token"), "", "%v", err)
	}
	role, request = nodeRole(o), []byte(o.text("request"))
	if len(request) == 0 {
		f.add(o.at("request"), "", "is missing: a certificate request, PEM")
	}
	o.done()
	return token, role, request, f.err()
}

// NoAuthority is the refusal of a control node that can't sign.
func NoAuthority() error {
	return &task.Error{Code: task.Code(api.CodeNoAuthority), Message: "this control node has no --ca-key and can't sign certificates; ask another one"}
}
