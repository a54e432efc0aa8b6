package control

import (
	"context"
	"fmt"
	"time"

	"ecs/control/place"
	"ecs/control/state"
	"ecs/internal/task"
)

// placeAtOnce bounds one Place command; state caps a command at 1,000 tasks.
const placeAtOnce = 500

// schedule places pending tasks while this node leads. It takes everything
// that waits, places it in one proposal and looks again: the next batch
// gathers while the last one commits, so there is no timer on a task's path.
func (s *Server) schedule(ctx context.Context) error {
	for {
		sn := s.store.Snapshot()
		pending, nodes := sn.WatchPending(), sn.WatchNodes()
		hints := s.sessions.Hints()
		chosen := time.Now()
		decisions := place.Place(sn, s.placeHints(sn, hints.Connected, hints.Images), placeAtOnce)
		if len(decisions) > 0 {
			if err := s.place(ctx, sn, decisions, chosen); err != nil {
				return err
			}
			continue
		}
		// A node that falls silent closes nothing, but then it also frees
		// nothing: the next heartbeat, loss or task wakes this.
		select {
		case <-pending:
		case <-nodes:
		case <-hints.Changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Server) place(ctx context.Context, sn *state.Snapshot, decisions []state.Decision, chosen time.Time) error {
	tokens := make([]task.Token, len(decisions))
	for i := range decisions {
		d := &decisions[i]
		tokens[i] = task.Token{Task: d.Task, Attempt: d.Attempt, Epoch: d.Epoch}
		if t := sn.Task(d.Task); t != nil {
			d.Queued = max(0, chosen.Sub(t.SubmittedAt))
		}
	}
	s.sessions.Chosen(tokens, chosen)
	out, err := s.replica.Propose(ctx, state.Place{Decisions: decisions})
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

// placeHints turns what sessions know into placement's terms: a node that is
// not connected to this leader is avoided, whatever gossip says.
func (s *Server) placeHints(sn *state.Snapshot, connected map[task.NodeID]bool, images map[task.NodeID]map[string]bool) place.Hints {
	avoid := make(map[task.NodeID]bool)
	for n := range sn.Nodes() {
		if !connected[n.ID] {
			avoid[n.ID] = true
		}
	}
	return place.Hints{Images: images, Avoid: avoid}
}
