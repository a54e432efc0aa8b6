package main

import (
	"slices"
	"testing"
	"time"

	"ecs/internal/initwire"
)

// TestOverhead measures what init adds to a program's time: from the Order to
// the moment it is executed, and from its end to the Exit in the agent's hand.
func TestOverhead(t *testing.T) {
	const times = 30
	var begin, heard, end []time.Duration
	for range times {
		c := start(t)
		s := c.accept(initwire.Position{})
		o := order("true")
		sent := boottime()
		s.send(o)
		s.until(func() bool { return s.started != nil })
		heard = append(heard, boottime()-sent)
		s.finish()
		begin = append(begin, s.exit.Started-sent)
		end = append(end, s.exitAt-s.exit.Ended)
		c.done(s)
	}
	median := func(d []time.Duration) time.Duration { slices.Sort(d); return d[len(d)/2] }
	t.Logf("median (worst) of %d: order to exec %s (%s), to Started here %s (%s), end to Exit here %s (%s)", times,
		median(begin), begin[times-1], median(heard), heard[times-1], median(end), end[times-1])
	if median(begin) > 2*time.Millisecond || median(end) > 2*time.Millisecond {
		t.Errorf("medians: %s before the program, %s after it; want at most 2ms each", median(begin), median(end))
	}
}
