package dispatch

import (
	"maps"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
)

// Hints is what the leader knows of nodes beyond the record: who is connected
// and heard of, which images they hold
// and what is parked on them. Placement may use it, nothing that
// must be right may.
type Hints struct {
	Connected map[task.NodeID]bool
	Images    map[task.NodeID]map[string]bool
	// Parked is how many containers of which shape, by its hash, wait for a task.
	// Parkings differs when the counts may.
	Parked   map[task.NodeID]map[uint64]int
	Parkings uint64
	// Changed is closed when the hints may differ, other than in what is parked:
	// no task waits for that.
	Changed <-chan struct{}
}

// Hints returns the present hints; all empty while this node does not lead.
// The maps of images and counts are shared and must not be changed.
func (s *Server) Hints() Hints {
	s.mu.Lock()
	t, turned := s.mu.tenure, s.mu.turned
	s.mu.Unlock()
	if t == nil {
		return Hints{Changed: turned}
	}
	now := s.cfg.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	h := Hints{Connected: make(map[task.NodeID]bool, len(t.mu.sessions)),
		Images: make(map[task.NodeID]map[string]bool, len(t.mu.sessions)), Parkings: t.mu.parkings, Changed: t.mu.changed}
	for id, ses := range t.mu.sessions {
		if now-ses.heardAt <= quiet {
			h.Connected[id] = true
			h.Images[id] = ses.images
			if len(ses.parked) > 0 {
				if h.Parked == nil {
					h.Parked = make(map[task.NodeID]map[uint64]int)
				}
				h.Parked[id] = ses.parked
			}
		}
	}
	return h
}

// mark are the leader's own times of one attempt, for the bill.
type mark struct{ chosen, committed, sent time.Time }

// Chosen notes when nodes were chosen for attempts, before that is proposed.
func (s *Server) Chosen(tokens []task.Token, at time.Time) {
	s.withTenure(func(t *tenure) {
		for _, tok := range tokens {
			t.mu.marks[tok] = &mark{chosen: at}
		}
	})
}

// Committed notes when the choice was committed. An attempt may have ended by
// then.
func (s *Server) Committed(tokens []task.Token, at time.Time) {
	s.withTenure(func(t *tenure) {
		for _, tok := range tokens {
			if m := t.mu.marks[tok]; m != nil {
				m.committed = at
			}
		}
	})
}

// Dropped forgets attempts whose placement was refused.
func (s *Server) Dropped(tokens []task.Token) {
	s.withTenure(func(t *tenure) {
		for _, tok := range tokens {
			delete(t.mu.marks, tok)
		}
		t.mu.parkings++ // what was counted as used up for them is not
	})
}

func (s *Server) withTenure(do func(*tenure)) {
	s.mu.Lock()
	t := s.mu.tenure // nil while this node does not lead
	s.mu.Unlock()
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	do(t)
}

// sent notes when an assignment went out, and what it takes of the node.
func (s *session) sent(tok task.Token, spec *task.Spec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.parked) > 0 {
		s.unparkLocked(spec.Shape().Hash())
	}
	if m := s.mu.marks[tok]; m != nil {
		m.sent = time.Now()
	}
}

// settle moves an attempt's marks into its bill.
func (t *tenure) settle(tok task.Token, b *task.Bill) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.mu.marks[tok]
	if m == nil {
		return
	}
	delete(t.mu.marks, tok)
	if m.committed.IsZero() || (!m.sent.IsZero() && m.sent.Before(m.committed)) {
		m.committed = m.sent // the stream was quicker than the scheduler's note
	}
	b.Placed = between(m.chosen, m.committed)
	b.Assigned = between(m.committed, m.sent)
}

// pruneMarksLocked drops marks of attempts that ended without a report.
func (t *tenure) pruneMarksLocked(sn *state.Snapshot) {
	if len(t.mu.marks) < 10_000 {
		return
	}
	maps.DeleteFunc(t.mu.marks, func(tok task.Token, m *mark) bool { return !m.committed.IsZero() && !live(sn, tok) })
}

func between(from, to time.Time) time.Duration {
	if from.IsZero() || to.IsZero() {
		return 0
	}
	return max(0, to.Sub(from))
}
