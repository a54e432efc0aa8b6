package fence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Client keeps the entries of one agent at a fence. It is safe for concurrent
// use. A nil Client stands for no outer fence: all it is asked is done with
// nothing, but for Kill.
type Client struct {
	path string
	log  *slog.Logger
	wake chan struct{} // one slot: there is something to send

	mu struct {
		sync.Mutex
		seq     uint64
		held    map[string]*held
		calls   map[uint64]*call // not answered yet
		trouble error            // nil: the fence works
		left    bool             // Run has ended
	}
}

var errLeft = errors.New("the agent has left the fence")

// held is an entry that the fence is to have, until it is removed.
type held struct {
	Entry
	confirmed bool
	moved     bool // the fence has not been told of the deadline
}

// call is a request on its way.
type call struct {
	request
	sent   bool
	answer chan answer // one slot; nil where nobody waits
}

// New makes a Client of the fence that listens at path. Run sets it to work.
func New(path string, log *slog.Logger) *Client {
	c := &Client{path: path, log: log, wake: make(chan struct{}, 1)}
	c.mu.held = make(map[string]*held)
	c.mu.calls = make(map[uint64]*call)
	c.mu.trouble = errors.New("not connected yet")
	return c
}

// Add has the fence end e at its deadline. nil: the fence has confirmed that it
// will, come what may to this process and to the fence's. Without a connection
// it waits for one, until ctx ends. An id that the fence holds already takes the
// new deadline; ErrEnded, when that comes too late.
func (c *Client) Add(ctx context.Context, e Entry) error {
	if c == nil {
		return nil
	}
	if err := e.check(); err != nil {
		return fmt.Errorf("add %s to the fence: %w", e.ID, err)
	}
	c.mu.Lock()
	h := &held{Entry: e}
	c.mu.held[e.ID] = h
	c.mu.Unlock()
	_, err := c.call(ctx, request{Op: opAdd, Entry: e})

	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if c.mu.held[e.ID] == h {
			delete(c.mu.held, e.ID)
		}
		return fmt.Errorf("add %s to the fence: %w", e.ID, err)
	}
	// Renewed meanwhile, it has to be told once more.
	h.confirmed, h.moved = true, h.Deadline != e.Deadline
	poke(c.wake)
	return nil
}

// Renew moves an entry's deadline. It never blocks: the newest deadline is sent
// as soon as there is a connection. An entry that is not held is left alone.
func (c *Client) Renew(id string, deadline time.Duration) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.mu.held[id]; h != nil && h.Deadline != deadline {
		h.Deadline, h.moved = deadline, true
		poke(c.wake)
	}
}

// Remove makes the fence forget an entry, whose program has ended; it may be
// repeated. From the call on nothing is sent of it any more, also when the
// confirmation does not come before the end of ctx.
func (c *Client) Remove(ctx context.Context, id string) error {
	if c == nil {
		return nil
	}
	c.forget(id)
	if _, err := c.call(ctx, request{Op: opRemove, Entry: Entry{ID: id}}); err != nil {
		return fmt.Errorf("remove %s from the fence: %w", id, err)
	}
	return nil
}

// Kill has the fence kill an entry's processes at once; nil means that none is
// left. The end of ctx abandons the wait, not the killing.
func (c *Client) Kill(ctx context.Context, id string) error {
	err := ErrNone
	if c != nil {
		_, err = c.call(ctx, request{Op: opKill, Entry: Entry{ID: id}})
	}
	if err != nil {
		return fmt.Errorf("kill %s through the fence: %w", id, err)
	}
	return nil
}

// List gives what the fence holds, also from earlier agents.
func (c *Client) List(ctx context.Context) ([]Entry, error) {
	if c == nil {
		return nil, nil
	}
	a, err := c.call(ctx, request{Op: opList})
	if err != nil {
		return nil, fmt.Errorf("list what the fence holds: %w", err)
	}
	return a.Entries, nil
}

