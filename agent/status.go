package agent

import (
	"context"
	"time"
)

// measureEvery is how often gauges are set that nothing else sets.
const measureEvery = 10 * time.Second

// Status is what an Agent says of itself, for people and for health checks.
type Status struct {
	Connected  bool
	Leader     string        // address of the control node that it is connected to
	Term       uint64        // that node's
	Epoch      uint64        // of the present registration; 0: none
	Contact    time.Duration // age of the last contact with a leader
	Running    int           // attempts that have not ended
	Removing   int           // ended attempts whose container is still there
	Unreported int           // results that the leader has not acknowledged
	Unfit      string        // why the node takes nothing; empty: it does
	Images     int
	Handover   Handover // how far the output of a node that leaves has been handed on
}

// Status may be called at any time, from anywhere. Before and after Run it
// tells of no attempts.
func (a *Agent) Status() Status {
	s := Status{Unreported: a.reporter.unacknowledged()}
	s.Epoch, s.Contact = a.lease.state()
	if l := a.session.line.Load(); l != nil {
		s.Connected, s.Leader, s.Term = true, l.addr, l.term
	}
	s.Running, s.Removing = int(a.supervisor.running.Load()), int(a.supervisor.removals.Load())
	p := a.health.present()
	s.Handover = a.handover.status()
	s.Unfit, s.Images = p.unfit, len(p.images)
	return s
}

// measure sets gauges until ctx ends.
func (a *Agent) measure(ctx context.Context) {
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	for {
		s := a.Status()
		unfit := 0
		if s.Unfit != "" {
			unfit = 1
		}
		gauge(a.cfg.Metrics, metricUnfit, unfit)
		gauge(a.cfg.Metrics, metricUnreported, s.Unreported)
		gauge(a.cfg.Metrics, metricContactAge, s.Contact.Milliseconds())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
