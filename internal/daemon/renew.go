package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"time"

	"google.golang.org/grpc"

	"ecs/internal/pki"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

const (
	// renewWithin bounds one call for a certificate.
	renewWithin = 10 * time.Second
	// renewAgain is how long after a failure the next try is made, give or take
	// half of it. Two thirds of a certificate's life are over then and the last
	// one is left: days, for one that a node got by itself.
	renewAgain = 10 * time.Minute
)

// Renewal keeps a node's certificate young.
type Renewal struct {
	Node *pki.Node
	File string // of the certificate; replaced at once, or not at all
	// Controls gives the gRPC addresses of control nodes, any of which may have
	// the authority's key.
	Controls func() []string
	Dial     func(addr string) (*grpc.ClientConn, error)
	Log      *slog.Logger
	Again    time.Duration // 0: renewAgain
}

// Run gets the next certificate whenever the present one has two thirds of its
// life behind it, until ctx ends.
func (r *Renewal) Run(ctx context.Context) error {
	wait := time.Until(r.Node.RenewAt())
	told := ""
	for {
		due := time.NewTimer(max(wait, 0))
		select {
		case <-due.C:
		case <-ctx.Done():
			due.Stop()
			return ctx.Err()
		}
		err := r.renew(ctx)
		if err == nil {
			r.Log.Info("certificate renewed", "expires", r.Node.Expires())
			wait, told = time.Until(r.Node.RenewAt()), ""
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if text := err.Error(); text != told {
			told = text
			r.Log.Warn("certificate not renewed yet", "expires", r.Node.Expires(), "err", err)
		}
		again := r.Again
		if again == 0 {
			again = renewAgain
		}
		wait = again/2 + rand.N(again)
	}
}

// renew asks one control node after the other.
func (r *Renewal) renew(ctx context.Context) error {
	request, err := r.Node.Request()
	if err != nil {
		return err
	}
	faults := []error{errors.New("no control node signed it")}
	for _, addr := range r.Controls() {
		cert, err := r.ask(ctx, addr, request)
		if err == nil {
			err = r.Node.Replace(cert)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("ask %s: %w", addr, err))
			continue
		}
		if err := replaceFile(r.File, cert); err != nil {
			r.Log.Error("the new certificate is in use, but not on disk: a restart begins with the old one", "path", r.File, "err", err)
		}
		return nil
	}
	return errors.Join(faults...)
}

func (r *Renewal) ask(ctx context.Context, addr string, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	conn, err := r.Dial(addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answer, err := rpc.NewCertificatesClient(conn).Renew(ctx, &ecsv1.RenewRequest{Request: request})
	if err != nil {
		return nil, err
	}
	if refusal := taskwire.ToError(answer.GetRefusal()); refusal != nil {
		return nil, refusal
	}
	return answer.GetCertificate(), nil
}

// replaceFile leaves the old or the new content, also after a crash.
func replaceFile(file string, content []byte) error {
	tmp, err := os.OpenFile(file+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}
