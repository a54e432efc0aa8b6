package dispatch

import (
	"context"
	"slices"
	"sync"
	"time"
)

// checkEvery bounds how often a check of leadership begins: whoever asks in between
// shares the next one. It must stay well under the agent's 2 s of silence, also where
// checks are slow: so it counts from the beginning of the one before.
const checkEvery = time.Second

// slowCheck is how long a check may take before that is worth a word: with twice as
// much agents begin to take this node for lost.
const slowCheck = 750 * time.Millisecond

// What a check found is told to toldAtOnce askers, and then to as many more every
// now and then, to all within tellWithin. Hundreds of agents answered together
// would have both ends' machines to themselves, and every task would wait for
// that, once a second.
const (
	toldAtOnce = 16
	tellWithin = 250 * time.Millisecond
)

// checks shares leadership checks between heartbeats. Each asker gets the
// answer of a check that began after it asked.
type checks struct {
	verify func(context.Context) error
	slow   func(took time.Duration) // is told of slow checks
	wake   chan struct{}
	mu     struct {
		sync.Mutex
		waiting []chan check
	}
}

func newChecks(verify func(context.Context) error, slow func(took time.Duration)) *checks {
	return &checks{verify: verify, slow: slow, wake: make(chan struct{}, 1)}
}

// check is what one leadership check found, and when it began.
type check struct {
	began time.Time
	err   error
}

// leading waits for a check that begins after the call. Its error is nil when
// this node led at a moment after it began.
func (c *checks) leading(ctx context.Context) (began time.Time, err error) {
	answer := make(chan check, 1)
	c.mu.Lock()
	c.mu.waiting = append(c.mu.waiting, answer)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	select {
	case found := <-answer:
		return found.began, found.err
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}

// run answers askers until ctx ends.
func (c *checks) run(ctx context.Context) {
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		asked := c.mu.waiting
		c.mu.waiting = nil
		c.mu.Unlock()
		found := check{began: time.Now()}
		found.err = c.verify(ctx)
		if took := time.Since(found.began); took > slowCheck && found.err == nil {
			c.slow(took)
		}
		found.tell(ctx, asked)
		if pause(ctx, checkEvery-time.Since(found.began)); ctx.Err() != nil {
			return
		}
	}
}

// tell answers askers; those that are left when ctx ends hear of that themselves.
func (found check) tell(ctx context.Context, asked []chan check) {
	groups := slices.Collect(slices.Chunk(asked, toldAtOnce))
	for i, group := range groups {
		if i > 0 && found.err == nil {
			pause(ctx, tellWithin/time.Duration(len(groups)))
		}
		for _, answer := range group {
			answer <- found
		}
	}
}
