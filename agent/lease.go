package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"ecs/agent/journal"
	"ecs/internal/task"
)

// What an attempt is abandoned for. An abandoned attempt is ended and never
// reported.
var (
	errLapsed    = errors.New("the attempt's lease lapsed")
	errForgotten = errors.New("the attempt is not this node's any more")
	errLeaving   = errors.New("the node is leaving")
)

// watchEvery is how often deadlines are looked at besides when they are due:
// package time's timers stand still while the machine sleeps, the lease's clock
// does not.
const watchEvery = 250 * time.Millisecond

// lease is what the leader has promised to this node: the registration's epoch,
// and for each attempt that it will not be placed anywhere else before its
// deadline. All its methods are safe for concurrent use.
//
// Whatever method is called, deadlines that have passed take effect first. So a
// process that wakes from a long pause ends what lapsed before anything else
// can renew it.
type lease struct {
	now     func() time.Duration
	poke    chan struct{} // one slot: a deadline was added or moved
	journal *journal.Journal
	log     *slog.Logger
	boot    string        // tells one boot of the machine from the next
	unsaved chan struct{} // one slot: the journal does not have it yet
	saving  sync.Mutex
	// pool lives under the registration; its methods don't block.
	pool interface {
		Extend(end time.Duration)
		Lapse()
	}

	mu struct {
		sync.Mutex
		// contact is when the last heartbeat that the leader answered was
		// sent. Deadlines are counted from it.
		contact time.Duration
		length  time.Duration // of the registration
		epoch   uint64        // 0: not registered
		held    map[task.Token]hold
		// void is closed when what the last Hello said, or was about to say,
		// is not true any more: the epoch has lapsed, or an attempt has.
		void chan struct{}
		// parting: the epoch is not to be resumed by a later process.
		parting bool
	}
}

// hold is one attempt under the lease.
type hold struct {
	length time.Duration
	// lapse is called, once and under the lock, when the deadline has passed
	// with the attempt still held, or the leader has it forgotten. It must not block nor call the lease.
	lapse context.CancelCauseFunc
	// extend tells the attempt's container of a later end, nil while there is
	// none. It must not block, and is not called under the lock.
	extend func(end time.Duration)
}

func newLease(now func() time.Duration) *lease {
	l := &lease{now: now, poke: make(chan struct{}, 1), unsaved: make(chan struct{}, 1)}
	l.mu.held = map[task.Token]hold{}
	l.mu.length = task.DefaultLease
	l.mu.void = make(chan struct{})
	l.pool = noPool{}
	return l
}

// noPool takes the place of one.
type noPool struct{}

func (noPool) Extend(time.Duration) {}
func (noPool) Lapse()               {}

// begin is called before a Hello is put together. It gives the epoch to resume,
// or 0 to register anew, and a channel that is closed when the Hello, or the
// session that came of it, must be given up.
func (l *lease) begin() (epoch uint64, void <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked()
	if isClosed(l.mu.void) {
		l.mu.epoch = 0
		l.mu.void = make(chan struct{})
	}
	return l.mu.epoch, l.mu.void
}

// welcome takes up the epoch the leader granted to the Hello that was sent at
// sent. It reports false when that Hello is void by now, or when the epoch is
// not the one that was to be resumed.
//
// A registration was committed, so it counts as contact. A resumption did not
// need that; contact waits for the first heartbeat. What the record does not wait for
// (forget) is abandoned before that: it may be placed elsewhere when its old lease is
// over.
func (l *lease) welcome(void <-chan struct{}, epoch uint64, sent, length time.Duration, forget ...task.Token) bool {
	defer l.extendAll()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked()
	if isClosed(void) || epoch == 0 || l.mu.epoch != 0 && l.mu.epoch != epoch {
		return false
	}
	for _, tok := range forget {
		if h, ok := l.mu.held[tok]; ok {
			delete(l.mu.held, tok)
			h.lapse(errForgotten)
		}
	}
	if l.mu.epoch == 0 {
		l.mu.epoch = epoch
		l.mu.contact = max(l.mu.contact, sent)
	}
	if length <= task.FenceAhead {
		length = task.DefaultLease
	}
	l.mu.length = length
	poke(l.poke)
	return true
}

// renew counts contact from sent, when a heartbeat left that was answered now.
// It reports false when the answer came too late.
func (l *lease) renew(epoch uint64, sent time.Duration) bool {
	defer l.extendAll()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked()
	if isClosed(l.mu.void) || l.mu.epoch != epoch {
		return false
	}
	l.mu.contact = max(l.mu.contact, sent)
	poke(l.unsaved)
	return true
}

// revoke ends the epoch because the leader says that it is over. What has no
// longer lease than the registration lapses with it.
func (l *lease) revoke() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked()
	for tok, h := range l.mu.held {
		if h.length <= l.mu.length {
			l.lapseLocked(tok, h)
		}
	}
	l.voidLocked()
}

// hold puts an attempt under the lease. It reports false when the attempt does
// not belong to the present epoch: it must not be begun.
func (l *lease) hold(tok task.Token, length time.Duration, lapse context.CancelCauseFunc) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked()
	if l.mu.epoch == 0 || tok.Epoch != l.mu.epoch || isClosed(l.mu.void) {
		return false
	}
	l.mu.held[tok] = hold{length: max(length, l.mu.length), lapse: lapse}
	poke(l.poke)
	return true
}

// holds reports whether the attempt may go on. It is asked before every call
// to the engine that would let the program begin or live.
func (l *lease) holds(tok task.Token) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked()
	_, ok := l.mu.held[tok]
	return ok
}

// release takes an attempt whose program has ended from under the lease. It
// reports false when the lease lapsed before, so that its end must not be told.
func (l *lease) release(tok task.Token) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked()
	_, ok := l.mu.held[tok]
	delete(l.mu.held, tok)
	return ok
}

// state gives the epoch and the age of the last contact, for people.
func (l *lease) state() (epoch uint64, age time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.contact == 0 {
		return l.mu.epoch, 0 // there was none yet
	}
	return l.mu.epoch, l.now() - l.mu.contact
}

// watch makes deadlines take effect when nobody asks, until ctx ends.
func (l *lease) watch(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if left, any := l.next(); any {
			timer.Reset(min(left, watchEvery))
		} else {
			timer.Stop()
		}
		select {
		case <-timer.C:
		case <-l.poke:
		case <-ctx.Done():
			return
		}
	}
}

// next makes deadlines take effect and says how long it is until the next one.
func (l *lease) next() (left time.Duration, any bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked()
	now := l.now()
	for _, h := range l.mu.held {
		due := l.deadlineLocked(h.length) - now
		if !any || due < left {
			left, any = due, true
		}
	}
	return left, any
}

func (l *lease) deadlineLocked(length time.Duration) time.Duration {
	return l.mu.contact + length - task.FenceAhead
}

func (l *lease) expireLocked() {
	now := l.now()
	for tok, h := range l.mu.held {
		if now >= l.deadlineLocked(h.length) {
			l.lapseLocked(tok, h)
		}
	}
	if l.mu.epoch != 0 && now >= l.deadlineLocked(l.mu.length) {
		l.voidLocked()
	}
}

// lapseLocked abandons an attempt and what a Hello said of it in one step, so
// that no Hello can name it in between.
func (l *lease) lapseLocked(tok task.Token, h hold) {
	delete(l.mu.held, tok)
	h.lapse(errLapsed)
	l.voidLocked()
}

func (l *lease) voidLocked() {
	if !isClosed(l.mu.void) {
		close(l.mu.void)
		l.pool.Lapse()
		poke(l.unsaved)
	}
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
