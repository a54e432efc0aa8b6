package place

import (
	"ecs/control/state"
	"ecs/internal/task"
)

// Planner decides where tasks run by the rules of Place, again and again while
// the record moves on. It counts what it decided until the record shows it or
// its caller says what became of it (Settle), so that decisions on their way
// do not claim the same room twice.
//
// It keeps the nodes in order between calls: what it costs to look at a newer
// snapshot depends on the nodes that changed, not on all of them. It is pure as
// Place is, and for one caller at a time.
type Planner struct {
	sn    *state.Snapshot
	hints Hints
	c     *cluster
	held  map[task.ID]held
	waits func(*task.Task) bool // see Hold
	steps int
}

// held is a decision that the record may not show yet.
type held struct {
	node      task.NodeID
	resources task.Resources
	shape     uint64 // see cluster.shapeOf
	attempt   int
	submitted bool // decided with its task's acceptance
}

// mostBoards bounds the images and shapes of a zone for which the nodes that have
// them are kept in order. Callers name them.
const mostBoards = 256

// NewPlanner makes a Planner that has decided nothing yet.
func NewPlanner(sn *state.Snapshot, h Hints) *Planner {
	p := &Planner{sn: sn, hints: h, held: make(map[task.ID]held)}
	p.c = newCluster(sn, h, &p.steps)
	return p
}

// Steps counts the comparisons that searches for nodes and notes of reservations
// took up to now: what decisions cost, without a clock.
func (p *Planner) Steps() int { return p.steps }

// Hint takes newer hints. It looks at every node.
func (p *Planner) Hint(h Hints) {
	p.hints = h
	p.rebuild()
	p.useAgain()
}

// Park takes newer hints of what is parked alone. It looks only at the nodes
// where something is or was.
func (p *Planner) Park(parked map[task.NodeID]map[uint64]int) {
	p.hints.Parked = parked
	p.c.park(parked)
	p.useAgain()
}

// useAgain has the decisions on their way use up what was parked for them: newer
// hints don't know of them.
func (p *Planner) useAgain() {
	for _, h := range p.held { // counts: the order does not matter
		if s := p.c.spots[h.node]; s != nil {
			p.c.use(s, h.shape)
		}
	}
}

// See takes a newer snapshot.
func (p *Planner) See(sn *state.Snapshot) {
	since := p.sn.Index()
	p.sn = sn
	p.settleSeen()
	for n := range sn.NodesSince(since) {
		s := p.c.spots[n.ID]
		if s == nil || !sameButReserved(s.node, n) {
			p.review()
			return
		}
		p.c.record(s, n)
	}
	for _, z := range p.c.zones {
		if len(z.holding)+len(z.ready) > mostBoards {
			p.review()
			return
		}
	}
}

// sameButReserved reports whether at most the reservations of a node changed.
func sameButReserved(a, b *task.Node) bool {
	return a.Epoch == b.Epoch && a.Status == b.Status && a.Drain == b.Drain && a.Unfit == b.Unfit &&
		a.Zone == b.Zone && a.Capacity == b.Capacity && hasEgress(a) == hasEgress(b)
}

// review looks at every node anew, with the hints there are: what decisions used
// up of them stays so.
func (p *Planner) review() {
	used := p.c.stock
	p.rebuild()
	if used != nil { // even if nothing is to be had now: a node may come back
		p.c.stock = used
	}
}

// rebuild looks at every node anew.
func (p *Planner) rebuild() {
	p.c = newCluster(p.sn, p.hints, &p.steps)
	for _, h := range p.held { // sums: the order does not matter
		if s := p.c.spots[h.node]; s != nil {
			p.c.take(s, h.resources)
		}
	}
}

// settleSeen settles what the snapshot shows. A task that was to be placed with
// its acceptance and is in the record was placed, or was not.
func (p *Planner) settleSeen() {
	for id, h := range p.held {
		t := p.sn.Task(id)
		if t == nil && !h.submitted || t != nil && (h.submitted || len(t.Attempts) >= h.attempt || t.State != task.Pending) {
			p.Settle(id)
		}
	}
}

// Settle says that the latest decision for a task is in the snapshot of the next
// See, or will never be. It does nothing when there is none.
func (p *Planner) Settle(id task.ID) {
	h, ok := p.held[id]
	if !ok {
		return
	}
	delete(p.held, id)
	if s := p.c.spots[h.node]; s != nil {
		p.c.giveBack(s, h.resources)
	}
}

// Hold has Place pass over pending tasks for as long as waits says so; nil: none.
func (p *Planner) Hold(waits func(*task.Task) bool) { p.waits = waits }

// Place decides for the tasks that wait and have no decision on its way; see the
// function of that name.
func (p *Planner) Place(max int) []state.Decision {
	var decisions []state.Decision
	for t := range p.sn.Pending() {
		if max > 0 && len(decisions) == max {
			break
		}
		if _, decided := p.held[t.ID]; decided || p.waits != nil && p.waits(t) {
			continue
		}
		if d, ok := p.decide(t, false); ok {
			decisions = append(decisions, d)
		}
	}
	return decisions
}

// Submit decides for a task that is about to be accepted. It reports false when
// no node has room for it now.
func (p *Planner) Submit(t *task.Task) (state.Decision, bool) {
	if _, decided := p.held[t.ID]; decided {
		return state.Decision{}, false
	}
	return p.decide(t, true)
}

func (p *Planner) decide(t *task.Task, submitted bool) (state.Decision, bool) {
	shape := p.c.shapeOf(t)
	s := p.c.choose(t, shape)
	if s == nil {
		return state.Decision{}, false
	}
	p.c.take(s, t.Spec.Resources)
	p.c.use(s, shape)
	d := state.Decision{Task: t.ID, Attempt: len(t.Attempts) + 1, Node: s.node.ID, Epoch: s.node.Epoch}
	p.held[t.ID] = held{node: d.Node, resources: t.Spec.Resources, shape: shape, attempt: d.Attempt, submitted: submitted}
	return d, true
}
