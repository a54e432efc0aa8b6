// Package place chooses a node for each pending task, and says in a sentence
// why one waits.
//
// It is pure: the same snapshot and hints give the same answer. It starts no
// goroutine, reads no clock and knows nothing of raft or gRPC. What it decides
// is a proposal; state.Place checks each decision again when it is applied.
//
// The rules, in order:
//
//  1. A node must take tasks, not be under suspicion, lie in one of the task's
//     zones, have what the task's network needs, and have room.
//  2. A node where an attempt of the task was lost or failed is used last, a zone
//     where a node was lost under it second to last.
//  3. The zone with the fewest live attempts among those with such a node.
//  4. Inside it, and among equal zones: a node where a container is parked that
//     the task can have, then one that holds the image, then the emptiest node, or
//     the fullest where the task asks to be packed, then the lowest ID.
package place

import (
	"slices"
	"strings"

	"ecs/control/state"
	"ecs/internal/task"
)

// Hints are what the leader knows beside the record. They may be out of date.
type Hints struct {
	// Images are the references that a node's engine holds.
	Images map[task.NodeID]map[string]bool
	// Parked is how many containers wait for a task on a node, by the hash of
	// their shape.
	Parked map[task.NodeID]map[uint64]int
	// Avoid are the nodes that gossip suspects: nothing new is placed there.
	Avoid map[task.NodeID]bool
}

// Place decides for all pending tasks in the order of the queue, at most max of
// them (0: no bound), as if each decision had been carried out before the next.
// A task that fits nowhere holds up nobody behind it. Queued is left for the
// caller to fill.
func Place(sn *state.Snapshot, h Hints, max int) []state.Decision {
	if sn.Counts().Pending == 0 {
		return nil // without a look at the nodes
	}
	return NewPlanner(sn, h).Place(max)
}

// cluster is the snapshot's nodes with the reservations that are not in it yet.
type cluster struct {
	zones []*zone // by live attempts, then name
	spots map[task.NodeID]*spot
	stock stock
	steps *int // see Planner.Steps
}

// zone is one zone's nodes.
type zone struct {
	name  string
	live  int    // attempts on all of its nodes, also those that take nothing new
	nodes *board // those that may be given tasks
	// holding are the nodes that hold an image, made when one is asked for.
	holding map[string]*board
	// parking are those where containers are parked, and ready those of them
	// that have one of a shape, made when one is asked for.
	parking []*spot
	ready   map[uint64]*board
	// full are requests that found no room, and need not be tried again until
	// some is given back.
	full map[need]bool
}

// need is what decides whether a node has room for a task.
type need struct {
	cpu, memory int64
	egress      bool
}

func needOf(s *task.Spec) need {
	return need{
		cpu:    s.Resources.MilliCPU,
		memory: s.Resources.Memory,
		egress: s.Network == task.NetworkEgress,
	}
}

func newCluster(sn *state.Snapshot, h Hints, steps *int) *cluster {
	c := &cluster{spots: make(map[task.NodeID]*spot), steps: steps}
	byName := make(map[string]*zone)
	spots := make(map[*zone][]*spot)
	for n := range sn.Nodes() {
		z := byName[n.Zone]
		if z == nil {
			z = &zone{name: n.Zone, holding: make(map[string]*board), ready: make(map[uint64]*board), full: make(map[need]bool)}
			byName[n.Zone] = z
			c.zones = append(c.zones, z)
		}
		z.live += n.Attempts
		s := &spot{node: n, zone: z, rank: len(spots[z]), egress: hasEgress(n), images: h.Images[n.ID]}
		s.count()
		c.spots[n.ID] = s
		if n.Takes() && !h.Avoid[n.ID] {
			spots[z] = append(spots[z], s)
		}
	}
	for _, z := range c.zones {
		z.nodes = newBoard(spots[z], steps)
	}
	slices.SortFunc(c.zones, compareZones)
	c.park(h.Parked)
	return c
}

func compareZones(a, b *zone) int {
	if a.live != b.live {
		return a.live - b.live
	}
	return strings.Compare(a.name, b.name)
}

func hasEgress(n *task.Node) bool { return n.Attributes[task.AttributeEgress] == "true" }

