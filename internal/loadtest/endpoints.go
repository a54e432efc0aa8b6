package loadtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"ecs/proto/api"
)

const (
	// connectWithin is how long a connection may take to be made.
	connectWithin = 5 * time.Second
	// restFor is how long an endpoint that could not be reached is asked after all
	// others, so that not every request waits for it anew.
	restFor = 2 * time.Second
)

// Move counts the requests that were due at one endpoint and were asked of another.
type Move struct {
	From   string
	Faults []Fault // of that endpoint
}

// endpoint is one control node.
type endpoint struct {
	url string

	mu   sync.Mutex
	last error     // why others were asked in its place; nil: they never were
	rest time.Time // until when they are asked before it
}

// fail notes why others are asked. A 503 leaves a rest as it is: it may answer a
// request that was sent before the endpoint was out of reach.
func (e *endpoint) fail(err error, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last = err
	if statusOf(err) == 0 {
		e.rest = now.Add(restFor)
	}
}

func (e *endpoint) rests(now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return now.Before(e.rest)
}

func (e *endpoint) fault() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last
}

// reach asks the endpoint whose turn it is, and in its place the others where it is
// out of reach, breaks off or answers 503: each once and without a pause, for the
// next requests are due. api.Client also goes on where no answer came in time; a
// load must count that.
func (l *load) reach(ctx context.Context, turn int, k kind) (err error) {
	ctx, cancel := context.WithTimeout(ctx, answeredWithin)
	defer cancel()
	key := rand.Text() // the same task, wherever it is made
	due := l.ends[turn%len(l.ends)]
	for _, e := range l.order(turn, time.Now()) {
		if err = l.ask(ctx, e.url, k, key); elsewhere(err) {
			e.fail(err, time.Now())
			continue
		}
		if e != due {
			l.moved(due)
		}
		return err
	}
	if len(l.ends) > 1 {
		err = fmt.Errorf("none of %d endpoints could answer, the last: %w", len(l.ends), err)
	}
	return err
}

// order begins with the endpoint whose turn it is and ends with those that rest.
func (l *load) order(turn int, now time.Time) []*endpoint {
	var order, resting []*endpoint
	for i := range l.ends {
		e := l.ends[(turn+i)%len(l.ends)]
		if e.rests(now) {
			resting = append(resting, e)
		} else {
			order = append(order, e)
		}
	}
	return append(order, resting...)
}

func (l *load) moved(due *endpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moves[due] = add(l.moves[due], due.fault())
}

// elsewhere reports whether another endpoint may answer what one did not.
func elsewhere(err error) bool {
	if status := statusOf(err); err == nil || status != 0 {
		return status == http.StatusServiceUnavailable
	}
	var dial *net.OpError
	var late interface{ Timeout() bool }
	switch {
	case errors.Is(err, context.Canceled):
		return false
	case errors.As(err, &dial) && dial.Op == "dial":
		return true
	}
	return !errors.As(err, &late) || !late.Timeout() // what took that long has failed
}

// statusOf is the status of an answer that is not what it must be; 0: there was none.
func statusOf(err error) int {
	var p *api.Problem
	var o *odd
	switch {
	case errors.As(err, &p):
		return p.Status
	case errors.As(err, &o):
		return o.status
	}
	return 0
}
