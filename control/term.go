package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
)

// terms runs the leader's loops for as long as each term of this node lasts.
// The loops of one term have ended before those of the next begin.
func (s *Server) terms(ctx context.Context) error {
	select {
	case <-s.replica.Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		term, leading, changed := s.replica.Leadership()
		if !leading {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := s.term(ctx, term); err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("leader's loops ended", "term", term, "err", err)
			s.afterFailure(ctx, term)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// Leading reports whether this node leads, and the term it knows.
func (s *Server) Leading() (term uint64, leading bool) {
	term, leading, _ = s.replica.Leadership()
	return term, leading
}

// term leads until the term is over or a loop fails.
func (s *Server) term(ctx context.Context, term uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer cancel()
		for {
			now, leading, changed := s.replica.Leadership()
			if !leading || now != term {
				return nil
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return nil
			}
		}
	})
	g.Go(func() error { return s.lead(ctx, term) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// lead runs the leader's loops. Everything an earlier leader committed is
// applied before any of them looks.
func (s *Server) lead(ctx context.Context, term uint64) error {
	s.ends.leads(term)
	if err := s.replica.Barrier(ctx); err != nil {
		return fmt.Errorf("barrier of term %d: %w", term, err)
	}
	if err := s.name(ctx); err != nil {
		return err
	}
	s.cfg.Log.Info("leading", "term", term)
	s.cfg.Audit.Note(ctx, "leading", slog.Uint64("term", term))
	defer s.cfg.Log.Info("no longer leading", "term", term)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.sessions.Lead(ctx, term) })
	g.Go(func() error { return s.schedule(ctx) })
	g.Go(func() error { return s.reap(ctx) })
	g.Go(func() error { return s.keepVoters(ctx) })
	g.Go(func() error { return s.forgetGone(ctx) })
	g.Go(func() error { return s.seeRotationThrough(ctx) })
	g.Go(func() error { return s.firstKey(ctx) })
	return g.Wait()
}

// afterFailure waits a little before a failed term's loops start again, unless
// the term changes first.
func (s *Server) afterFailure(ctx context.Context, term uint64) {
	now, leading, changed := s.replica.Leadership()
	if !leading || now != term {
		return
	}
	again := time.NewTimer(100 * time.Millisecond)
	defer again.Stop()
	select {
	case <-again.C:
	case <-changed:
	case <-ctx.Done():
	}
}
