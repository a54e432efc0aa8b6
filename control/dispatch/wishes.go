package dispatch

import (
	"slices"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

// sharesFor is how long it takes at most until wishes are shared out anew among
// the nodes that take tasks.
const sharesFor = time.Second

// shares say which place a node has among those that take tasks, by id. What is
// wished for is dealt to them in turn, each image's beginning where that before it
// ended.
type shares struct {
	at    time.Time
	rank  map[task.NodeID]int
	first []int // of each wish
	of    []state.Wish
}

// wishes is this node's share of all that is wished for.
func (s *session) wishes() []*ecsv1.Wish {
	sn := s.cfg.Snapshot()
	of := slices.Collect(sn.Wishes())
	if len(of) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.mu.shares.at) >= sharesFor {
		s.mu.shares = newShares(sn, of)
		s.mu.shares.at = now
	}
	return s.mu.shares.deal(s.node)
}

func newShares(sn *state.Snapshot, of []state.Wish) shares {
	sh := shares{rank: map[task.NodeID]int{}, of: of}
	for n := range sn.Nodes() {
		if n.Takes() {
			sh.rank[n.ID] = len(sh.rank)
		}
	}
	next := 0
	for _, w := range of {
		sh.first = append(sh.first, next)
		next += w.Count
	}
	return sh
}

// deal gives the share of a node.
func (sh *shares) deal(node task.NodeID) []*ecsv1.Wish {
	rank, takes := sh.rank[node]
	if !takes {
		return nil
	}
	var mine []*ecsv1.Wish
	n := len(sh.rank)
	for i, w := range sh.of {
		share := w
		if share.Count = w.Count / n; (rank-sh.first[i]%n+n)%n < w.Count%n {
			share.Count++
		}
		if share.Count > 0 {
			mine = append(mine, state.FromWish(share))
		}
	}
	return mine
}

// Room is how much of all that is wished for there is room for on the nodes that take
// tasks.
type Room struct {
	Nodes  int
	Off    int // of them, park nothing
	Wished int // containers
	Fits   int // of them, at most: what tasks of late asked for takes room, too
}

// RoomFor counts it. A node that does not say how many containers it may park has room
// for its share.
func RoomFor(sn *state.Snapshot) Room {
	sh := newShares(sn, slices.Collect(sn.Wishes()))
	room := Room{Nodes: len(sh.rank)}
	for _, w := range sh.of {
		room.Wished += w.Count
	}
	for n := range sn.Nodes() {
		rank, takes := sh.rank[n.ID]
		if !takes {
			continue
		}
		share := (room.Wished + room.Nodes - 1 - rank) / room.Nodes // of all wishes, which deal them in turn
		if slots, known := n.WarmSlots(); known {
			share = min(share, slots)
			if slots == 0 {
				room.Off++
			}
		}
		room.Fits += share
	}
	return room
}
