package control

import (
	"cmp"
	"context"
	"slices"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
)

const (
	// How long nodes that left, and nodes that were lost, stay in the record for
	// people to see. It is counted by the leader, from when it began to lead.
	forgetLeft = 10 * time.Minute
	forgetLost = 24 * time.Hour
	// mostGone bounds them whatever their age.
	mostGone = 500
	// lookForGone is how often they are looked for.
	lookForGone = 30 * time.Second
	// forgetAtMost bounds the nodes of one command.
	forgetAtMost = 100
)

// forgetGone drops the records of nodes that are gone for good, while this node
// leads.
func (s *Server) forgetGone(ctx context.Context) error {
	seen := make(gone)
	tick := time.NewTicker(lookForGone)
	defer tick.Stop()
	for {
		if due := seen.due(s.store.Snapshot(), time.Now()); len(due) > 0 {
			if err := s.command(ctx, state.ForgetNodes{Nodes: due}, "forget nodes that are gone"); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// gone remembers since when nodes have been gone, by registration.
type gone map[state.GoneNode]time.Time

// due gives those to forget now: they hold nothing and have been gone for long,
// or there are too many, then the oldest.
func (g gone) due(sn *state.Snapshot, now time.Time) (due []state.GoneNode) {
	var waiting []state.GoneNode
	present := make(map[state.GoneNode]bool)
	for n := range sn.Nodes() {
		if n.Status != task.Left && n.Status != task.Lost || n.Attempts > 0 {
			continue
		}
		node := state.GoneNode{Node: n.ID, Epoch: n.Epoch}
		present[node] = true
		since, known := g[node]
		if !known {
			since = now
			g[node] = now
		}
		after := forgetLost
		if n.Status == task.Left {
			after = forgetLeft
		}
		if now.Sub(since) >= after {
			due = append(due, node)
		} else {
			waiting = append(waiting, node)
		}
	}
	for node := range g {
		if !present[node] {
			delete(g, node)
		}
	}
	if over := len(waiting) - mostGone; over > 0 {
		slices.SortFunc(waiting, func(a, b state.GoneNode) int { return cmp.Compare(a.Epoch, b.Epoch) })
		due = append(due, waiting[:over]...)
	}
	return due[:min(len(due), forgetAtMost)]
}
