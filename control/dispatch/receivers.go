package dispatch

import (
	"cmp"
	"context"
	"slices"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// receiver is an agent that may take an output.
type receiver struct {
	*session
	zone     string
	free     int64 // bytes, less what it was given
	zoneLoad int64 // bytes that its zone was given
	busy     int
}

// choose gives the best of them for so many bytes, or -1 when all have enough to
// do: one with room, in the zone that was given the least, with the most room.
func choose(of []receiver, size int64) int {
	best := -1
	for i, r := range of {
		if r.busy >= takesOfOne {
			continue
		}
		if best < 0 || better(r, of[best], size) {
			best = i
		}
	}
	return best
}

func better(a, b receiver, size int64) bool {
	if fits := a.free >= size; fits != (b.free >= size) {
		return fits // what is full has to drop older output
	}
	return cmp.Or(cmp.Compare(a.zoneLoad, b.zoneLoad), cmp.Compare(b.free, a.free), cmp.Compare(a.node, b.node)) < 0
}

// receiver finds the agent to take a parcel; wait: those that could have enough to
// do, or may yet come. Nil without that: nobody can.
func (h *handover) receiver(p *parcel) (to *session, wait bool) {
	sn := h.cfg.Snapshot()
	zones := map[string]int64{}
	for id, bytes := range h.given {
		if n := sn.Node(id); n != nil {
			zones[n.Zone] += bytes
		}
	}
	var able []receiver
	h.mu.Lock()
	for id, other := range h.mu.sessions {
		n := sn.Node(id)
		least, full := h.full[id]
		if id == h.node || n == nil || !n.Takes() || n.Epoch != other.epoch || n.OutputAddr == "" ||
			!other.takesSpool || p.asked[id] || full && p.size >= least {
			continue
		}
		able = append(able, receiver{session: other, zone: n.Zone, free: other.spoolFree - h.given[id], zoneLoad: zones[n.Zone], busy: h.busy[id]})
	}
	h.mu.Unlock()
	slices.SortFunc(able, func(a, b receiver) int { return cmp.Compare(a.node, b.node) })
	best := choose(able, p.size)
	if best < 0 {
		return nil, len(able) > 0 || h.incomplete(sn, p)
	}
	return able[best].session, false
}

// incomplete reports whether an agent that could take a parcel may yet open its
// session: this leader is new.
func (h *handover) incomplete(sn *state.Snapshot, p *parcel) bool {
	if time.Since(h.began) >= assembleWithin {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for n := range sn.Nodes() {
		if other := h.mu.sessions[n.ID]; n.ID != h.node && n.Takes() && !p.asked[n.ID] && (other == nil || !other.takesSpool) {
			return true
		}
	}
	return false
}

// sessionsChanged gives a channel that closes when another agent may be ready.
func (t *tenure) sessionsChanged() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.changed
}

// taking is an order to take an output.
type taking struct {
	node  task.NodeID
	token task.Token
}

// expect has the answer to an order come through the channel; forget ends that.
func (t *tenure) expect(node task.NodeID, tok task.Token) (answer <-chan *ecsv1.Taken, forget func()) {
	key, ch := taking{node, tok}, make(chan *ecsv1.Taken, 1)
	t.mu.Lock()
	t.mu.takings[key] = ch
	t.mu.Unlock()
	return ch, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.mu.takings[key] == ch {
			delete(t.mu.takings, key)
		}
	}
}

// took passes an answer on to who waits for it, if anybody does still.
func (s *session) took(m *ecsv1.Taken) {
	key := taking{s.node, taskwire.ToToken(m.GetToken())}
	s.mu.Lock()
	ch := s.mu.takings[key]
	delete(s.mu.takings, key)
	s.mu.Unlock()
	if ch != nil {
		ch <- m // it has a slot, and this is the only one for it
	}
}

// setSpool takes note of how much room an agent has for others' output.
func (s *session) setSpool(free int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.takesSpool {
		s.pokeLocked()
	}
	s.takesSpool, s.spoolFree = true, free
}

// sayUnlessGone is say from another session's goroutine.
func (s *session) sayUnlessGone(ctx context.Context, m *ecsv1.ControlMessage) bool {
	select {
	case s.out <- s.message(m):
		return true
	case <-s.gone:
	case <-ctx.Done():
	}
	return false
}
