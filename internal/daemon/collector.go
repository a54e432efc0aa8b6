package daemon

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// busyAllocation, in bytes a second, is far above what an idle daemon does.
	busyAllocation = 16 << 20
	// mostPercent bounds GOGC whatever the heap.
	mostPercent = 800
)

// RelaxCollector lets the heap of a busy process grow to floor bytes before it
// is collected, until ctx ends. A small heap would be collected many times a
// second at Go's default of twice what is live; an idle process stays small, and
// with more than half of floor live it is as by default.
func RelaxCollector(ctx context.Context, floor uint64) {
	usual := debug.SetGCPercent(100)
	debug.SetGCPercent(usual)
	defer debug.SetGCPercent(usual)
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	metrics.Read(samples)
	last, now := samples[0].Value.Uint64(), usual
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		metrics.Read(samples)
		allocated, live := samples[0].Value.Uint64(), samples[1].Value.Uint64()
		want := percent(usual, allocated-last, live, floor)
		if want != now {
			debug.SetGCPercent(want)
			now = want
		}
		last = allocated
	}
}

// percent is GOGC for a process that allocated so much in a second.
func percent(usual int, allocated, live, floor uint64) int {
	if usual < 0 || allocated < busyAllocation {
		return usual
	}
	// Steps, so that it is not set anew for every change of the heap.
	for p := mostPercent; p > usual; p /= 2 {
		if live+live*uint64(p)/100 <= floor {
			return p
		}
	}
	return usual
}
