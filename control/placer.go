package control

import (
	"maps"
	"sync"
	"time"

	"ecs/control/dispatch"
	"ecs/control/place"
	"ecs/control/state"
	"ecs/internal/task"
)

// hintsLast is how long what sessions know is taken as it is when a submission
// is placed. Hints may be out of date; reading them costs a look at every node.
const hintsLast = 100 * time.Millisecond

// placer decides where tasks run while this node leads. Submissions are placed
// as their entry of the log is made, so that most tasks cost two entries and not
// three; what can't be placed then waits, and the scheduler's loop places it.
// Both count what the other has decided and is not in the record yet.
type placer struct {
	s  *Server
	mu struct {
		sync.Mutex
		planner *place.Planner
		hints   dispatch.Hints
		read    time.Time // when hints were
		// waiting are submissions on their way that were not placed: nobody
		// overtakes them.
		waiting int
		// uncertain is nil in a cluster that was never recovered.
		uncertain *uncertain
	}
}

func newPlacer(s *Server) *placer {
	p := &placer{s: s}
	sn := s.store.Snapshot()
	p.mu.hints, p.mu.read = s.sessions.Hints(), time.Now()
	p.mu.planner = place.NewPlanner(sn, placeHints(sn, p.mu.hints))
	if sn.RecoveredAt() > 0 {
		p.mu.uncertain = &uncertain{store: s.store, began: time.Now()}
		p.mu.planner.Hold(p.mu.uncertain.waits)
	}
	return p
}

// lookLocked takes the newest record, and hints that are at most so old if
// something has changed.
func (p *placer) lookLocked(old time.Duration) *state.Snapshot {
	sn := p.s.store.Snapshot()
	p.mu.planner.See(sn)
	if time.Since(p.mu.read) < old {
		return sn
	}
	hints := p.s.sessions.Hints()
	switch {
	case hints.Changed != p.mu.hints.Changed || !maps.Equal(hints.Connected, p.mu.hints.Connected):
		p.mu.planner.Hint(placeHints(sn, hints))
	case hints.Parkings != p.mu.hints.Parkings:
		p.mu.planner.Park(hints.Parked) // not a look at every node
	}
	p.mu.hints, p.mu.read = hints, time.Now()
	return sn
}

// look is what the placer found for tasks that wait.
type look struct {
	sn        *state.Snapshot
	decisions []state.Decision
	changed   <-chan struct{} // closed when sessions know more than was taken into account
	again     time.Time       // if not zero a task comes free then that was held back
	lost      []task.ID       // may have run, and may not twice
}

// pending decides for tasks that wait.
func (p *placer) pending(most int) look {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := look{sn: p.lookLocked(0)}
	u := p.mu.uncertain
	if u != nil {
		u.look()
	}
	l.decisions, l.changed = p.mu.planner.Place(most), p.mu.hints.Changed
	if u != nil {
		l.again, l.lost = u.next, u.lost
	}
	return l
}

// holds reports whether a task that waits is held back.
func (p *placer) holds(sn *state.Snapshot, t *task.Task) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.uncertain != nil && p.mu.uncertain.holds(sn, t)
}

// held says why a task that waits is held back, "" when it is not.
func (p *placer) held(sn *state.Snapshot, id task.ID) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := sn.Task(id)
	if p.mu.uncertain == nil || t == nil {
		return ""
	}
	return p.mu.uncertain.explain(sn, t)
}

// settle says that these decisions are in the record, or will never be.
func (p *placer) settle(decisions []state.Decision, waiting int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range decisions {
		p.mu.planner.Settle(d.Task)
	}
	p.mu.waiting -= waiting
}

// compose places the submissions of an entry that is about to be made; see
// replica.Config. While anything waits for a node all of them wait behind it, but for
// what is held back after a recovery.
func (s *Server) compose(batch []state.Command) (settled func([]state.Outcome)) {
	p := s.placing.Load()
	if p == nil {
		return func([]state.Outcome) {}
	}
	chosen := time.Now()
	placed, waiting := p.submissions(batch)
	if len(placed) == 0 && waiting == 0 {
		return func([]state.Outcome) {}
	}
	s.sessions.Chosen(tokensOf(placed), chosen)
	return func(outcomes []state.Outcome) {
		p.settle(placed, waiting)
		s.composed(placed, outcomes)
	}
}

// heldLocked is how many tasks waited at the scheduler's last look that nobody can
// overtake: they are held back.
func (p *placer) heldLocked() int {
	if p.mu.uncertain == nil {
		return 0
	}
	return p.mu.uncertain.held
}

// submissions places what it can of a batch, and says how many submissions it
// could not place.
func (p *placer) submissions(batch []state.Command) (placed []state.Decision, waiting int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var sn *state.Snapshot
	fresh := false // the hints
	for i, cmd := range batch {
		c, ok := cmd.(state.Submit)
		if !ok {
			continue
		}
		if sn == nil {
			sn = p.lookLocked(hintsLast)
		}
		if sn.Task(c.Task.ID) != nil || c.Task.Key != "" && sn.ByKey(c.Task.Owner, c.Task.Key) != nil {
			continue // it is a repeat
		}
		if sn.Counts().Pending <= p.heldLocked() && p.mu.waiting+waiting == 0 {
			d, ok := p.mu.planner.Submit(c.Task)
			if !ok && !fresh {
				// None has to wait because of agents that connected just now.
				sn, fresh = p.lookLocked(0), true
				d, ok = p.mu.planner.Submit(c.Task)
			}
			if ok {
				batch[i] = state.Submit{Task: c.Task, Node: d.Node, Epoch: d.Epoch, Quota: c.Quota}
				placed = append(placed, d)
				continue
			}
		}
		waiting++
	}
	p.mu.waiting += waiting
	return placed, waiting
}

// composed notes what became of the decisions for submissions.
func (s *Server) composed(placed []state.Decision, outcomes []state.Outcome) {
	tokens := tokensOf(placed)
	accepted := make([]task.ID, 0, len(placed))
	for _, out := range outcomes {
		if out.Task != nil && !out.Existed && out.Task.State == task.Assigned {
			accepted = append(accepted, out.Task.ID)
		}
	}
	s.sessions.Committed(tokens, time.Now())
	if len(accepted) < len(tokens) {
		s.sessions.Dropped(refusedTokens(tokens, accepted))
	}
	s.cfg.Metrics.IncrCounter([]string{"scheduler", "placed"}, float32(len(accepted)))
}

func tokensOf(decisions []state.Decision) []task.Token {
	tokens := make([]task.Token, len(decisions))
	for i, d := range decisions {
		tokens[i] = task.Token{Task: d.Task, Attempt: d.Attempt, Epoch: d.Epoch}
	}
	return tokens
}

// placeHints turns what sessions know into placement's terms: a node that is
// not connected to this leader is avoided, whatever gossip says.
func placeHints(sn *state.Snapshot, h dispatch.Hints) place.Hints {
	avoid := make(map[task.NodeID]bool)
	for n := range sn.Nodes() {
		if !h.Connected[n.ID] {
			avoid[n.ID] = true
		}
	}
	return place.Hints{Images: h.Images, Avoid: avoid, Parked: h.Parked}
}
