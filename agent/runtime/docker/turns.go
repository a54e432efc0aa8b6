package docker

import (
	"context"
	"slices"
	"sync"
)

// turns share out the engine's starts: so many at once, in the order in which
// they came, and those that are to spare only when no other waits.
type turns struct {
	mu     sync.Mutex
	free   int
	queues [2][]chan struct{} // a turn is given by closing; [1] are those to spare
}

func newTurns(n int) *turns { return &turns{free: n} }

// take waits for a turn, which give ends. The error is ctx's cause.
func (t *turns) take(ctx context.Context, spare bool) error {
	queue := &t.queues[0]
	if spare {
		queue = &t.queues[1]
	}
	t.mu.Lock()
	if t.free > 0 { // then nobody waits
		t.free--
		t.mu.Unlock()
		return nil
	}
	mine := make(chan struct{})
	*queue = append(*queue, mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	i := slices.Index(*queue, mine)
	if i >= 0 {
		*queue = slices.Delete(*queue, i, i+1)
	}
	t.mu.Unlock()
	if i < 0 {
		t.give() // it came all the same
	}
	return context.Cause(ctx)
}

// give ends a turn; the next one's begins.
func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.queues {
		if q := t.queues[i]; len(q) > 0 {
			close(q[0])
			t.queues[i] = slices.Delete(q, 0, 1)
			return
		}
	}
	t.free++
}
