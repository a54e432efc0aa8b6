package control

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"ecs/control/api"
	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/pki"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	protoapi "ecs/proto/api"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// Authority is what a control node needs to let others in.
type Authority struct {
	CA      *pki.CA
	SealKey []byte
}

// MakeToken makes a join token. Only its hash enters the record.
func (s *Server) MakeToken(ctx context.Context, role string, ttl time.Duration, by string) (protoapi.JoinToken, time.Time, error) {
	if s.cfg.Authority == nil {
		return protoapi.JoinToken{}, time.Time{}, api.NoAuthority()
	}
	if err := s.accessKnown(); err != nil {
		return protoapi.JoinToken{}, time.Time{}, err
	}
	var token protoapi.JoinToken
	var err error
	if token.Pin, err = pki.Pin(s.cfg.Authority.CA.CertPEM()); err != nil {
		return protoapi.JoinToken{}, time.Time{}, err
	}
	rand.Read(token.Secret[:]) // never fails, see its documentation
	ends := time.Now().Add(ttl).UTC()
	put := state.PutToken{Token: access.Token{Hash: token.Hash(), Role: role, CreatedBy: by, ExpiresAt: ends}}
	return token, ends, s.change(ctx, put, "make a join token")
}

// Admit uses a token up for one certificate request. The node's id follows from
// its key: nobody chooses one, so nobody becomes another node.
func (s *Server) Admit(ctx context.Context, token protoapi.JoinToken, role string, requestPEM []byte) (api.Admitted, error) {
	a := s.cfg.Authority
	if a == nil {
		return api.Admitted{}, api.NoAuthority()
	}
	sum, err := pki.RequestSum(requestPEM)
	if err != nil {
		return api.Admitted{}, &task.Error{Code: task.CodeBadRequest, Message: err.Error()}
	}
	id := pki.Identity{Cluster: a.CA.Cluster(), Role: pki.Role(role), ID: hex.EncodeToString(sum[:16])}
	spend := state.SpendToken{Hash: token.Hash(), Role: role, Node: id.ID, Request: sum}
	// What is refused here costs no signature and no entry of the log. What passes
	// must also do so on a record that holds everything of before.
	if _, err := s.admissible(spend); err != nil {
		return api.Admitted{}, err
	}
	if err := s.Sync(ctx); err != nil {
		return api.Admitted{}, fmt.Errorf("look whether the token counts: %w", errors.Join(errNoLeader, err))
	}
	again, err := s.admissible(spend)
	if err != nil {
		return api.Admitted{}, err
	}
	// Signed before the token is spent: a request that can't be signed costs none.
	cert, err := a.CA.Sign(requestPEM, id, time.Now(), pki.NodeLifetime)
	if err != nil {
		return api.Admitted{}, &task.Error{Code: task.CodeBadRequest, Message: err.Error()}
	}
	if !again {
		if err := s.change(ctx, spend, "use a join token"); err != nil {
			return api.Admitted{}, err
		}
	}
	got := api.Admitted{Cluster: id.Cluster, Node: id.ID, CertPEM: cert, AuthorityPEM: a.CA.CertPEM(), GossipKey: s.cfg.Gossip.Keys.Ring().Keys[0], Join: []string{}}
	if id.Role == pki.RoleControl {
		got.SealKey = a.SealKey
	}
	for _, m := range s.members.Snapshot() {
		if m.Role == string(pki.RoleControl) && m.GossipAddr != "" {
			got.Join = append(got.Join, m.GossipAddr)
		}
	}
	return got, nil
}

func (s *Server) admissible(use state.SpendToken) (again bool, err error) {
	sn := s.store.Snapshot()
	if t := sn.Token(use.Hash); t != nil && !s.Vouched(t) {
		return false, api.TokenRefused()
	}
	return admissible(sn, use, time.Now())
}

// Vouched reports whether the key that made a token still opens the door to make
// tokens: a token is worth no more than it.
func (s *Server) Vouched(t *access.Token) bool {
	return t.CreatedBy == "" || s.keyring == nil || s.keyring.Holds(t.CreatedBy, access.Admin)
}

// Withdraw has a token admit nobody.
func (s *Server) Withdraw(ctx context.Context, t *access.Token, by string) error {
	err := s.change(ctx, state.WithdrawToken(t, by), "withdraw a join token")
	if errors.Is(err, &task.Error{Code: task.CodeToken}) {
		return nil // used, or old, before: the record says which
	}
	return err
}

// longestToken bounds what a token lasts by the leader's clock, which told when it
// was made: that of the node that made it, and said when it ends, may be wrong.
const longestToken = protoapi.MaxTokenTTL + 5*time.Minute

// admissible refuses what a token is not good for, by the record. again says that
// it was used up by this very request before.
func admissible(sn *state.Snapshot, use state.SpendToken, now time.Time) (again bool, err error) {
	t := sn.Token(use.Hash)
	if t == nil || t.Role != use.Role || !now.Before(t.ExpiresAt) || now.Sub(t.CreatedAt) > longestToken {
		return false, api.TokenRefused()
	}
	again = !t.SpentAt.IsZero()
	if again && (t.Node != use.Node || t.Request != use.Request) {
		return false, api.TokenRefused()
	}
	if sn.RevokedNode(use.Node) != nil {
		// Its id follows from its key, and that is what was revoked.
		return false, &task.Error{Code: task.CodeToken, Message: "the certificates of this key were revoked: have a new key drawn, with a new token (ecsctl ca request)"}
	}
	return again, nil
}

