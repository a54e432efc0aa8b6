package agent

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/armon/go-metrics"

	"ecs/internal/task"
)

// errStopped: the supervisor's run has returned.
var errStopped = errors.New("the supervisor has stopped")

// supervisor owns the attempts of this node: it starts a runner for each and
// waits for all of them. Everything it knows belongs to the goroutine of run;
// its methods hand that goroutine something to do and wait until it is done.
type supervisor struct {
	*kit
	calls   chan func()
	stopped chan struct{}
	claims  *claims
	sweep   chan<- struct{}

	base    context.Context
	members map[task.Token]*member
	recent  recent
	live    int // runners whose goroutine has not ended
	leaving bool
	waiters []*waiter
	runners sync.WaitGroup

	// Counts for Status.
	running, removals atomic.Int64
}

// member is one attempt that this node answers for.
type member struct {
	*runner
	ended    bool // nothing of it runs
	reported bool // ended with a result, which the reporter has
	acked    bool // the leader has answered for the result
	done     bool // the container is removed, or left to the sweeper
	spooled  bool // ended with output that only the spool has
}

// waiter is somebody who waits for a condition on the members.
type waiter struct {
	holds func() bool
	done  chan struct{}
}

func newSupervisor(k *kit, sweep chan<- struct{}) *supervisor {
	return &supervisor{kit: k, calls: make(chan func()), stopped: make(chan struct{}),
		claims: newClaims(), sweep: sweep, members: map[task.Token]*member{}, recent: newRecent()}
}

// run serves until ctx ends and every runner after that. Runners live under
// ctx: when it ends, what they have not ended or removed by then stays.
func (s *supervisor) run(ctx context.Context) {
	defer close(s.stopped)
	s.base = ctx
	for {
		select {
		case call := <-s.calls:
			call()
			s.review()
		case <-ctx.Done():
			s.leaving = true
			for s.live > 0 {
				(<-s.calls)()
			}
			s.runners.Wait()
			return
		}
	}
}

// do runs f on the supervisor's goroutine.
func (s *supervisor) do(f func()) error {
	done := make(chan struct{})
	select {
	case s.calls <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-s.stopped:
		return errStopped
	}
}

// review lets those go whose condition holds by now, and counts.
func (s *supervisor) review() {
	running, removing := 0, 0
	for _, m := range s.members {
		switch {
		case !m.ended:
			running++
		case !m.done:
			removing++
		}
	}
	s.running.Store(int64(running))
	s.removals.Store(int64(removing))
	gauge(s.metrics, metricRunning, running)
	gauge(s.metrics, metricRemoving, removing)
	waiting := s.waiters[:0]
	for _, w := range s.waiters {
		if w.holds() {
			close(w.done)
		} else {
			waiting = append(waiting, w)
		}
	}
	clear(s.waiters[len(waiting):])
	s.waiters = waiting
}

// await blocks until holds does, which is asked on the supervisor's goroutine
// after everything that happens.
func (s *supervisor) await(ctx context.Context, holds func() bool) error {
	w := &waiter{holds: holds, done: make(chan struct{})}
	if err := s.do(func() { s.waiters = append(s.waiters, w) }); err != nil {
		return err
	}
	select {
	case <-w.done:
		return nil
	case <-s.stopped:
		return errStopped
	case <-ctx.Done():
		_ = s.do(func() { w.holds = func() bool { return true } }) // drops it
		return ctx.Err()
	}
}

// assign begins an attempt, unless it is known, the node is leaving, or the
// attempt does not belong to the present epoch.
func (s *supervisor) assign(o order) error {
	return s.do(func() {
		if s.leaving || s.members[o.token] != nil || s.recent.has(o.token) {
			return
		}
		r := newRunner(s.kit, s.base, o)
		if !s.lease.hold(o.token, o.spec.Lease, r.abandon) {
			r.abandon(nil)
			r.log.Warn("assignment of another epoch ignored", "epoch", o.token.Epoch)
			return
		}
		r.log.Info("attempt begins", "image", o.spec.Image)
		s.launch(&member{runner: r})
	})
}

