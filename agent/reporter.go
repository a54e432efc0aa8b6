package agent

import (
	"sync"
	"time"

	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// resendAfter is how long a status may go unanswered on one session before it
// is said again.
const resendAfter = 5 * time.Second

// reporter keeps what the leader has not acknowledged: at most one status for
// each attempt, the newest. The session takes statuses out of it as fast as its
// stream accepts them, so nothing else is ever queued. Its methods are safe for
// concurrent use.
type reporter struct {
	ready chan struct{} // one slot: take may have something

	mu struct {
		sync.Mutex
		reports map[task.Token]*report
		queue   []*report // to be sent, oldest first; may hold superseded ones
	}
}

// report is one attempt's newest status.
type report struct {
	token     task.Token
	startedAt time.Time
	result    *task.Result // nil while the program runs
	bill      task.Bill
	endedAt   time.Time // when the last byte was in; Bill.Reported counts from it

	sent     bool
	sentAt   time.Time
	answered chan struct{} // closed when the leader has answered for the result
}

func newReporter() *reporter {
	r := &reporter{ready: make(chan struct{}, 1)}
	r.mu.reports = map[task.Token]*report{}
	return r
}

// running reports that an attempt's program runs since startedAt.
func (r *reporter) running(tok task.Token, startedAt time.Time) {
	r.put(&report{token: tok, startedAt: startedAt})
}

// finished reports an attempt's end, and closes the channel it gives once the
// leader has answered for it.
func (r *reporter) finished(tok task.Token, startedAt time.Time, res *task.Result, bill task.Bill, endedAt time.Time) <-chan struct{} {
	answered := make(chan struct{})
	r.put(&report{token: tok, startedAt: startedAt, result: res, bill: bill, endedAt: endedAt, answered: answered})
	return answered
}

func (r *reporter) put(rep *report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.mu.reports[rep.token]; old != nil && old.result != nil {
		return // an end is the last word
	}
	r.mu.reports[rep.token] = rep
	r.mu.queue = append(r.mu.queue, rep)
	poke(r.ready)
}

// take gives the oldest status that the present session has not sent, marked
// as sent, or nil.
func (r *reporter) take() *report {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.mu.queue) > 0 {
		rep := r.mu.queue[0]
		r.mu.queue = r.mu.queue[1:]
		if r.mu.reports[rep.token] == rep && !rep.sent {
			rep.sent, rep.sentAt = true, time.Now()
			return rep
		}
	}
	return nil
}

// wire gives the message for a status, with the time it took up to now.
func (rep *report) wire() *ecsv1.AttemptStatus {
	m := &ecsv1.AttemptStatus{Token: taskwire.FromToken(rep.token)}
	if !rep.startedAt.IsZero() {
		m.StartedAt = rep.startedAt.UnixNano()
	}
	if rep.result != nil {
		bill := rep.bill
		bill.Reported = max(0, time.Since(rep.endedAt))
		m.Result, m.Bill = taskwire.FromResult(rep.result), taskwire.FromBill(bill)
	}
	return m
}

// resend puts every status back into the queue that was sent so long ago and is
// still not acknowledged; with 0, as a new session begins, all of them.
func (r *reporter) resend(age time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rep := range r.mu.reports {
		if rep.sent && time.Since(rep.sentAt) >= age {
			rep.sent = false
			r.mu.queue = append(r.mu.queue, rep)
		}
	}
	if len(r.mu.queue) > 0 {
		poke(r.ready)
	}
}

// acknowledge drops what the leader has answered for: the end of an attempt if
// final, else only word that it runs.
func (r *reporter) acknowledge(tok task.Token, final bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := r.mu.reports[tok]
	if rep == nil || rep.result != nil && !final {
		return
	}
	delete(r.mu.reports, tok)
	if rep.answered != nil {
		close(rep.answered)
	}
}

// unacknowledged is how many ends of attempts the leader has not answered for.
func (r *reporter) unacknowledged() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, rep := range r.mu.reports {
		if rep.result != nil {
			n++
		}
	}
	return n
}
