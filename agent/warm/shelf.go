package warm

import (
	"cmp"
	"math"
	"slices"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

const (
	// fading is how long it takes demand to fall to 1/e. What was asked for in
	// the last minute counts, more or less.
	fading = time.Minute
	// faded is what demand is forgotten at: 3 minutes after a single wish, 7
	// after a wish a second.
	faded = 0.05
	// maxShelves bounds the shapes that are remembered.
	maxShelves = 256
)

// shelf is what is parked of one shape.
type shelf struct {
	demand float64 // at asked
	asked  time.Time
	target int
	parked []*place // the oldest first
	again  bool     // it was asked for more than once: only then anything is parked
	wish   int      // how many are to be parked whatever the demand is
	key    uint64   // the hash of the shape
	ref    string   // the image as it was last asked for
	hint   uint64   // the hash of the shape that was last asked for
	pause  time.Duration
	idle   time.Time // until when nothing is tried after a failure
}

// place is one parked container on a shelf.
type place struct {
	runtime.Parked
	told  time.Duration // the end of the lease, as far as the container knows
	since time.Time
	old   bool // it has survived its beginning
}

// renew tells the container of a lease that ends later by more than it is worth
// waking it for.
func (b *place) renew(end time.Duration) {
	if end-b.told >= renewStep {
		b.told = end
		b.Renew(end)
	}
}

// now is the demand at a moment.
func (s *shelf) now(at time.Time) float64 {
	d := s.demand * math.Exp(-at.Sub(s.asked).Seconds()/fading.Seconds())
	if d < faded {
		return 0
	}
	return d
}

// ask counts one wish.
func (s *shelf) ask(at time.Time) { s.demand, s.asked = s.now(at)+1, at }

// wanted is how much of it is to be parked: a shape may be asked for once in its
// life.
func (s *shelf) wanted(at time.Time) float64 {
	if !s.again {
		return float64(s.wish)
	}
	return max(s.now(at), float64(s.wish))
}

// pop takes the newest.
func (s *shelf) pop() *place {
	last := len(s.parked) - 1
	c := s.parked[last]
	s.parked[last] = nil
	s.parked = s.parked[:last]
	return c
}

// plan deals slots to demands: each gets what it asks for, rounded up, as long as
// there are enough, and else in proportion (by the highest averages, so that more
// slots never mean fewer for anybody).
func plan(demands []float64, slots int) []int {
	targets := make([]int, len(demands))
	for range slots {
		best := -1
		for i, d := range demands {
			if float64(targets[i]) >= d {
				continue
			}
			if best < 0 || d/float64(targets[i]+1) > demands[best]/float64(targets[best]+1) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		targets[best]++
	}
	return targets
}

// retargetLocked decides anew how many of what are to be parked, puts what is too
// much among the unwanted and forgets shapes that nobody asks for. It gives the
// shape that lacks most, if any.
func (p *Pool) retargetLocked(now time.Time) (task.Shape, *shelf) {
	var shapes []task.Shape
	for shape := range p.mu.shelves {
		shapes = append(shapes, shape)
	}
	// The longest known first, whatever the map's order.
	slices.SortFunc(shapes, func(a, b task.Shape) int {
		x, y := p.mu.shelves[a], p.mu.shelves[b]
		return cmp.Or(y.asked.Compare(x.asked), cmp.Compare(x.key, y.key))
	})
	demands := make([]float64, len(shapes))
	for i, shape := range shapes {
		demands[i] = p.mu.shelves[shape].wanted(now)
	}
	targets := plan(demands, p.slots)
	var lacks task.Shape
	var least *shelf
	for i, shape := range shapes {
		s := p.mu.shelves[shape]
		s.target = targets[i]
		p.inspectLocked(s, now)
		if over := len(s.parked) - s.target; over > 0 {
			for _, b := range s.parked[:over] {
				p.mu.unwanted = append(p.mu.unwanted, b.Parked)
			}
			s.parked = slices.Delete(s.parked, 0, over)
			p.mu.version++
		}
		if s.now(now) == 0 && s.wish == 0 {
			delete(p.mu.shelves, shape)
			continue
		}
		if missing := s.target - len(s.parked); missing > 0 && now.After(s.idle) &&
			(least == nil || len(s.parked) == 0 && len(least.parked) > 0) {
			lacks, least = shape, s
		}
	}
	return lacks, least
}

// inspectLocked puts what has ended by itself among the unwanted. Where it had
// only just begun the next would hardly do better: the shape waits.
func (p *Pool) inspectLocked(s *shelf, now time.Time) {
	early := false
	s.parked = slices.DeleteFunc(s.parked, func(b *place) bool {
		gone := isGone(b)
		switch young := now.Sub(b.since) < proven; {
		case gone:
			early = early || young
			p.mu.unwanted = append(p.mu.unwanted, b.Parked)
			p.mu.version++
		case !young && !b.old:
			b.old, s.pause = true, 0
		}
		return gone
	})
	if early {
		p.failureLocked(s, now, errEarly)
	}
}

// makeRoomLocked forgets the shape that is asked for least where there are too
// many.
func (p *Pool) makeRoomLocked() {
	if len(p.mu.shelves) < maxShelves {
		return
	}
	now := time.Now()
	var least task.Shape
	var s *shelf
	for shape, other := range p.mu.shelves {
		if s == nil || cmp.Or(cmp.Compare(other.wanted(now), s.wanted(now)), cmp.Compare(other.now(now), s.now(now))) < 0 {
			least, s = shape, other
		}
	}
	p.emptyLocked(least, s)
}
