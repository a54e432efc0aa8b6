package place

import "ecs/internal/task"

// stock counts the parked containers that decisions have used up since the
// hints were read.
type stock map[lot]int

// lot are a node's parked containers of one shape.
type lot struct {
	node  task.NodeID
	shape uint64
}

// left is how many containers of the shape are still to be had.
func (st stock) left(s *spot, shape uint64) int {
	return s.parked[shape] - st[lot{s.node.ID, shape}]
}

// park takes what is parked anew, and forgets what was used up of it. It looks
// only at the nodes where something is parked or was.
func (c *cluster) park(parked map[task.NodeID]map[uint64]int) {
	for _, z := range c.zones {
		for _, b := range z.ready { // each is given up alone: the order does not matter
			for _, s := range b.spots {
				s.leave(b)
			}
		}
		clear(z.ready)
		for _, s := range z.parking {
			s.parked = nil
		}
		z.parking = nil
	}
	c.stock = nil
	for id, shapes := range parked { // boards put them in order
		s := c.spots[id]
		if s == nil || len(s.seats) == 0 || len(shapes) == 0 {
			continue // it takes nothing, or has nothing
		}
		s.parked = shapes
		s.zone.parking = append(s.zone.parking, s)
		if c.stock == nil {
			c.stock = make(stock)
		}
	}
}

// shapeOf gives the hash of a task's shape, or 0 where it makes no difference.
func (c *cluster) shapeOf(t *task.Task) uint64 {
	if c.stock == nil {
		return 0 // nothing is parked anywhere
	}
	return t.Spec.Shape().Hash()
}

// use uses up a parked container of the shape, if the node has one left.
func (c *cluster) use(s *spot, shape uint64) {
	if shape == 0 || c.stock.left(s, shape) <= 0 {
		return
	}
	c.stock[lot{s.node.ID, shape}]++
	if b := s.zone.ready[shape]; b != nil && c.stock.left(s, shape) == 0 {
		b.drop(s)
	}
}

// readyFor gives the zone's nodes that have a container of the shape left.
func (z *zone) readyFor(shape uint64, st stock) *board {
	b, ok := z.ready[shape]
	if !ok {
		var spots []*spot
		for _, s := range z.parking {
			if st.left(s, shape) > 0 {
				spots = append(spots, s)
			}
		}
		b = newBoard(spots, z.nodes.steps)
		z.ready[shape] = b
	}
	return b
}
