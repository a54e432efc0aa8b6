package api

import (
	"context"
	"errors"
	"sync"
	"time"

	"ecs/internal/access"
)

// errLapsed is why a request ended: its key counts no more.
var errLapsed = errors.New("the key was revoked or changed")

// holders are the requests in progress that a key let in. They end with it,
// however long they would have lasted.
type holders struct {
	mu  sync.Mutex
	all map[*holder]struct{}
}

type holder struct {
	who access.Principal
	end context.CancelCauseFunc
}

// hold gives the context of a request whose key let it in. release is to be called
// when it is over.
func (h *holders) hold(ctx context.Context, who access.Principal, counts func(access.Principal) bool) (held context.Context, release func()) {
	ctx, end := context.WithCancelCause(ctx)
	e := &holder{who, end}
	h.mu.Lock()
	h.all[e] = struct{}{}
	h.mu.Unlock()
	// What was revoked since the secret was checked is seen now, what is revoked
	// from here on by end.
	if !counts(who) {
		end(errLapsed)
	}
	return ctx, func() {
		h.mu.Lock()
		delete(h.all, e)
		h.mu.Unlock()
		end(nil)
	}
}

// end ends the requests whose keys do not count, and says how many.
func (h *holders) end(counts func(access.Principal) bool) (ended int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	asked := make(map[access.Principal]bool)
	for e := range h.all {
		ok, known := asked[e.who]
		if !known {
			ok = counts(e.who)
			asked[e.who] = ok
		}
		if !ok {
			e.end(errLapsed)
			ended++
		}
	}
	return ended
}

// EndLapsed ends requests in progress, attachments too, as soon as their keys count
// no more, until ctx ends.
func (h *Handler) EndLapsed(ctx context.Context) error {
	for {
		changed, again := h.cfg.Auth.Changed()
		if n := h.holders.end(h.cfg.Auth.Counts); n > 0 {
			h.cfg.Log.Warn("requests ended: their keys count no more", "requests", n)
		}
		var due <-chan time.Time
		var timer *time.Timer
		if again > 0 {
			timer = time.NewTimer(again)
			due = timer.C
		}
		var err error
		select {
		case <-changed:
		case <-due:
		case <-ctx.Done():
			err = ctx.Err()
		}
		if timer != nil {
			timer.Stop()
		}
		if err != nil {
			return err
		}
	}
}