// choose finds the best node for a task of a shape, or nil.
func (c *cluster) choose(t *task.Task, shape uint64) *spot {
	q := query{need: needOf(&t.Spec), pack: t.Spec.Placement.Spread == task.BinPack, shape: shape}
	zones, nodes := bereft(t)
	if len(nodes) == 0 {
		return c.search(t, q, nil)
	}
	q.avoid = nodes
	if s := c.search(t, q, zones); s != nil {
		return s
	}
	if s := c.search(t, q, nil); s != nil {
		return s
	}
	q.avoid = nil
	return c.search(t, q, nil)
}

// bereft gives where earlier attempts of the task did not come to a good end: the
// nodes, and the zones that lost a node under it. An engine that takes a container
// away, or a program that fails, says nothing about the zone.
func bereft(t *task.Task) (zones []string, nodes []task.NodeID) {
	for _, a := range t.Attempts {
		nodes = append(nodes, a.Node)
		if a.Outcome == task.NodeLost {
			zones = append(zones, a.Zone)
		}
	}
	return zones, nodes
}

// search finds the best node outside the avoided zones.
func (c *cluster) search(t *task.Task, q query, avoid []string) *spot {
	allowed := t.Spec.Placement.Zones
	var best candidate
	for _, z := range c.zones {
		if best.spot != nil && z.live > best.spot.zone.live {
			break // zones are in order: only busier ones follow
		}
		if len(allowed) > 0 && !slices.Contains(allowed, z.name) || slices.Contains(avoid, z.name) {
			continue
		}
		if found := z.search(t.Spec.Image, q, c.stock); found.spot != nil && found.before(best, q.pack) {
			best = found
		}
	}
	return best.spot
}

// candidate is the best node of one zone.
type candidate struct {
	spot    *spot
	ready   bool // a container
	holding bool // the image
}

// before reports whether a is better than b, the best of an equally busy zone.
func (a candidate) before(b candidate, pack bool) bool {
	switch {
	case b.spot == nil:
		return true
	case a.ready != b.ready:
		return a.ready
	case a.holding != b.holding:
		return a.holding
	case a.spot.share != b.spot.share:
		return (a.spot.share < b.spot.share) != pack
	}
	return a.spot.node.ID < b.spot.node.ID
}

// search finds the zone's best node for a request.
func (z *zone) search(image string, q query, left stock) candidate {
	if z.full[q.need] {
		return candidate{}
	}
	if q.shape != 0 {
		if s := z.readyFor(q.shape, left).best(q); s != nil {
			return candidate{spot: s, ready: true, holding: true}
		}
	}
	if s := z.holders(image).best(q); s != nil {
		return candidate{spot: s, holding: true}
	}
	s := z.nodes.best(q)
	if s == nil && len(q.avoid) == 0 {
		z.full[q.need] = true
	}
	return candidate{spot: s}
}

// holders gives the zone's nodes that hold the image.
func (z *zone) holders(image string) *board {
	b, ok := z.holding[image]
	if !ok {
		var spots []*spot
		for _, s := range z.nodes.spots {
			if s.images[image] {
				spots = append(spots, s)
			}
		}
		b = newBoard(spots, z.nodes.steps)
		z.holding[image] = b
	}
	return b
}

// take carries a decision out.
func (c *cluster) take(s *spot, r task.Resources) {
	s.held.MilliCPU += r.MilliCPU
	s.held.Memory += r.Memory
	c.recount(s, 1)
}

// giveBack undoes take.
func (c *cluster) giveBack(s *spot, r task.Resources) {
	s.held.MilliCPU -= r.MilliCPU
	s.held.Memory -= r.Memory
	clear(s.zone.full)
	c.recount(s, -1)
}

// record takes a node's newer record, of which only what is reserved differs.
func (c *cluster) record(s *spot, n *task.Node) {
	more := n.Attempts - s.node.Attempts
	s.node = n
	clear(s.zone.full)
	c.recount(s, more)
}

// recount brings up to date what depends on a node's reservations, with so many
// attempts more in its zone.
func (c *cluster) recount(s *spot, more int) {
	s.count()
	for _, at := range s.seats {
		at.board.update(at.leaf)
	}
	s.zone.live += more
	// Keep the zones in order: only this one has moved.
	i := slices.Index(c.zones, s.zone)
	for ; i+1 < len(c.zones) && compareZones(c.zones[i], c.zones[i+1]) > 0; i++ {
		c.zones[i], c.zones[i+1] = c.zones[i+1], c.zones[i]
	}
	for ; i > 0 && compareZones(c.zones[i-1], c.zones[i]) > 0; i-- {
		c.zones[i-1], c.zones[i] = c.zones[i], c.zones[i-1]
	}
}