// launch lets a runner go, whose attempt is under the lease.
func (s *supervisor) launch(m *member) {
	s.members[m.token] = m
	s.claims.add(m.token)
	s.live++
	s.runners.Go(func() {
		m.run(func(result *task.Result) { _ = s.do(func() { s.ended(m, result) }) })
		_ = s.do(func() { s.done(m) })
	})
}

func (s *supervisor) ended(m *member, result *task.Result) {
	m.ended, m.reported = true, result != nil
	// A record that lets the program run again does not hold this attempt's output:
	// whoever follows it finds it here.
	again := m.reported && m.spec.ProgramRetries > 0 && m.spec.ProgramFailed(result)
	m.spooled = m.reported && (again || !m.entry.InHead())
	outcome := "abandoned"
	if result != nil {
		outcome = string(result.Outcome)
	} else {
		s.reporter.acknowledge(m.token, true) // word that it runs, if any
	}
	if errors.Is(context.Cause(m.life), errLapsed) {
		count(s.metrics, metricLapsed, 1)
	}
	s.metrics.IncrCounterWithLabels([]string{"agent", metricEnded}, 1, []metrics.Label{{Name: "outcome", Value: outcome}})
}

func (s *supervisor) done(m *member) {
	m.done = true
	s.live--
	s.claims.drop(m.token)
	if m.litter {
		poke(s.sweep)
	}
	s.settleUp(m)
}

// settleUp forgets a member that there is nothing left to do for.
func (s *supervisor) settleUp(m *member) {
	if m.reported && m.acked {
		s.journal.Remove(m.token)
		if !m.spooled {
			s.spool.Release(m.token)
		}
	}
	if m.done && (m.acked || !m.reported) {
		delete(s.members, m.token)
		s.recent.add(m.token)
	}
}

// stop makes an attempt end as the leader asks.
func (s *supervisor) stop(tok task.Token, why *stopped) error {
	return s.do(func() {
		if m := s.members[tok]; m != nil {
			m.stop(why)
		}
	})
}

// answered takes the leader's answer to a status: final when it was an
// attempt's end, stale when the record does not wait for the attempt.
func (s *supervisor) answered(tok task.Token, final, stale bool) error {
	return s.do(func() {
		s.reporter.acknowledge(tok, final || stale)
		m := s.members[tok]
		switch {
		case m == nil:
		case m.reported && (final || stale):
			m.acked = true
			s.settleUp(m)
		case stale:
			m.abandon(errForgotten)
		}
	})
}

// forget ends attempts that the record does not wait for.
func (s *supervisor) forget(tokens []task.Token) error {
	for _, tok := range tokens {
		if err := s.answered(tok, false, true); err != nil {
			return err
		}
	}
	return nil
}

// settle names the attempts that this node has: those that run, and those
// whose result the leader has not acknowledged. With sure it waits first until
// everything that was abandoned has really ended.
func (s *supervisor) settle(ctx context.Context, sure bool) (running []task.Token, err error) {
	err = s.await(ctx, func() bool {
		running = running[:0]
		for tok, m := range s.members {
			switch abandoned := !m.ended && m.life.Err() != nil; {
			case abandoned && sure:
				return false
			case !m.ended && !abandoned, m.reported && !m.acked:
				running = append(running, tok)
			}
		}
		return true
	})
	return running, err
}

// leave makes the node take nothing new.
func (s *supervisor) leave() error { return s.do(func() { s.leaving = true }) }

// partAll ends everything that is not over; see runner.part.
func (s *supervisor) partAll(why error) error {
	return s.do(func() {
		for _, m := range s.members {
			if !m.ended {
				m.part(why)
			}
		}
	})
}

// every waits until cond holds for every member.
func (s *supervisor) every(ctx context.Context, cond func(*member) bool) error {
	return s.await(ctx, func() bool {
		for _, m := range s.members {
			if !cond(m) {
				return false
			}
		}
		return true
	})
}

func hasEnded(m *member) bool   { return m.ended }
func isSettled(m *member) bool  { return m.ended && (m.acked || !m.reported) }
func isFinished(m *member) bool { return m.done }
