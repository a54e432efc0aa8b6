package agent

import (
	"context"
	"time"

	"ecs/agent/journal"
	"ecs/internal/task"
)

// resume takes up the lease as an earlier process of this boot left it, before
// anything else happens. Deadlines go on as if there had been no other process.
func (l *lease) resume(left journal.Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !left.Of(l.boot) || left.Contact > l.now() || left.Length <= task.FenceAhead {
		return
	}
	l.mu.contact, l.mu.length, l.mu.epoch = left.Contact, left.Length, left.Epoch
	l.expireLocked()
}

// adopt puts an attempt under the lease that an earlier process held. It reports
// false when its deadline has passed.
func (l *lease) adopt(tok task.Token, length time.Duration, lapse context.CancelCauseFunc) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	length = max(length, l.mu.length)
	if l.mu.contact == 0 || l.now() >= l.deadlineLocked(length) {
		return false
	}
	l.mu.held[tok] = hold{length: length, lapse: lapse}
	poke(l.poke)
	return true
}

// end is when the attempt's lease ends as it stands; it has ended if the attempt
// is not held.
func (l *lease) end(tok task.Token) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked()
	h, held := l.mu.held[tok]
	if !held {
		return l.now()
	}
	return l.mu.contact + h.length
}

// bind has extend told of the end of the attempt's lease, as it is now and
// whenever it moves.
func (l *lease) bind(tok task.Token, extend func(end time.Duration)) {
	l.mu.Lock()
	h, held := l.mu.held[tok]
	if held {
		h.extend = extend
		l.mu.held[tok] = h
	}
	end := l.mu.contact + h.length
	l.mu.Unlock()
	if held {
		extend(end)
	}
}

// extendAll tells the containers when their leases end now. Nothing is told
// under the lock: a container may be asking for its deadline meanwhile.
func (l *lease) extendAll() {
	type move struct {
		extend func(time.Duration)
		end    time.Duration
	}
	l.mu.Lock()
	moves := make([]move, 0, len(l.mu.held))
	for _, h := range l.mu.held {
		if h.extend != nil {
			moves = append(moves, move{h.extend, l.mu.contact + h.length})
		}
	}
	if l.mu.epoch != 0 && !isClosed(l.mu.void) && !l.mu.parting {
		moves = append(moves, move{l.pool.Extend, l.mu.contact + l.mu.length})
	}
	l.mu.Unlock()
	for _, m := range moves {
		m.extend(m.end)
	}
}

// lapse ends the attempt's lease because its container says that it is over.
func (l *lease) lapse(tok task.Token) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h, held := l.mu.held[tok]; held {
		l.lapseLocked(tok, h)
	}
}

// part keeps a later process from resuming the epoch: this one gives it up.
func (l *lease) part() {
	l.mu.Lock()
	l.mu.parting = true
	l.mu.Unlock()
	l.save()
}

// save writes the lease down. What a Hello of a later process would not name
// may be forgotten only after that: else the epoch would be resumed, and the
// leader would have the attempt begun again.
func (l *lease) save() {
	l.saving.Lock()
	defer l.saving.Unlock()
	l.mu.Lock()
	l.expireLocked()
	left := journal.Lease{Boot: l.boot, Epoch: l.mu.epoch, Contact: l.mu.contact, Length: l.mu.length}
	if isClosed(l.mu.void) || l.mu.parting {
		left.Epoch = 0
	}
	l.mu.Unlock()
	if err := l.journal.SetLease(left); err != nil {
		l.log.Warn("a restart of the agent would end what runs", "err", err)
	}
}

// keep writes the lease down when it has moved, until ctx ends: at most once a
// heartbeat, apart from the session, which no slow disk may hold up.
func (l *lease) keep(ctx context.Context) {
	for {
		select {
		case <-l.unsaved:
			l.save()
		case <-ctx.Done():
			return
		}
	}
}
