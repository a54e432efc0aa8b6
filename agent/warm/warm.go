// Package warm keeps containers that have started ahead of their tasks: parked,
// never used, for one task each (runtime.Parked).
//
// How many of which shape is decided by demand, which fades, within a budget of
// number and memory. They are made one at a time, in the background, when no
// attempt is in a hurry. They live under the lease of the node's registration,
// and end with it by themselves; with the agent they end for the same reason.
package warm

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/armon/go-metrics"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

const (
	// parkedMemory is what one parked container costs the machine at most, its
	// init and the engine's shim included. That is what the budget counts, not the
	// limit of the container, which it can't come near before its task begins;
	// and the memory of a task is reserved by its placement, whether its container
	// was there before or not. So nothing is reserved twice; what is parked lives
	// on what the node keeps from tasks (--reserve).
	parkedMemory = 12 << 20
	// renewStep is how much further a lease has to have moved before what is
	// parked is told: each time wakes a process.
	renewStep = 3 * time.Second
	// leastLease is how much of the lease has to be left for parking to be worth
	// while.
	leastLease = task.FenceAhead + 2*renewStep/3
	// calmPatience is how long attempts in a hurry can hold up parking.
	calmPatience = 2 * time.Second
	// look is how often fading demand is looked at, while there is any.
	look = 5 * time.Second

	parkTimeout   = 2 * time.Minute
	removeTimeout = time.Minute
	// proven is how long a container has to be parked to be no failure when it
	// ends by itself.
	proven = 10 * time.Second
	// After a failure a shape waits; the pause doubles.
	firstPause = time.Second
	mostPause  = time.Minute
)

// What becomes of a wish for a parked container; all but Hit are why there was
// none.
const (
	Hit      = "hit"
	Off      = ""         // the node parks none
	First    = "first"    // nobody, or one task alone, asked for this shape for some time
	Empty    = "empty"    // all of them are taken
	Budget   = "budget"   // there is no room for this shape in the budget
	Draining = "draining" // the node takes no more tasks
	Ended    = "ended"    // the one that was taken had ended before its task began
)

// Config is what a Pool needs.
type Config struct {
	Runtime runtime.Runtime
	// Count and Memory are the budget. With a Count of 0 nothing is parked.
	Count  int
	Memory int64
	// Removals is how many are removed at once when the pool is shut. Default 1.
	Removals int
	// Now is the clock of leases.
	Now     func() time.Duration
	Log     *slog.Logger
	Metrics *metrics.Metrics
}

var (
	errStopped = errors.New("the pool has stopped before it was empty")
	errEarly   = errors.New("it ended as soon as it was parked")
)

// Slots is how many containers a budget pays for.
func Slots(count int, memory int64) int { return max(0, min(count, int(memory/parkedMemory))) }

// Pool is the parked containers of one node. It is safe for concurrent use, also
// before and after Run.
type Pool struct {
	cfg   Config
	slots int
	wake  chan struct{} // one slot

	mu struct {
		sync.Mutex
		shelves  map[task.Shape]*shelf
		unwanted []runtime.Parked // to be removed
		lease    time.Duration    // its end; 0: none
		drained  bool
		shut     bool
		version  uint64 // of what Hints gives, and of who may have to hear it again
		hurried  int
		wanted   time.Time          // since when there is something to park; zero: nothing
		abort    context.CancelFunc // of the parking under way; or nil
	}
	empty    chan struct{} // closed when the pool is shut and nothing is left of it
	stopped  chan struct{} // closed when Run has returned
	watchers sync.WaitGroup
}

// New makes an empty Pool, which Run fills.
func New(cfg Config) *Pool {
	p := &Pool{cfg: cfg, slots: Slots(cfg.Count, cfg.Memory), wake: make(chan struct{}, 1),
		empty: make(chan struct{}), stopped: make(chan struct{})}
	p.cfg.Removals = max(p.cfg.Removals, 1)
	p.mu.shelves = map[task.Shape]*shelf{}
	return p
}

// Take gives a parked container that fits the spec, whose image has that id on
// the engine, and Hit; or nil and why there is none. It is the caller's alone: to
// be bound, or dropped. Either counts as demand.
func (p *Pool) Take(s *task.Spec, image string) (runtime.Parked, string) {
	if p.slots == 0 {
		return nil, Off
	}
	c, why := p.take(s, image)
	p.measureTake(why)
	return c, why
}

func (p *Pool) take(spec *task.Spec, image string) (runtime.Parked, string) {
	asked := spec.Shape()
	shape := asked
	shape.Image = image
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.drained || p.mu.shut {
		return nil, Draining
	}
	defer poke(p.wake)
	p.mu.version++
	s, why := p.mu.shelves[shape], Empty
	if s == nil {
		s, why = &shelf{key: shape.Hash()}, First
		p.makeRoomLocked()
		p.mu.shelves[shape] = s
	} else if !s.again && s.wish == 0 {
		s.again, s.target, why = true, 1, First
	} else {
		s.again = s.again || s.demand > 0 // of what is wished for, the second time
		if s.target == 0 {
			why = Budget
		}
	}
	now := time.Now()
	s.ask(now)
	if s.ref != asked.Image {
		s.ref, s.hint = asked.Image, asked.Hash()
	}
	p.inspectLocked(s, now)
	for len(s.parked) > 0 {
		c := s.pop()
		if !isGone(c) {
			s.pause = 0
			return c.Parked, Hit
		}
		p.mu.unwanted = append(p.mu.unwanted, c.Parked) // just now
	}
	return nil, why
}

