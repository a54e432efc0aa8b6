package dashboard

import "ecs/proto/api"

// waterfall is a bill of time: each part where it began and as wide as it took.
type waterfall struct {
	Parts []billPart
	Total float64 // milliseconds
}

// billPart is one line of it. Begin and Width are of a total of 1000.
type billPart struct {
	Name, Means  string
	MS           float64
	Begin, Width float64
	Tone         string // run: the program itself; gap: between clocks
}

// narrowest is how wide a part is drawn at least, so that it is seen.
const narrowest = 2

// waterfallOf draws the parts in the order in which the time passed. What lies
// between clocks has no place of its own, so it comes last. A part that took
// nothing is listed and not drawn.
func waterfallOf(t *api.Times) *waterfall {
	w := new(waterfall)
	for _, p := range []struct {
		name, means, tone string
		ms                *float64
	}{
		{"accepted", "request read until proposed", "", t.Accepted},
		{"committed", "until on the disks of a majority", "", t.Committed},
		{"queued", "until a node was chosen", "", t.Queued},
		{"placed", "until that was committed", "", t.Placed},
		{"assigned", "until the node had the order", "", t.Assigned},
		{"image", "permission and pull", "", t.Image},
		{"create", "container made", "", t.Create},
		{"start", "until the program ran", "", t.Start},
		{"run", "the program itself", "run", t.Run},
		{"output", "until its last byte was kept", "", t.Output},
		{"reported", "until the result was sent", "", t.Reported},
		{"recorded", "until that was committed", "", t.Recorded},
		{"answered", "until the answer was written", "", t.Answered},
		{"transfer", "between clocks: on the way", "gap", t.Transfer},
	} {
		if p.ms != nil {
			w.Parts = append(w.Parts, billPart{Name: p.name, Means: p.means, MS: *p.ms, Tone: p.tone})
		}
	}
	sum := 0.0
	for _, p := range w.Parts {
		sum += p.MS
	}
	w.Total = sum
	if t.Total != nil {
		w.Total = *t.Total
	}
	scale := max(sum, w.Total)
	if scale <= 0 {
		return w
	}
	at := 0.0
	for i := range w.Parts {
		p := &w.Parts[i]
		p.Begin = at / scale * 1000
		if p.MS > 0 {
			p.Width = min(1000, max(narrowest, p.MS/scale*1000))
			p.Begin = min(p.Begin, 1000-p.Width)
		}
		at += p.MS
	}
	return w
}
