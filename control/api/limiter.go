package api

import (
	"container/list"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"ecs/internal/newcomers"
)

// bound is one limit. Zero rate or atOnce: none.
type bound struct {
	rate   float64 // a second
	burst  int     // at once, after a pause
	atOnce int     // in progress at the same time
}

// Excess says that a limit is reached.
type Excess struct {
	Limit      string // its name
	RetryAfter time.Duration
}

// Error names the limit.
func (e *Excess) Error() string { return "the limit " + e.Limit + " is reached" }

// limiter keeps bounds for many, each by name. It remembers at most so many of
// them and forgets who was not seen for longest, whose bounds begin anew then;
// those with something in progress are never forgotten.
type limiter struct {
	most  int
	mu    sync.Mutex
	known map[string]*list.Element
	order *list.List // of *usage, last seen first
}

// usage is what one of them takes.
type usage struct {
	who    string
	tokens *rate.Limiter // nil until a rate is asked about
	atOnce int
	blamed time.Time // see blame
}

func newLimiter(most int) *limiter {
	return &limiter{most: most, known: make(map[string]*list.Element), order: list.New()}
}

// of finds or makes the usage; l.mu is held.
func (l *limiter) of(who string) *usage {
	if e := l.known[who]; e != nil {
		l.order.MoveToFront(e)
		return e.Value.(*usage)
	}
	l.makeRoom()
	u := &usage{who: who}
	l.known[who] = l.order.PushFront(u)
	return u
}

// lookBack bounds how many are looked at to find one that may be forgotten.
const lookBack = 16

// makeRoom forgets who was not seen for longest. Those with something in progress
// come to the front instead, so that they are not looked at every time.
func (l *limiter) makeRoom() {
	for range lookBack {
		last := l.order.Back()
		if last == nil || len(l.known) < l.most {
			return
		}
		u := last.Value.(*usage)
		if u.atOnce > 0 {
			l.order.MoveToFront(last)
			continue
		}
		l.order.Remove(last)
		delete(l.known, u.who)
	}
}

// paced gives the bucket with the bound's present size.
func (u *usage) paced(b bound, now time.Time) *rate.Limiter {
	if u.tokens == nil {
		u.tokens = rate.NewLimiter(rate.Limit(b.rate), b.burst)
	} else if u.tokens.Burst() != b.burst || u.tokens.Limit() != rate.Limit(b.rate) {
		u.tokens.SetLimitAt(now, rate.Limit(b.rate))
		u.tokens.SetBurstAt(now, b.burst)
	}
	return u.tokens
}

// wait is how long until there is a whole token.
func (u *usage) wait(b bound, now time.Time) time.Duration {
	missing := 1 - u.paced(b, now).TokensAt(now)
	if missing <= 0 {
		return 0
	}
	return time.Duration(missing / b.rate * float64(time.Second))
}

// take begins something. What it gives ends it, and is to be called once. names
// are those of the limits, as an Excess tells them.
func (l *limiter) take(who string, b bound, names [2]string, now time.Time) (end func(), err error) {
	if b.rate <= 0 && b.atOnce <= 0 {
		return func() {}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.of(who)
	if b.atOnce > 0 && u.atOnce >= b.atOnce {
		return nil, &Excess{Limit: names[1], RetryAfter: time.Second}
	}
	if b.rate > 0 {
		if wait := u.wait(b, now); wait > 0 {
			return nil, &Excess{Limit: names[0], RetryAfter: wait}
		}
		u.tokens.AllowN(now, 1)
	}
	if b.atOnce <= 0 {
		return func() {}, nil
	}
	u.atOnce++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		u.atOnce--
	}, nil
}

// spare refuses who has spent all.
func (l *limiter) spare(who string, b bound, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known[who] == nil {
		return nil
	}
	if wait := l.of(who).wait(b, now); wait > 0 {
		return &Excess{Limit: limitGuesses, RetryAfter: wait}
	}
	return nil
}

// blame notes that who was wrong. It lasts for longer than the token that it costs:
// strangers from many addresses are each wrong seldom.
func (l *limiter) blame(who string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(who).blamed = now
}

// forgive forgets that who was wrong.
func (l *limiter) forgive(who string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.known[who]; e != nil {
		e.Value.(*usage).blamed = time.Time{}
	}
}

// blamedOf reports whether who was wrong after a time and has not been forgiven.
func (l *limiter) blamedOf(who string, after time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.known[who]
	return e != nil && e.Value.(*usage).blamed.After(after)
}

// spend takes a token, if there is one.
func (l *limiter) spend(who string, b bound, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(who).paced(b, now).AllowN(now, 1)
}

// refund gives a token back that was spent. A bucket never holds more than its
// burst.
func (l *limiter) refund(who string, b bound, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(who).paced(b, now).AllowN(now, -1)
}

// addressOf is whom a request's limits count for.
func addressOf(r *http.Request) string { return newcomers.Network(r.RemoteAddr) }