// Drop takes back a container that was taken and not bound, to be removed.
func (p *Pool) Drop(c runtime.Parked) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.unwanted = append(p.mu.unwanted, c)
	poke(p.wake)
}

// Return takes back a container that was taken for the spec and is as it was, for
// another. It reports false where it has no more use for it: then it is the
// caller's to remove.
func (p *Pool) Return(c runtime.Parked, spec *task.Spec, image string) bool {
	shape := spec.Shape()
	shape.Image = image
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.mu.shelves[shape]
	if s == nil || p.mu.lease == 0 || p.mu.drained || p.mu.shut {
		return false
	}
	b := &place{Parked: c, since: time.Now()}
	b.renew(p.mu.lease)
	s.parked = append(s.parked, b)
	p.mu.version++
	poke(p.wake)
	return true
}

// Wish is how many containers of a spec's shape are to be parked, whatever the
// demand is, where there is room for them.
type Wish struct {
	Spec  task.Spec
	Image string // its id on the engine
	Count int
}

// Wish takes the place of all that was wished for before. What the pool forgets,
// when the lease is over say, has to be wished for again.
func (p *Pool) Wish(wishes []Wish) {
	if p.slots == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.drained || p.mu.shut || p.mu.lease == 0 {
		wishes = nil
	}
	for _, s := range p.mu.shelves {
		s.wish = 0
	}
	for _, w := range wishes {
		asked := w.Spec.Shape()
		shape := asked
		shape.Image = w.Image
		s := p.mu.shelves[shape]
		if s == nil {
			s = &shelf{key: shape.Hash(), asked: time.Now()}
			p.makeRoomLocked()
			p.mu.shelves[shape] = s
		}
		s.wish, s.ref = w.Count, asked.Image
		if hint := asked.Hash(); s.hint != hint {
			s.hint = hint
			p.mu.version++
		}
	}
	poke(p.wake)
}

// Hurry says that an attempt is on its way to its answer: parking another
// container would take processor time from it. calm ends that, and may be called
// again.
func (p *Pool) Hurry() (calm func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.hurried++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.mu.hurried--; p.mu.hurried == 0 {
			poke(p.wake)
		}
	})
}

// Extend moves the end of the lease. It does not block.
func (p *Pool) Extend(end time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.lease == 0 {
		poke(p.wake)
	}
	p.mu.lease = max(p.mu.lease, end)
	for _, s := range p.mu.shelves {
		for _, b := range s.parked {
			b.renew(end)
		}
	}
}

// Lapse empties the pool: the lease is over. It does not block.
func (p *Pool) Lapse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.lease = 0
	p.clearLocked()
}

// Drain empties the pool and keeps it empty, until it is called with false.
func (p *Pool) Drain(drain bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.drained == drain {
		return
	}
	if p.mu.drained = drain; drain {
		p.clearLocked()
	}
}

// Removed says that the engine does not hold these references any more.
func (p *Pool) Removed(refs []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ref := range refs {
		for shape, s := range p.mu.shelves {
			if s.ref == ref {
				p.emptyLocked(shape, s)
			}
		}
	}
}

// Shut empties the pool for good. It does not block; Emptied does.
func (p *Pool) Shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.shut = true
	p.clearLocked()
}

// Emptied waits until a pool that was shut is empty.
func (p *Pool) Emptied(ctx context.Context) error {
	select {
	case <-p.stopped:
	case <-ctx.Done():
	}
	if isClosed(p.empty) {
		return nil
	}
	return cmp.Or(ctx.Err(), errStopped)
}

// Assigned says that the leader has assigned an attempt to this node, and may
// count one container less since.
func (p *Pool) Assigned() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.version++
}

// Hints counts what is parked by the hash of its shape as callers put it. The
// version tells whether it must be told again: also what is as it was must, where
// the leader has counted on its own meanwhile. A pool that is off has version 0.
func (p *Pool) Hints() (hints map[uint64]int, version uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.slots == 0 {
		return nil, 0
	}
	hints = map[uint64]int{}
	for _, s := range p.mu.shelves {
		if n := len(s.parked); n > 0 {
			hints[s.hint] += n
		}
	}
	return hints, p.mu.version
}

// clearLocked wants nothing of what there is.
func (p *Pool) clearLocked() {
	for shape, s := range p.mu.shelves {
		p.emptyLocked(shape, s)
	}
	if p.mu.abort != nil {
		p.mu.abort()
	}
	poke(p.wake)
}

func (p *Pool) emptyLocked(shape task.Shape, s *shelf) {
	for len(s.parked) > 0 {
		p.mu.unwanted = append(p.mu.unwanted, s.pop().Parked)
	}
	delete(p.mu.shelves, shape)
	p.mu.version++
	poke(p.wake)
}

func isGone(c runtime.Parked) bool { return isClosed(c.Gone()) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func poke(slot chan<- struct{}) {
	select {
	case slot <- struct{}{}:
	default:
	}
}
