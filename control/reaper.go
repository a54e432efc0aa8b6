package control

import (
	"context"
	"fmt"
	"slices"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
)

const (
	// reapAtMost bounds the tasks of one command.
	reapAtMost = 500
	// lookAgain paces looks at tasks that change all the time: a deadline
	// that is nearer than any before is met at most this much late.
	lookAgain = 250 * time.Millisecond
	// lookLatest bounds the wait when nothing has a deadline.
	lookLatest = 10 * time.Second

	maxFinished      = 100_000
	maxFinishedBytes = 1 << 30
)

// reap ends tasks whose queue or total clock ran out, puts those whose backoff is
// over back into the queue and forgets finished ones that are old or too many,
// while this node leads.
func (s *Server) reap(ctx context.Context) error {
	inherited := backingOff(s.store.Snapshot(), time.Now())
	for {
		sn := s.store.Snapshot()
		changed := sn.Watch()
		next, err := s.due(ctx, sn, time.Now())
		if err != nil {
			return err
		}
		left, rest, err := s.waited(ctx, sn, inherited)
		if err != nil {
			return err
		}
		next, inherited = min(next, left), rest
		if err := s.bound(ctx, sn); err != nil {
			return err
		}
		deadline := time.NewTimer(next)
		select {
		case <-deadline.C:
		case <-changed:
			look := time.NewTimer(lookAgain)
			select {
			case <-look.C:
			case <-ctx.Done():
			}
			look.Stop()
		case <-ctx.Done():
		}
		deadline.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// due acts on every task whose deadline has passed and says when to look again.
func (s *Server) due(ctx context.Context, sn *state.Snapshot, now time.Time) (time.Duration, error) {
	next := lookLatest
	var expired, held, late, old, again []task.ID
	for at, t := range sn.Deadlines() {
		if left := at.Sub(now); left > 0 {
			next = min(next, left)
			break
		}
		if len(expired)+len(held)+len(late)+len(old)+len(again) == reapAtMost {
			next = 0 // the rest at once, in the next round
			break
		}
		total := t.Spec.Timeouts.Total
		switch {
		case t.State == task.Finished:
			old = append(old, t.ID)
		case total > 0 && !now.Before(t.SubmittedAt.Add(total)):
			late = append(late, t.ID)
		case t.BackingOff:
			if room(sn, len(again)) {
				again = append(again, t.ID)
			}
		case t.State == task.Pending && s.holds(sn, t):
			held = append(held, t.ID)
		case t.State == task.Pending:
			expired = append(expired, t.ID)
		}
	}
	if len(held) > 0 {
		if err := s.command(ctx, state.Expire{Tasks: held, Held: true}, "expire tasks that are held back"); err != nil {
			return 0, err
		}
	}
	if len(expired) > 0 {
		if err := s.command(ctx, state.Expire{Tasks: expired}, "expire waiting tasks"); err != nil {
			return 0, err
		}
	}
	if len(again) > 0 {
		if err := s.command(ctx, state.Resume{Tasks: again}, "run again what has backed off"); err != nil {
			return 0, err
		}
	}
	if len(old) > 0 {
		if err := s.command(ctx, state.Forget{Tasks: old}, "forget finished tasks"); err != nil {
			return 0, err
		}
	}
	for _, id := range late {
		if err := s.command(ctx, state.Stop{Task: id, Outcome: task.DeadlineExceeded}, "end a task at its deadline"); err != nil {
			return 0, err
		}
	}
	return next, nil
}

// holds reports whether a task that waits is held back after a recovery.
func (s *Server) holds(sn *state.Snapshot, t *task.Task) bool {
	if p := s.placing.Load(); p != nil {
		return p.holds(sn, t)
	}
	return sn.Uncertain(t) // the scheduler has not begun yet
}

// pause is a backoff that an earlier leader began, as this one sees it.
type pause struct {
	state.Waited
	over time.Time // by the monotonic clock
}

// backingOff lists the tasks that back off as a leader begins, by the end of their
// pauses. When they may go on is in the record by the clock of the leader that was,
// which may be far ahead; their pause is not. So each waits for no longer than that,
// from now. What backs off later does so by this leader's own clock.
func backingOff(sn *state.Snapshot, now time.Time) (pauses []pause) {
	if sn.Counts().BackingOff == 0 {
		return nil
	}
	for _, t := range sn.Deadlines() {
		if t.BackingOff {
			n := len(t.Attempts)
			last := &t.Attempts[n-1]
			pauses = append(pauses, pause{state.Waited{Task: t.ID, Attempt: n}, now.Add(max(0, last.RetryAt.Sub(last.EndedAt)))})
		}
	}
	slices.SortFunc(pauses, func(a, b pause) int { return a.over.Compare(b.over) })
	return pauses
}

// waited ends the pauses that are over and says when to look again, and at which.
// Most have ended by the record's time before.
func (s *Server) waited(ctx context.Context, sn *state.Snapshot, pauses []pause) (time.Duration, []pause, error) {
	over, rest := elapsed(sn, pauses, time.Now())
	if len(over) > 0 {
		if err := s.command(ctx, state.Resume{Waited: over}, "run again what has waited"); err != nil {
			return 0, nil, err
		}
	}
	if len(rest) == 0 {
		return lookLatest, nil, nil
	}
	return max(lookAgain, time.Until(rest[0].over)), rest, nil
}

// elapsed gives the tasks whose pauses are over and which still back off, as many as
// the queue has room for and a command may carry, and the pauses that remain.
func elapsed(sn *state.Snapshot, pauses []pause, now time.Time) (over []state.Waited, rest []pause) {
	for i, p := range pauses {
		if p.over.After(now) || len(over) == reapAtMost || !room(sn, len(over)) {
			return over, pauses[i:]
		}
		t := sn.Task(p.Task)
		if t != nil && t.BackingOff && len(t.Attempts) == p.Attempt {
			over = append(over, p.Waited)
		}
	}
	return over, nil
}

// room reports whether the queue has room for another task after so many. Whoever
// backs off waits on where it has none.
func room(sn *state.Snapshot, more int) bool {
	counts := sn.Counts()
	return counts.Pending+more < state.DefaultMaxPending && counts.PendingBytes < state.DefaultMaxPendingBytes
}

// bound forgets the oldest finished records beyond what may be kept.
func (s *Server) bound(ctx context.Context, sn *state.Snapshot) error {
	counts := sn.Counts()
	var old []task.ID
	for t := range sn.Ended() {
		if counts.Finished <= maxFinished && counts.FinishedBytes <= maxFinishedBytes || len(old) == reapAtMost {
			break
		}
		old = append(old, t.ID)
		counts.Finished--
		counts.FinishedBytes -= state.Size(t)
	}
	if len(old) == 0 {
		return nil
	}
	return s.command(ctx, state.Forget{Tasks: old}, "forget the oldest finished tasks")
}

func (s *Server) command(ctx context.Context, c state.Command, what string) error {
	if _, err := s.replica.Propose(ctx, c); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
