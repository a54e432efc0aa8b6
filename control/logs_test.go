package control

import (
	"testing"

	"ecs/control/api"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

// A node that answers with more than it was asked for shows nobody what is not his.
func TestLinesThatWereNotAskedForAreLeftOut(t *testing.T) {
	lines := [][]byte{
		[]byte(`{"time":"2026-01-01T00:00:01Z","cid":"c","owner":"alice","msg":"hers"}`),
		[]byte(`{"time":"2026-01-01T00:00:02Z","cid":"c","owner":"bob","msg":"his"}`),
		[]byte(`{"time":"2026-01-01T00:00:03Z","cid":"d","owner":"alice","msg":"of another request"}`),
		[]byte(`{"time":"2026-01-01T00:00:04Z","cid":"c","task":"hers","msg":"of her task"}`),
		[]byte(`{"time":"2026-01-01T00:00:05Z","cid":"c","task":"his","msg":"of his task"}`),
		[]byte(`{"time":"2026-01-01T00:00:06Z","cid":"c","msg":"of nobody"}`),
		[]byte(`rubbish`),
	}
	for owner, want := range map[string]int{"alice": 2, "": 5} {
		g := gathering{search: api.LogSearch{CID: "c", Owner: owner, Lines: 100}, own: func(id task.ID) bool { return id == "hers" || owner == "" }}
		g.take(source{id: "a1"}, &ecsv1.LogAnswer{Lines: lines}, nil)
		if found := g.result(); len(found.Lines) != want {
			t.Errorf("%q: got %q, want %d lines", owner, found.Lines, want)
		}
	}
}