// Healthy is nil while the fence answers and can do its work, and else says why
// not, for people.
func (c *Client) Healthy() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.trouble != nil {
		return fmt.Errorf("the outer fence at %s: %w", c.path, c.mu.trouble)
	}
	return nil
}

// call sends a request and waits for its answer, through any number of
// connections: every request may be repeated.
func (c *Client) call(ctx context.Context, r request) (answer, error) {
	waiting := make(chan answer, 1)
	c.mu.Lock()
	if c.mu.left {
		c.mu.Unlock()
		return answer{}, errLeft
	}
	seq := c.queueLocked(r, waiting)
	c.mu.Unlock()
	select {
	case a := <-waiting:
		return a, a.err()
	case <-ctx.Done():
	}
	c.mu.Lock()
	delete(c.mu.calls, seq)
	trouble := c.mu.trouble
	c.mu.Unlock()
	if trouble != nil {
		return answer{}, fmt.Errorf("%w (%w)", ctx.Err(), trouble)
	}
	return answer{}, ctx.Err()
}

func (c *Client) queueLocked(r request, waiting chan answer) uint64 {
	c.mu.seq++
	r.Seq = c.mu.seq
	c.mu.calls[r.Seq] = &call{request: r, answer: waiting}
	poke(c.wake)
	return r.Seq
}

func (c *Client) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.mu.held, id)
}

// resume makes a new connection's fence hold what the last one's was to:
// unanswered requests are sent again, and every entry, as the fence may have
// started anew.
func (c *Client) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for seq, unanswered := range c.mu.calls {
		if unanswered.sent = false; unanswered.answer == nil {
			delete(c.mu.calls, seq)
		}
	}
	for _, h := range c.mu.held {
		if h.confirmed {
			c.addAgainLocked(h)
		}
	}
	poke(c.wake)
}

func (c *Client) addAgainLocked(h *held) {
	h.moved = false
	c.queueLocked(request{Op: opAdd, Entry: h.Entry}, nil)
}

// unsent takes what is to be sent, in the order it was asked for, and the
// deadlines that have moved.
func (c *Client) unsent() (requests []request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, waiting := range c.mu.calls {
		if !waiting.sent {
			waiting.sent = true
			requests = append(requests, waiting.request)
		}
	}
	slices.SortFunc(requests, func(a, b request) int { return cmp.Compare(a.Seq, b.Seq) })
	var moved []renewal
	for _, h := range c.mu.held {
		if h.confirmed && h.moved {
			h.moved = false
			moved = append(moved, renewal{h.ID, h.Deadline})
		}
	}
	for part := range slices.Chunk(moved, renewalsALine) {
		requests = append(requests, request{Op: opRenew, Renewals: part})
	}
	return requests
}

// take deals with one answer.
func (c *Client) take(a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.trouble = nil
	if a.Trouble != "" {
		c.mu.trouble = errors.New(a.Trouble)
	}
	for _, id := range a.Lost {
		if h := c.mu.held[id]; h != nil && h.confirmed {
			c.addAgainLocked(h)
		}
	}
	answered := c.mu.calls[a.Seq]
	if answered == nil {
		return
	}
	delete(c.mu.calls, a.Seq)
	if answered.answer != nil {
		answered.answer <- a
	} else if err := a.err(); err != nil {
		c.log.Warn("the fence does not take an attempt back", "id", answered.ID, "err", err)
		if h := c.mu.held[answered.ID]; errors.Is(err, ErrEnded) {
			delete(c.mu.held, answered.ID) // nothing is left to fence
		} else if h != nil {
			h.moved = true // the next renewal finds it lost, and it is added again
		}
	}
}

// lose notes why there is no connection.
func (c *Client) lose(err error) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first = c.mu.trouble == nil || c.mu.trouble.Error() != err.Error()
	c.mu.trouble = err
	return first
}

// leave fails what waits and whatever comes.
func (c *Client) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.left, c.mu.trouble = true, errLeft
	for seq, unanswered := range c.mu.calls {
		delete(c.mu.calls, seq)
		if unanswered.answer != nil {
			unanswered.answer <- answer{Error: errLeft.Error()}
		}
	}
}
