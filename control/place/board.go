package place

import (
	"cmp"
	"math"
	"slices"

	"ecs/internal/task"
)

// spot is a node with what is reserved on it.
type spot struct {
	node   *task.Node
	zone   *zone
	rank   int // among the zone's nodes by ID
	egress bool
	images map[string]bool // that its engine holds
	parked map[uint64]int  // see Hints
	held   task.Capacity   // decided, and not in the node's record
	free   task.Capacity
	share  float64 // reserved of capacity, of whichever resource is scarcer
	seats  []seat  // on every board that it is on
}

// seat is a spot's place on a board.
type seat struct {
	board *board
	leaf  int
}

// count sets what depends on the reservations.
func (s *spot) count() {
	whole := s.node.Capacity
	reserved := task.Capacity{MilliCPU: s.node.Reserved.MilliCPU + s.held.MilliCPU, Memory: s.node.Reserved.Memory + s.held.Memory}
	s.free = task.Capacity{MilliCPU: whole.MilliCPU - reserved.MilliCPU, Memory: whole.Memory - reserved.Memory}
	s.share = max(share(reserved.MilliCPU, whole.MilliCPU), share(reserved.Memory, whole.Memory))
}

// leave gives up the spot's seat on a board that is used no more.
func (s *spot) leave(b *board) {
	s.seats = slices.DeleteFunc(s.seats, func(at seat) bool { return at.board == b })
}

func share(part, whole int64) float64 {
	if whole <= 0 {
		return 1
	}
	return float64(part) / float64(whole)
}

// query is one search for a node with room.
type query struct {
	need
	pack  bool          // the fullest instead of the emptiest
	shape uint64        // the hash of the task's; 0: no container is parked anywhere
	avoid []task.NodeID // few
}

// board finds the best of some nodes with room, in about the logarithm of their
// number: a segment tree whose inner nodes bound what is below them.
type board struct {
	spots []*spot // the leaves
	steps *int    // see Planner.Steps
	tree  []bound // tree[1] is the root, those of i are 2i and 2i+1
	first int     // tree[first+i] is that of spots[i]
}

// bound says what the nodes below can offer at best.
type bound struct {
	cpu, memory       int64 // the most that is free
	emptiest, fullest score // the best there is, whether or not it has room
	egress            bool
}

// score orders nodes for a search, the less the better: by share, or by its
// opposite to have the fullest first, and then by rank.
type score struct {
	share float64
	rank  int
}

func (a score) less(b score) bool { return a.share < b.share || a.share == b.share && a.rank < b.rank }

// nothing bounds no nodes at all.
func nothing() bound {
	worst := score{share: math.Inf(1), rank: math.MaxInt}
	return bound{cpu: math.MinInt64, memory: math.MinInt64, emptiest: worst, fullest: worst}
}

// newBoard makes a board of nodes of one zone. Alike nodes lie beside each
// other, so that whole stretches that are too small are passed over at once.
func newBoard(spots []*spot, steps *int) *board {
	spots = slices.Clone(spots)
	slices.SortFunc(spots, compareSpots)
	b := &board{spots: spots, steps: steps, first: 1}
	for b.first < len(spots) {
		b.first *= 2
	}
	b.tree = make([]bound, 2*b.first)
	for i := range b.first {
		b.tree[b.first+i] = nothing()
		if i < len(spots) {
			b.tree[b.first+i] = boundOf(spots[i])
			spots[i].seats = append(spots[i].seats, seat{board: b, leaf: i})
		}
	}
	for i := b.first - 1; i > 0; i-- {
		b.tree[i] = join(&b.tree[2*i], &b.tree[2*i+1])
	}
	return b
}

func compareSpots(a, b *spot) int {
	if a.egress != b.egress {
		if a.egress {
			return 1
		}
		return -1
	}
	return cmp.Or(
		cmp.Compare(a.node.Capacity.MilliCPU, b.node.Capacity.MilliCPU),
		cmp.Compare(a.node.Capacity.Memory, b.node.Capacity.Memory),
		cmp.Compare(a.rank, b.rank),
	)
}

func boundOf(s *spot) bound {
	return bound{
		cpu:      s.free.MilliCPU,
		memory:   s.free.Memory,
		emptiest: score{share: s.share, rank: s.rank},
		fullest:  score{share: -s.share, rank: s.rank},
		egress:   s.egress,
	}
}

func join(a, b *bound) bound {
	both := bound{
		cpu:      max(a.cpu, b.cpu),
		memory:   max(a.memory, b.memory),
		emptiest: a.emptiest,
		fullest:  a.fullest,
		egress:   a.egress || b.egress,
	}
	if b.emptiest.less(a.emptiest) {
		both.emptiest = b.emptiest
	}
	if b.fullest.less(a.fullest) {
		both.fullest = b.fullest
	}
	return both
}

// update takes note of the new reservation of the spot at a leaf.
func (b *board) update(leaf int) { b.set(leaf, boundOf(b.spots[leaf])) }

// drop takes a spot off the board for good, if it is on it.
func (b *board) drop(s *spot) {
	for _, at := range s.seats {
		if at.board == b {
			b.set(at.leaf, nothing())
		}
	}
	s.leave(b)
}

func (b *board) set(leaf int, to bound) {
	i := b.first + leaf
	b.tree[i] = to
	for i /= 2; i > 0; i /= 2 {
		*b.steps++
		next := join(&b.tree[2*i], &b.tree[2*i+1])
		if next == b.tree[i] {
			return // what is above it does not change either
		}
		b.tree[i] = next
	}
}

// best gives the best node with room, or nil.
func (b *board) best(q query) *spot { return b.under(1, q, nil) }

// under gives the better of best and what is below tree[i].
func (b *board) under(i int, q query, best *spot) *spot {
	*b.steps++
	if !b.tree[i].may(q, best) {
		return best
	}
	if i >= b.first {
		if s := b.spots[i-b.first]; !slices.Contains(q.avoid, s.node.ID) {
			return s
		}
		return best
	}
	near, far := 2*i, 2*i+1
	if b.tree[far].score(q).less(b.tree[near].score(q)) {
		near, far = far, near
	}
	return b.under(far, q, b.under(near, q, best))
}

// may reports whether something better than best may be below. On a leaf it is
// exact.
func (b *bound) may(q query, best *spot) bool {
	if b.cpu < q.cpu || b.memory < q.memory || q.egress && !b.egress {
		return false
	}
	return best == nil || b.score(q).less(best.score(q))
}

func (b *bound) score(q query) score {
	if q.pack {
		return b.fullest
	}
	return b.emptiest
}

func (s *spot) score(q query) score {
	if q.pack {
		return score{share: -s.share, rank: s.rank}
	}
	return score{share: s.share, rank: s.rank}
}
