package docker

import "sync"

const (
	// queueLimit is how many bytes wait for a sink before the reading stops.
	// The writer may hold as many again.
	queueLimit = 1 << 20
	// queueKept is the largest buffer that is used again.
	queueKept = 64 << 10
)

// piece says whose the next n bytes of a batch are.
type piece struct {
	to *drain
	n  int
}

// batch is output in the order in which it came.
type batch struct {
	data   []byte
	pieces []piece
}

// queue stands between the reader of a stream and the writer to its sinks, so
// that the reading goes on while a disk is slow.
type queue struct {
	mu      sync.Mutex
	changed sync.Cond // the batch or closed
	batch   batch
	closed  bool
}

func newQueue() *queue {
	q := &queue{}
	q.changed.L = &q.mu
	return q
}

// put takes a copy of b for to, once there is room. One goroutine calls it.
func (q *queue) put(to *drain, b []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.batch.data) > 0 && len(q.batch.data)+len(b) > queueLimit {
		q.changed.Wait()
	}
	q.batch.data = append(q.batch.data, b...)
	if last := len(q.batch.pieces) - 1; last >= 0 && q.batch.pieces[last].to == to {
		q.batch.pieces[last].n += len(b)
	} else {
		q.batch.pieces = append(q.batch.pieces, piece{to, len(b)})
	}
	q.changed.Signal()
}

// close says that no more is put.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Signal()
}

// drainAll passes everything on until the queue is closed and empty.
func (q *queue) drainAll() {
	var spare batch
	for {
		q.mu.Lock()
		for len(q.batch.pieces) == 0 && !q.closed {
			q.changed.Wait()
		}
		now := q.batch
		q.batch = spare
		q.changed.Signal() // there is room
		q.mu.Unlock()
		if len(now.pieces) == 0 {
			return
		}
		rest := now.data
		for _, p := range now.pieces {
			p.to.pass(rest[:p.n])
			rest = rest[p.n:]
		}
		spare = batch{}
		if cap(now.data) <= queueKept {
			spare = batch{now.data[:0], now.pieces[:0]}
		}
	}
}
