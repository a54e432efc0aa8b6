package warm

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/armon/go-metrics"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

// The metrics of this package, all under "warm".
const (
	metricParked   = "parked"        // gauge: containers that wait for a task
	metricTaken    = "taken"         // counter, by result: hit, or why there was none
	metricPark     = "park_ms"       // sample: how long it took to park one
	metricFailures = "park_failures" // counter
)

// Run fills and empties the pool until ctx ends. What is parked then is left to
// its lease, unless the pool was shut before.
func (p *Pool) Run(ctx context.Context) {
	defer close(p.stopped)
	defer p.watchers.Wait()
	timer := time.NewTimer(look)
	defer timer.Stop()
	for ctx.Err() == nil {
		j := p.next(time.Now())
		switch {
		case len(j.remove) > 0:
			p.removeAll(ctx, j.remove)
			continue
		case j.park:
			p.park(ctx, j.shape)
			continue
		case j.empty:
			close(p.empty)
			return
		}
		timer.Stop()
		if j.again > 0 {
			timer.Reset(j.again)
		}
		select {
		case <-p.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// job is what the loop is to do next; nothing, if nothing is set.
type job struct {
	remove []runtime.Parked
	park   bool
	shape  task.Shape
	empty  bool
	again  time.Duration // when to look again; 0: when something happens
}

func (p *Pool) next(now time.Time) job {
	p.mu.Lock()
	defer p.mu.Unlock()
	shape, lacking := p.retargetLocked(now)
	p.measureLocked()
	if n := len(p.mu.unwanted); n > 0 {
		few := 1 // the engine has other things to do
		if p.mu.shut {
			few = min(n, p.cfg.Removals)
		}
		j := job{remove: slices.Clone(p.mu.unwanted[n-few:])}
		p.mu.unwanted = slices.Delete(p.mu.unwanted, n-few, n)
		return j
	}
	if p.mu.shut {
		return job{empty: true}
	}
	j := job{}
	if len(p.mu.shelves) > 0 {
		j.again = look
	}
	if lacking == nil || p.mu.drained || p.mu.lease-p.cfg.Now() < leastLease {
		p.mu.wanted = time.Time{}
		return j
	}
	if p.mu.wanted.IsZero() {
		p.mu.wanted = now
	}
	if wait := calmPatience - now.Sub(p.mu.wanted); p.mu.hurried > 0 && wait > 0 {
		j.again = min(j.again, wait)
		return j
	}
	p.mu.wanted = time.Time{}
	return job{park: true, shape: shape}
}

// park makes one more of a shape.
func (p *Pool) park(life context.Context, shape task.Shape) {
	ctx, cancel := context.WithTimeout(life, parkTimeout)
	defer cancel()
	p.mu.Lock()
	p.mu.abort = cancel
	p.mu.Unlock()
	began := time.Now()
	c, err := p.cfg.Runtime.Park(ctx, runtime.Parking{Shape: shape, Deadline: p.deadline})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.abort = nil
	s := p.mu.shelves[shape]
	if err != nil {
		p.failedLocked(ctx, shape, s, err)
		return
	}
	p.cfg.Metrics.MeasureSince([]string{"warm", metricPark}, began)
	if s == nil || p.mu.lease == 0 {
		p.mu.unwanted = append(p.mu.unwanted, c) // the wish is gone
		return
	}
	b := &place{Parked: c, since: time.Now()}
	b.renew(p.mu.lease)
	s.parked = append(s.parked, b)
	p.mu.version++
	p.watchers.Go(func() {
		select {
		case <-c.Gone():
			poke(p.wake)
		case <-life.Done():
		}
	})
}

// failedLocked draws the consequences of a container that could not be parked.
func (p *Pool) failedLocked(ctx context.Context, shape task.Shape, s *shelf, err error) {
	if s == nil || errors.Is(ctx.Err(), context.Canceled) {
		return // it was called off
	}
	if errors.Is(err, runtime.ErrNoImage) {
		p.cfg.Metrics.IncrCounter([]string{"warm", metricFailures}, 1)
		p.emptyLocked(shape, s)
		return
	}
	p.failureLocked(s, time.Now(), err)
}

// failureLocked lets the shape wait, longer each time until one is used or has
// survived.
func (p *Pool) failureLocked(s *shelf, now time.Time, err error) {
	p.cfg.Metrics.IncrCounter([]string{"warm", metricFailures}, 1)
	s.pause = min(max(2*s.pause, firstPause), mostPause)
	s.idle = now.Add(s.pause)
	p.cfg.Log.Warn("no container parked", "image", s.ref, "err", err, "pause", s.pause)
}

// removeAll removes them all at once.
func (p *Pool) removeAll(ctx context.Context, few []runtime.Parked) {
	var all sync.WaitGroup
	defer all.Wait()
	for _, c := range few {
		all.Go(func() { p.remove(ctx, c) })
	}
}

func (p *Pool) remove(ctx context.Context, c runtime.Parked) {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	if err := c.Remove(ctx); err != nil && ctx.Err() == nil {
		// The sweeper looks for what is nobody's.
		p.cfg.Log.Warn("parked container not removed", "err", err)
	}
}

// deadline is the end of the lease, which has passed where there is none.
func (p *Pool) deadline() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.lease
}

func (p *Pool) measureLocked() {
	n := 0
	for _, s := range p.mu.shelves {
		n += len(s.parked)
	}
	p.cfg.Metrics.SetGauge([]string{"warm", metricParked}, float32(n))
}

func (p *Pool) measureTake(result string) {
	p.cfg.Metrics.IncrCounterWithLabels([]string{"warm", metricTaken}, 1, []metrics.Label{{Name: "result", Value: result}})
}
