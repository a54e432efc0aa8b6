package api

import (
	"container/list"
	"context"
	"errors"
	"runtime"
	"sync"
	"time"
)

const (
	// maxWaiting bounds the secrets that wait to be checked.
	maxWaiting = 2048
	// guiltyWait is how long those wait that were wrong of late. A client that is gone is
	// not noticed before its body has been read: what a flood left would keep its place.
	guiltyWait = 10 * time.Second
	// calmAfter is how long no secret may have been wrong for checks to take no rest.
	calmAfter = 10 * time.Second
)

// errFull says that too many secrets wait to be checked.
var errFull = errors.New("too many secrets wait to be checked")

// queue says whose secret is checked next. Addresses take turns, so that one that
// sends many waits for itself, and those that were wrong of late come after all
// others. While nobody guesses it lets all cores but one check, without a rest: a node
// that has just started has every key to check once. From the first wrong secret on it
// is one at a time, and that one rests as long as it works; see hashSlice.
type queue struct {
	most   int                    // at once, while it is calm
	guilty func(from string) bool // wrong of late

	mu      sync.Mutex
	busy    int
	waiting int
	lanes   [2]lane // the guilty ones' is the second
	wrongAt time.Time
}

// lane is of addresses that take turns.
type lane struct {
	turns list.List // of *party, the next one first; none is empty
	by    map[string]*list.Element
}

// party is what waits of one address.
type party struct {
	from    string
	waiting []*waiter // the first is next
}

type waiter struct {
	key     string
	since   time.Time
	verdict chan verdict // one slot
}

type verdict int

const (
	turn  verdict = iota // leave is to be called
	again                // another request's secret of the same key was right
	full                 // another needs the place more, or guiltyWait is over
)

func newQueue(guilty func(from string) bool) *queue {
	q := &queue{most: max(1, runtime.GOMAXPROCS(0)-1), guilty: guilty}
	for i := range q.lanes {
		q.lanes[i].by = make(map[string]*list.Element)
	}
	return q
}

// enter waits for a turn. errFull: there are too many; else ctx ended first.
func (q *queue) enter(ctx context.Context, from, key string) (verdict, error) {
	w := &waiter{key: key, since: time.Now(), verdict: make(chan verdict, 1)}
	if err := q.join(w, from); err != nil {
		return 0, err
	}
	select {
	case v := <-w.verdict:
		if v == full {
			return 0, errFull
		}
		return v, nil
	case <-ctx.Done():
		q.abandon(w, from)
		return 0, ctx.Err()
	}
}

func (q *queue) join(w *waiter, from string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	guilty := q.guilty(from)
	if q.waiting >= maxWaiting && (guilty || !q.evict(from)) {
		return errFull
	}
	l := &q.lanes[0]
	if guilty {
		l = &q.lanes[1]
	}
	l.add(from, w)
	q.waiting++
	q.grant()
	return nil
}

// leave ends a turn.
func (q *queue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy--
	q.grant()
}

// wrong notes that a secret was wrong.
func (q *queue) wrong() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wrongAt = time.Now()
}

// right has all that wait with a key look again: its secret is known now.
func (q *queue) right(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.lanes {
		for _, w := range q.lanes[i].of(key) {
			q.waiting--
			w.verdict <- again
		}
	}
}

// rest is what a check does after so much work.
func (q *queue) rest(worked time.Duration) {
	q.mu.Lock()
	calm := q.calm()
	q.mu.Unlock()
	if calm {
		runtime.Gosched()
		return
	}
	time.Sleep(min(worked, restMost))
}

func (q *queue) calm() bool { return time.Since(q.wrongAt) >= calmAfter }

// grant gives turns to the next ones; q.mu is held, as below.
func (q *queue) grant() {
	for q.busy == 0 || q.busy < q.most && q.calm() {
		w := q.next()
		if w == nil {
			return
		}
		q.busy++
		q.waiting--
		w.verdict <- turn
	}
}

// next takes the one whose turn it is, if any waits.
func (q *queue) next() *waiter {
	innocent, guilty := &q.lanes[0], &q.lanes[1]
	for e := innocent.turns.Front(); e != nil; e = innocent.turns.Front() {
		p := e.Value.(*party)
		if !q.guilty(p.from) {
			return innocent.take(e)
		}
		innocent.remove(e) // since it came
		for _, w := range p.waiting {
			guilty.add(p.from, w)
		}
	}
	for e := guilty.turns.Front(); e != nil; e = guilty.turns.Front() {
		w := guilty.take(e)
		if time.Since(w.since) < guiltyWait {
			return w
		}
		q.waiting--
		w.verdict <- full
	}
	return nil
}

// evict sends one away for the sake of an address: the last of the guilty ones, or else
// of whoever has most that wait, if that is more than the address has with this one.
func (q *queue) evict(from string) bool {
	l := &q.lanes[1]
	e := l.turns.Back()
	if e == nil {
		l = &q.lanes[0]
		most := 1
		if own := l.by[from]; own != nil {
			most += len(own.Value.(*party).waiting)
		}
		for other := l.turns.Front(); other != nil; other = other.Next() {
			if n := len(other.Value.(*party).waiting); n > most {
				e, most = other, n
			}
		}
	}
	if e == nil {
		return false
	}
	p := e.Value.(*party)
	l.drop(p.from, p.waiting[len(p.waiting)-1]).verdict <- full
	q.waiting--
	return true
}

// abandon takes one out that waits no more.
func (q *queue) abandon(w *waiter, from string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.lanes {
		if q.lanes[i].drop(from, w) != nil {
			q.waiting--
			return
		}
	}
	if v := <-w.verdict; v == turn { // it came in that moment
		q.busy--
		q.grant()
	}
}

func (l *lane) add(from string, w *waiter) {
	e := l.by[from]
	if e == nil {
		e = l.turns.PushBack(&party{from: from})
		l.by[from] = e
	}
	p := e.Value.(*party)
	p.waiting = append(p.waiting, w)
}

// take takes the first of a party, which then comes behind the others.
func (l *lane) take(e *list.Element) *waiter {
	p := e.Value.(*party)
	w := p.waiting[0]
	p.waiting = p.waiting[1:]
	if len(p.waiting) == 0 {
		l.remove(e)
	} else {
		l.turns.MoveToBack(e)
	}
	return w
}

// drop takes one out; nil: it is not there.
func (l *lane) drop(from string, w *waiter) *waiter {
	e := l.by[from]
	if e == nil {
		return nil
	}
	p := e.Value.(*party)
	for i := range p.waiting {
		if p.waiting[i] == w {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			if len(p.waiting) == 0 {
				l.remove(e)
			}
			return w
		}
	}
	return nil
}

// of takes all out that wait with a key.
func (l *lane) of(key string) (all []*waiter) {
	for e := l.turns.Front(); e != nil; {
		p, next := e.Value.(*party), e.Next()
		var rest []*waiter
		for _, w := range p.waiting {
			if w.key == key {
				all = append(all, w)
			} else {
				rest = append(rest, w)
			}
		}
		if p.waiting = rest; len(rest) == 0 {
			l.remove(e)
		}
		e = next
	}
	return all
}

func (l *lane) remove(e *list.Element) {
	delete(l.by, e.Value.(*party).from)
	l.turns.Remove(e)
}
