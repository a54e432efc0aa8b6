package daemon

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"

	"ecs/internal/pki"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// askAgain is how long after all control nodes failed to answer they are asked
// again, give or take half of it.
const askAgain = 2 * time.Second

// RevocationWatch has a node that keeps no record refuse the certificates that
// the cluster revoked. What it was told last holds while nobody can be asked.
type RevocationWatch struct {
	Node     *pki.Node
	Controls func() []string // gRPC addresses of control nodes
	Dial     func(addr string) (*grpc.ClientConn, error)
	Log      *slog.Logger

	// what was taken last is of this entry of the log; Run's own
	incarnation, index uint64
}

// Run follows one control node after the other until ctx ends.
func (w *RevocationWatch) Run(ctx context.Context) error {
	return followInTurn(ctx, w.Controls, w.follow, func(err error) { w.Log.Debug("revoked certificates not followed now", "err", err) })
}

// followInTurn follows one control node after the other until ctx ends. failed is
// told why, when all were asked and some did not answer.
func followInTurn(ctx context.Context, controls func() []string, follow func(ctx context.Context, addr string) error, failed func(error)) error {
	for {
		var faults []error
		for _, addr := range controls() {
			if err := follow(ctx, addr); err != nil && ctx.Err() == nil {
				faults = append(faults, fmt.Errorf("follow %s: %w", addr, err))
			}
		}
		if err := errors.Join(faults...); err != nil {
			failed(err)
		}
		again := time.NewTimer(askAgain/2 + rand.N(askAgain))
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		}
	}
}

// follow takes what one control node says until it says nothing more.
func (w *RevocationWatch) follow(ctx context.Context, addr string) error {
	conn, err := w.Dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := rpc.NewCertificatesClient(conn).Revoked(ctx, &ecsv1.WatchRevoked{})
	if err != nil {
		return err
	}
	for {
		all, err := stream.Recv()
		if err != nil {
			return err
		}
		if !w.newer(all) {
			continue
		}
		w.Node.Revoked(revokedIn(all))
		if cut := w.Node.Recheck(); cut > 0 {
			w.Log.Warn("connections cut: their certificates are revoked", "connections", cut)
		}
	}
}

// newer reports whether a list is no older than what was taken before, and notes
// that it is taken: a control node that lags knows less than another one told.
func (w *RevocationWatch) newer(all *ecsv1.RevokedCertificates) bool {
	incarnation, index := all.GetIncarnation(), all.GetIndex()
	if incarnation < w.incarnation || incarnation == w.incarnation && index < w.index {
		w.Log.Debug("an older list of revoked certificates left out", "index", index, "have", w.index)
		return false
	}
	w.incarnation, w.index = incarnation, index
	return true
}

// revokedIn tells what a list revokes.
func revokedIn(all *ecsv1.RevokedCertificates) func(*x509.Certificate) bool {
	serials, nodes := make(map[string]bool), make(map[string]time.Time)
	for _, m := range all.GetCertificates() {
		if r := taskwire.ToRevoked(m); r.Serial != "" {
			serials[r.Serial] = true
		} else {
			nodes[r.Node] = r.RevokedAt
		}
	}
	return func(cert *x509.Certificate) bool {
		at, known := nodes[cert.Subject.CommonName]
		return serials[pki.SerialOf(cert)] || known && cert.NotBefore.Before(at)
	}
}