// Revoke has no control node accept a certificate any more.
func (s *Server) Revoke(ctx context.Context, r access.Revoked) error {
	if err := s.accessKnown(); err != nil {
		return err
	}
	if r.Serial != "" {
		// No certificate that is good today outlives the authority.
		r.ExpiresAt = time.Now().Add(maxCertificateLife).UTC()
	}
	return s.change(ctx, state.RevokeCertificate{Certificate: r}, "revoke a certificate")
}

// maxCertificateLife is that of an authority: no certificate is good for longer.
const maxCertificateLife = 10 * 366 * 24 * time.Hour

// revoked reports whether the record says that a certificate counts no more.
func (s *Server) revoked(cert *x509.Certificate) bool {
	sn := s.store.Snapshot()
	if sn.RevokedSerial(pki.SerialOf(cert)) != nil {
		return true
	}
	r := sn.RevokedNode(cert.Subject.CommonName)
	// NotBefore lies a little before the moment of issue, so a certificate that
	// was issued right after a revocation is refused too: the node asks again.
	return r != nil && cert.NotBefore.Before(r.RevokedAt)
}

// keepOut refuses revoked certificates from now on, and cuts the connections of
// those that are revoked meanwhile, until ctx ends.
func (s *Server) keepOut(ctx context.Context) error {
	if s.cfg.Guard == nil {
		return nil
	}
	s.cfg.Guard.Revoked(s.revoked)
	for {
		changed := s.store.Snapshot().WatchRevoked()
		if cut := s.cfg.Guard.Recheck(); cut > 0 {
			s.cfg.Log.Warn("connections cut: their certificates are revoked", "connections", cut)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// certificates signs the next certificate of whoever calls.
type certificates struct {
	rpc.UnimplementedCertificatesServer
	s    *Server
	sync func(context.Context) error // brings the record up to date
	// caught is closed once it was.
	caught <-chan struct{}
}

func (s *Server) certificates() *certificates {
	return &certificates{s: s, sync: s.Sync, caught: s.caught}
}

// Renew implements rpc.CertificatesServer. The caller's present certificate,
// which the handshake checked, says whom the next one is for. It is checked again,
// by a record that holds every revocation of before.
func (c *certificates) Renew(ctx context.Context, req *ecsv1.RenewRequest) (*ecsv1.RenewAnswer, error) {
	id, err := c.s.cfg.Peer(ctx)
	if err != nil {
		return nil, err
	}
	present, err := pki.CertificateFromContext(ctx)
	if err != nil {
		return nil, err
	}
	a := c.s.cfg.Authority
	if a == nil {
		var refusal *task.Error
		errors.As(api.NoAuthority(), &refusal)
		return &ecsv1.RenewAnswer{Refusal: taskwire.FromError(refusal)}, nil
	}
	if err := c.sync(ctx); err != nil {
		return &ecsv1.RenewAnswer{Refusal: taskwire.FromError(errNoLeader)}, nil
	}
	if c.s.revoked(present) {
		return nil, status.Errorf(codes.PermissionDenied, "renew the certificate of %s: %v", id, pki.ErrRevoked)
	}
	cert, err := a.CA.Sign(req.GetRequest(), id, time.Now(), pki.NodeLifetime)
	if err != nil {
		return nil, fmt.Errorf("renew the certificate of %s: %w", id, err)
	}
	c.s.cfg.Log.Info("certificate renewed", "for", id.String())
	c.s.cfg.Audit.Note(ctx, "certificate renewed", slog.String("for", id.String()), slog.String("instead_of", pki.SerialOf(present)))
	return &ecsv1.RenewAnswer{Certificate: cert}, nil
}

// ControlAddrs are the gRPC addresses of the control nodes that gossip shows,
// this one's among them.
func (s *Server) ControlAddrs() []string {
	var addrs []string
	for _, m := range s.members.Snapshot() {
		if m.Role == string(pki.RoleControl) {
			addrs = append(addrs, m.RPCAddr)
		}
	}
	return addrs
}

// Revoked implements rpc.CertificatesServer: it tells agents, which have no
// record of their own. A record that may be older than what an agent was told
// before says nothing.
func (c *certificates) Revoked(_ *ecsv1.WatchRevoked, stream rpc.Certificates_RevokedServer) error {
	late := time.NewTimer(syncWithin)
	defer late.Stop()
	select {
	case <-c.caught:
	case <-late.C: // another control node may know
		return status.Error(codes.Unavailable, "the record is not up to date yet")
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
	for {
		sn := c.s.store.Snapshot()
		changed := sn.WatchRevoked()
		all := ecsv1.RevokedCertificates{Incarnation: sn.Incarnation(), Index: sn.Index()}
		for r := range sn.Revoked() {
			all.Certificates = append(all.Certificates, taskwire.FromRevoked(r))
		}
		if err := stream.Send(&all); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
