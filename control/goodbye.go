package control

import "sync"

// goodbye is where leaves are asked for, one at a time.
type goodbye struct {
	asked chan *farewell // one slot
	done  chan struct{}  // closed at the end of Run
	mu    struct {
		sync.Mutex
		busy bool // a leave is under way, or the node stops
	}
	// Set by Run's goroutines, to be read once done is closed.
	err  error
	left bool // it is no member any more
}

// farewell is a leave that was asked for.
type farewell struct {
	force bool
	say   func(string)
	off   chan struct{} // closed when it is called off
	err   error         // why, once off is closed
}

func newGoodbye() goodbye {
	return goodbye{asked: make(chan *farewell, 1), done: make(chan struct{})}
}

// begin reports false when a leave is under way, or the node stops.
func (g *goodbye) begin(force bool, say func(string)) (*farewell, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.busy {
		return nil, false
	}
	g.mu.busy = true
	if say == nil {
		say = func(string) {}
	}
	f := &farewell{force: force, say: say, off: make(chan struct{})}
	g.asked <- f
	return f, true
}

// callOff ends a leave whose node stays. Another may begin.
func (g *goodbye) callOff(f *farewell, why error) {
	f.err = why
	g.mu.Lock()
	g.mu.busy = false
	g.mu.Unlock()
	close(f.off)
}

// refuse lets no leave begin any more: the node stops, and stays a member.
func (g *goodbye) refuse() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.busy = true
}

// outcome is what a leave came to that was not called off, once done is closed.
func (g *goodbye) outcome() error {
	if g.err == nil && !g.left {
		return errStopping // before its turn came
	}
	return g.err
}

// Left reports, once Run has returned, whether this node left the cluster for
// good: what it has of the log is of no use any more.
func (s *Server) Left() bool {
	select {
	case <-s.goodbye.done:
		return s.goodbye.left
	default:
		return false
	}
}
