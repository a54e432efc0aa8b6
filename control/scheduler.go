package control

import (
	"context"
	"fmt"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
)

// placeAtOnce bounds one Place command; state caps a command at 1,000 tasks.
const placeAtOnce = 500

// schedule places pending tasks while this node leads. It takes everything
// that waits, places it in one proposal and looks again: the next batch
// gathers while the last one commits, so there is no timer on a task's path.
func (s *Server) schedule(ctx context.Context) error {
	p := newPlacer(s)
	s.placing.Store(p)
	defer s.placing.Store(nil)
	for {
		sn := s.store.Snapshot()
		pending, nodes := sn.WatchPending(), sn.WatchNodes()
		var hints <-chan struct{}
		var free <-chan time.Time
		if sn.Counts().Pending == 0 {
			nodes = nil // nothing that nodes do matters then
		} else {
			chosen := time.Now()
			found := p.pending(placeAtOnce)
			if len(found.lost) > 0 {
				if err := s.command(ctx, state.Expire{Tasks: found.lost, Held: true}, "end what may have run before the recovery"); err != nil {
					return err
				}
			}
			if len(found.decisions) > 0 {
				if err := s.place(ctx, p, found.sn, found.decisions, chosen); err != nil {
					return err
				}
			}
			if len(found.lost)+len(found.decisions) > 0 {
				continue
			}
			hints = found.changed
			if !found.again.IsZero() {
				free = time.After(time.Until(found.again))
			}
		}
		// A node that falls silent closes nothing, but then it also frees
		// nothing: the next heartbeat, loss or task wakes this.
		select {
		case <-pending:
		case <-nodes:
		case <-hints:
		case <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Server) place(ctx context.Context, p *placer, sn *state.Snapshot, decisions []state.Decision, chosen time.Time) error {
	for i := range decisions {
		d := &decisions[i]
		if t := sn.Task(d.Task); t != nil {
			d.Queued = max(0, chosen.Sub(state.QueuedSince(t))) // not what its earlier attempts took
		}
	}
	tokens := tokensOf(decisions)
	s.sessions.Chosen(tokens, chosen)
	out, err := s.replica.Propose(ctx, state.Place{Decisions: decisions})
	p.settle(decisions, 0)
	if err != nil {
		return fmt.Errorf("place %d tasks: %w", len(decisions), err)
	}
	s.sessions.Committed(tokens, time.Now())
	if len(out.Placed) < len(decisions) {
		s.sessions.Dropped(refusedTokens(tokens, out.Placed))
	}
	s.cfg.Metrics.IncrCounter([]string{"scheduler", "placed"}, float32(len(out.Placed)))
	return nil
}

func refusedTokens(tokens []task.Token, placed []task.ID) []task.Token {
	accepted := make(map[task.ID]bool, len(placed))
	for _, id := range placed {
		accepted[id] = true
	}
	var refused []task.Token
	for _, tok := range tokens {
		if !accepted[tok.Task] {
			refused = append(refused, tok)
		}
	}
	return refused
}
