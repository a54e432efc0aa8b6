package dispatch

import (
	"bytes"
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"ecs/control/state"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// An agent may say that it has taken an output when nobody waits for that any more:
// the order was another leader's, or of a session with the agent that leaves which
// has ended, or another agent was quicker. Such a copy counts where the record needs
// it, and is dropped else.

// own has answers about a parcel's output come to this handover. Another's of the
// same agent is about to end.
func (h *handover) own(p *parcel) {
	h.open[p.token] = p
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.handing[p.token] = h
}

// release ends that, and the orders that are under way.
func (h *handover) release(p *parcel) {
	delete(h.open, p.token)
	for node := range p.asked {
		if o := h.orders[taking{node, p.token}]; o != nil {
			h.end(o)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.disownLocked(p.token)
}

// disown is release for all that is left when the handover ends.
func (h *handover) disown() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for tok := range h.open {
		h.disownLocked(tok)
	}
}

func (h *handover) disownLocked(tok task.Token) {
	if h.mu.handing[tok] == h {
		delete(h.mu.handing, tok)
	}
}

// took passes an answer on to the handover that it is about.
func (s *session) took(ctx context.Context, g *errgroup.Group, m *ecsv1.Taken) {
	tok := taskwire.ToToken(m.GetToken())
	if m.GetProblem() == "" && !s.ordered(tok, m.GetProof()) {
		s.callOff(s.node, tok)
		return
	}
	s.mu.Lock()
	h := s.mu.handing[tok]
	if h != nil {
		h.mail[taking{s.node, tok}] = m
	}
	s.mu.Unlock()
	switch {
	case h != nil:
		poke(h.mailed)
	case m.GetProblem() == "":
		g.Go(func() error { return s.stray(ctx, tok) })
	}
}

// ordered reports whether an agent that says that it has taken an output was ordered
// to: it knows what only the order says. Else any agent could have any output for its
// own, and the real copies dropped.
func (s *session) ordered(tok task.Token, proof []byte) bool {
	t := s.cfg.Snapshot().Task(tok.Task)
	if !resultOf(t, tok) {
		return false // what the record does not know any more is nobody's
	}
	if bytes.Equal(proof, taskwire.TakeProof(newParcel(t, "").take)) {
		return true
	}
	s.cfg.Logger.Warn("an agent says that it has taken output that it was not ordered to take", "node", s.node, "task", tok.Task, "attempt", tok.Attempt)
	return false
}

// resultOf reports whether a task's result is that attempt's.
func resultOf(t *task.Task, tok task.Token) bool {
	return t != nil && t.Result != nil && t.Result.Attempt == tok.Attempt &&
		tok.Attempt >= 1 && tok.Attempt <= len(t.Attempts) && t.Attempts[tok.Attempt-1].Token(t.ID) == tok
}

// stray decides about a copy that nobody waits for.
func (s *session) stray(ctx context.Context, tok task.Token) error {
	var cmd state.MoveOutputs
	if m, missing := s.missing(tok); missing {
		cmd.Moves = append(cmd.Moves, m)
	}
	// Also without a move in it: after this command all that were proposed before it
	// are in the record, if they ever will be, so that what it says then holds.
	if _, err := s.cfg.Log.Propose(ctx, cmd); err != nil {
		return fmt.Errorf("node %s has output that nobody waits for: %w", s.node, err)
	}
	s.cfg.Logger.Info("output taken that nobody waited for", "task", tok.Task, "attempt", tok.Attempt, "by", s.node, "needed", len(cmd.Moves) > 0)
	s.callOff(s.node, tok)
	return nil
}

// missing reports whether an output's holder takes no tasks, so that it may be about
// to leave, or has left, with the only copy that the record knows; and how to move it.
func (s *session) missing(tok task.Token) (state.MovedOutput, bool) {
	sn := s.cfg.Snapshot()
	t := sn.Task(tok.Task)
	if !resultOf(t, tok) || t.Result.OutputAddr == "" {
		return state.MovedOutput{}, false
	}
	if holder := sn.Node(t.Result.Holder()); holder != nil && holder.Takes() {
		return state.MovedOutput{}, false
	}
	return state.MovedOutput{Task: t.ID, Attempt: tok.Attempt, From: t.Result.Holder(), FromAddr: t.Result.OutputAddr, To: s.node}, true
}

// callOff has an agent that has a session drop its copy of an output, unless the
// record says that it holds it.
func (t *tenure) callOff(node task.NodeID, tok task.Token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.mu.sessions[node]; s != nil {
		s.strays[tok] = true
		poke(s.astray)
	}
}

// dropStrays says so, in the writer's turn: an order that follows is carried out
// after it. A handover that waits for the same output decides itself.
func (s *session) dropStrays() error {
	s.mu.Lock()
	// Behind the lock: what is called off by now was decided before.
	sn := s.cfg.Snapshot()
	var drop []task.Token
	for tok := range s.strays {
		t := sn.Task(tok.Task)
		holds := t != nil && t.Result != nil && t.Result.Attempt == tok.Attempt && t.Result.Holder() == s.node
		if !holds && s.mu.handing[tok] == nil {
			drop = append(drop, tok)
		}
	}
	clear(s.strays)
	s.mu.Unlock()
	for _, tok := range drop {
		if err := s.stream.Send(s.message(&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_CallOff{CallOff: &ecsv1.CallOff{Token: taskwire.FromToken(tok)}}})); err != nil {
			return err
		}
	}
	return nil
}

// offer is say from another session's goroutine, which must not wait: false, too,
// when the agent does not read as fast as it is told things.
func (s *session) offer(m *ecsv1.ControlMessage) bool {
	select {
	case s.out <- s.message(m):
		return true
	default:
		return false
	}
}

// poke fills a channel's slot.
func poke(slot chan<- struct{}) {
	select {
	case slot <- struct{}{}:
	default:
	}
}
