package main

import (
	"slices"
	"testing"
	"time"

	"ecs/internal/initwire"
)

// BenchmarkOverhead measures what init adds to a program's time: from the Order
// to the moment it is executed, and from its end to the Exit in the agent's hand.
func BenchmarkOverhead(b *testing.B) {
	var begin, heard, end []time.Duration
	for b.Loop() {
		c := start(b)
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
	for unit, all := range map[string][]time.Duration{"order-to-exec-ms": begin, "order-to-Started-ms": heard, "end-to-Exit-ms": end} {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, unit)
	}
}
