package dispatch

import (
	"cmp"
	"slices"
	"time"
)

// receiver is an agent that may take an output.
type receiver struct {
	*session
	zone     string
	free     int64 // bytes, less what it was given
	zoneLoad int64 // bytes that its zone was given
	busy     int
	failed   int // how often it was asked in vain
}

// choose gives the best of them for so many bytes, or -1 when all have enough to
// do: one that was not asked yet, with room, in the zone that was given the least,
// with the most room.
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
	if a.failed != b.failed {
		return a.failed < b.failed
	}
	if fits := a.free >= size; fits != (b.free >= size) {
		return fits // what is full has to drop older output
	}
	return cmp.Or(cmp.Compare(a.zoneLoad, b.zoneLoad), cmp.Compare(b.free, a.free), cmp.Compare(a.node, b.node)) < 0
}

// receiver finds the agent to take a parcel. Without one, wait says that there are
// some that have enough to do, had no time for it a while ago, or may come back: the
// lease decides about those.
func (h *handover) receiver(p *parcel) (to *session, wait bool) {
	sn, now := h.cfg.Snapshot(), time.Now()
	zones := map[string]int64{}
	for id, bytes := range h.given {
		if n := sn.Node(id); n != nil {
			zones[n.Zone] += bytes
		}
	}
	var able []receiver
	h.mu.Lock()
	defer h.mu.Unlock()
	for n := range sn.Nodes() {
		if n.ID == h.node || !n.Takes() || n.OutputAddr == "" || h.orders[taking{n.ID, p.token}] != nil {
			continue
		}
		other, pause := h.mu.sessions[n.ID], h.pauses[n.ID].until
		switch {
		case other == nil || other.epoch != n.Epoch:
			wait = true
		case !other.takesSpool:
			if said := other.opened.Add(assembleWithin); now.Before(said) {
				wait = true
				h.lookAt(said)
			}
		case h.full[n.ID].bars(p.size, other.spoolFree):
		case now.Before(pause):
			wait = true
			h.lookAt(pause)
		default:
			able = append(able, receiver{session: other, zone: n.Zone, free: other.spoolFree - h.given[n.ID],
				zoneLoad: zones[n.Zone], busy: h.busy[n.ID], failed: p.failed[n.ID]})
		}
	}
	slices.SortFunc(able, func(a, b receiver) int { return cmp.Compare(a.node, b.node) })
	best := choose(able, p.size)
	if best < 0 {
		return nil, wait || len(able) > 0
	}
	return able[best].session, false
}

// sessionsChanged gives a channel that closes when another agent may be ready.
func (t *tenure) sessionsChanged() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.changed
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
