package api

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"ecs/internal/task"
	"ecs/proto/api"
)

// answering is the answering node's own part of a task's bill. It is known when
// the request that made the task is also the one that is answered.
type answering struct {
	start     time.Time     // the request came
	committed time.Duration // proposed until committed, as this node saw it
	seen      time.Time     // the record had finished
	now       time.Time     // the answer is written
}

// bill says where the time of a finished task went.
//
// Every part is timed by one clock. committed is this node's, queued and placed
// behind it the leader's; both begin when the task is proposed, so what committed
// covers is taken out of those: a task that was placed as it was accepted has
// nothing left of them. What no part explains is transfer.
func bill(t *task.Task, own *answering) (api.Times, time.Duration) {
	b := t.Bill
	parts := []time.Duration{b.Accepted, b.Queued, b.Placed, b.Assigned, b.Image, b.Create, b.Start, b.Run, b.Output, b.Reported}
	total := b.Accepted + b.LeaderTotal
	var times api.Times
	queued, placed := b.Queued, b.Placed
	if own != nil {
		total = own.now.Sub(own.start)
		answered := own.now.Sub(own.seen)
		queued = max(0, b.Queued-own.committed)
		placed = max(0, b.Placed-max(0, own.committed-b.Queued))
		parts = append(parts, queued-b.Queued, placed-b.Placed, own.committed, answered)
		times.Committed, times.Answered = ms(own.committed), ms(answered)
	}
	transfer := total
	for _, part := range parts {
		transfer -= part
	}
	times.Accepted, times.Queued = ms(b.Accepted), ms(queued)
	times.Transfer, times.Total = ms(max(0, transfer)), ms(total)
	if len(t.Attempts) > 0 {
		times.Placed, times.Assigned = ms(placed), ms(b.Assigned)
		times.Image, times.Create, times.Start = ms(b.Image), ms(b.Create), ms(b.Start)
		times.Run, times.Output, times.Reported = ms(b.Run), ms(b.Output), ms(b.Reported)
	}
	return times, max(0, total-b.Run)
}

// ms gives milliseconds with the microseconds behind the point.
func ms(d time.Duration) *float64 {
	f := math.Round(float64(d)/float64(time.Microsecond)) / 1000
	return &f
}

// serverTiming puts the bill into the Server-Timing header, in the order in
// which the time passed.
func serverTiming(w http.ResponseWriter, t api.Times) {
	var entries []string
	for _, part := range []struct {
		name string
		ms   *float64
	}{
		{"accepted", t.Accepted}, {"committed", t.Committed}, {"queued", t.Queued}, {"placed", t.Placed},
		{"assigned", t.Assigned}, {"image", t.Image}, {"create", t.Create}, {"start", t.Start}, {"run", t.Run},
		{"output", t.Output}, {"reported", t.Reported}, {"recorded", t.Recorded}, {"transfer", t.Transfer},
		{"answered", t.Answered}, {"total", t.Total},
	} {
		if part.ms != nil {
			entries = append(entries, fmt.Sprintf("%s;dur=%.3f", part.name, *part.ms))
		}
	}
	w.Header().Set("Server-Timing", strings.Join(entries, ", "))
}
