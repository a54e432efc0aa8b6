package dispatch

import (
	"context"
	"maps"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

// quiet is how long a connected agent may be silent before nothing more is
// placed on it. It loses nothing by it: only its lease decides that.
const quiet = 2500 * time.Millisecond

// heard is a heartbeat and when it came.
type heard struct {
	*ecsv1.Heartbeat
	at time.Time
}

// hear hands the newest heartbeat to beat, without waiting for it.
func (s *session) hear(h *ecsv1.Heartbeat) {
	if h.GetHasImages() {
		s.setImages(h.GetImages())
	}
	if h.GetHasParked() {
		s.setParked(h.GetParked())
	}
	if h.GetHasSpool() {
		s.setSpool(h.GetSpoolFree())
	}
	now := heard{h, time.Now()}
	for {
		select {
		case s.beats <- now:
			return
		default:
		}
		select {
		case <-s.beats:
		default:
		}
	}
}

// beat answers heartbeats after a leadership check that began after they came.
func (s *session) beat(ctx context.Context) error {
	var next heard // came too late for the check before
	for {
		h := next
		next = heard{}
		if h.Heartbeat == nil {
			select {
			case h = <-s.beats:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		began, err := s.checks.leading(ctx)
		if err != nil {
			return err
		}
		// One that came before the check began is answered by it, too.
		select {
		case newer := <-s.beats:
			if newer.at.Before(began) {
				h = newer
			} else {
				next = newer
			}
		default:
		}
		if !s.answer(s.node, s.epoch) {
			// The writer ends the session once it has sent this.
			return s.say(ctx, refused(true, "the lease is over"))
		}
		if err := s.say(ctx, &ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Heartbeat{
			Heartbeat: &ecsv1.HeartbeatAnswer{Number: h.GetNumber(), Drain: s.draining(), Wishes: s.wishes()}}}); err != nil {
			return err
		}
		s.beaten()
		if err := s.fitness(ctx, h.GetUnfit()); err != nil {
			return err
		}
	}
}

// fitness commits a change of what the agent says about its engine.
func (s *session) fitness(ctx context.Context, unfit string) error {
	if unfit == s.unfit {
		return nil
	}
	if _, err := s.cfg.Log.Propose(ctx, state.SetNode{Node: s.node, Unfit: &unfit, Epoch: s.epoch}); err != nil {
		return err
	}
	s.unfit = unfit
	s.cfg.Logger.Info("node fitness changed", "node", s.node, "unfit", unfit)
	return nil
}

// enlist makes this the node's session; an older one ends.
func (s *session) enlist() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.mu.sessions[s.node]; old != nil {
		old.cancel(errReplaced)
	}
	s.heardAt = s.cfg.Now()
	s.mu.sessions[s.node] = s
	s.pokeLocked()
}

func (s *session) delist() {
	close(s.gone)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.sessions[s.node] == s {
		delete(s.mu.sessions, s.node)
		s.pokeLocked()
	}
}

func (s *session) beaten() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	if now-s.heardAt > quiet {
		s.pokeLocked()
	}
	s.heardAt = now
}

func (s *session) setImages(images []string) {
	set := make(map[string]bool, len(images))
	for _, ref := range images {
		set[ref] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images = set
	s.pokeLocked()
}

// maxParked bounds what is kept of one agent's word.
const maxParked = 256

func (s *session) setParked(list []*ecsv1.Parked) {
	parked := make(map[uint64]int)
	for _, p := range list[:min(len(list), maxParked)] {
		parked[p.GetShape()] = int(p.GetCount())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !maps.Equal(parked, s.parked) {
		s.parked = parked
		s.mu.parkings++
	}
}

// unparkLocked counts a parked container as taken, before the agent says so.
func (s *session) unparkLocked(shape uint64) {
	if s.parked[shape] == 0 {
		return
	}
	parked := maps.Clone(s.parked) // hints share it
	parked[shape]--
	s.parked = parked
	s.mu.parkings++
}

// draining reports whether nothing is to be placed on the node.
func (s *session) draining() bool {
	n := s.cfg.Snapshot().Node(s.node)
	return n != nil && n.Drain
}

// endSession ends the session of a node that was declared lost.
func (t *tenure) endSession(node task.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.mu.sessions[node]; s != nil && t.mu.leases[node] != nil && t.mu.leases[node].expired {
		s.cancel(errLeaseOver)
	}
}

func (t *tenure) poke() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pokeLocked()
}

func (t *tenure) pokeLocked() {
	close(t.mu.changed)
	t.mu.changed = make(chan struct{})
}
