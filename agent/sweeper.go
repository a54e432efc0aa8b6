package agent

import (
	"context"
	"sync"
	"time"

	"ecs/internal/task"
)

const (
	sweepEvery   = time.Minute
	sweepTimeout = time.Minute
)

// claims are the attempts that have, or may come to have, a container. Its
// methods are safe for concurrent use.
type claims struct {
	mu     sync.Mutex
	tokens map[task.Token]bool
}

func newClaims() *claims { return &claims{tokens: map[task.Token]bool{}} }

func (c *claims) add(tok task.Token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens[tok] = true
}

func (c *claims) drop(tok task.Token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.tokens, tok)
}

func (c *claims) has(tok task.Token) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tokens[tok]
}

// sweep removes, now and then and when asked, the containers that no attempt
// claims: what a crash of the agent, a lost answer or a failed removal left.
func (a *Agent) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-a.sweepNow:
		case <-ctx.Done():
			return
		}
		if err := a.reap(ctx); err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("left containers not removed", "err", err)
		}
	}
}

// reap removes what is not claimed, once.
func (a *Agent) reap(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	n, err := a.cfg.Runtime.Reap(ctx, a.supervisor.claims.has)
	if n > 0 {
		count(a.cfg.Metrics, metricSwept, n)
		a.cfg.Log.Warn("left containers removed", "containers", n)
	}
	return err
}

// rememberedTokens is how many ended attempts a node remembers.
const rememberedTokens = 4096

// recent remembers attempts that have ended, so that an assignment that comes
// twice does not run twice. Those of older epochs are refused anyway.
type recent struct {
	ring []task.Token
	next int
	set  map[task.Token]bool
}

func newRecent() recent {
	return recent{ring: make([]task.Token, 0, 64), set: map[task.Token]bool{}}
}

func (r *recent) add(tok task.Token) {
	if len(r.ring) < rememberedTokens {
		r.ring = append(r.ring, tok)
	} else {
		delete(r.set, r.ring[r.next])
		r.ring[r.next] = tok
		r.next = (r.next + 1) % rememberedTokens
	}
	r.set[tok] = true
}

func (r *recent) has(tok task.Token) bool { return r.set[tok] }
