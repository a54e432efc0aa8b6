package docker

import (
	"context"
	"errors"
	"sync"

	"ecs/agent/runtime"
	"ecs/internal/initwire"
)

// input is what a program's standard input was given and has not read yet: as
// much as init takes, and kept until the program has it, so that it can be sent
// again on the next connection.
type input struct {
	mu struct {
		sync.Mutex
		open   bool  // the order has a stream for it
		base   int64 // up to where the program has it
		kept   []byte
		eof    bool
		closed bool          // the program reads no more
		line   *line         // nil while there is no connection
		moved  chan struct{} // closed when there is room, or never will be
	}
}

func newInput(open bool, first int64) *input {
	i := &input{}
	i.mu.open, i.mu.base, i.mu.moved = open, first, make(chan struct{})
	return i
}

// put sends p and says how much of it, or gives what to wait for. What fits into
// the window is taken whole or not at all: a caller who gives up while waiting, or
// gets an error, must know which.
func (i *input) put(p []byte, eof bool) (n int, wait <-chan struct{}, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.mu.open || i.mu.eof || i.mu.closed {
		return 0, nil, runtime.ErrNoInput
	}
	n = min(len(p), initwire.Window-len(i.mu.kept))
	if n < len(p) && len(p) <= initwire.Window {
		return 0, i.mu.moved, nil
	}
	if n > 0 {
		at := i.mu.base + int64(len(i.mu.kept))
		piece := append([]byte(nil), p[:n]...)
		if err := i.tell(func(l *line) error { return l.input(at, piece) }); err != nil {
			return 0, nil, err
		}
		i.mu.kept = append(i.mu.kept, piece...)
	}
	if n < len(p) {
		return n, i.mu.moved, nil
	}
	if eof {
		if err := i.tell(func(l *line) error { return l.send(initwire.StdinClose{}) }); err != nil {
			return n, nil, err
		}
		i.mu.eof = true
	}
	return n, nil, nil
}

// tell sends something if there is a connection. What a broken one does not take
// goes out with the next.
func (i *input) tell(send func(*line) error) error {
	if i.mu.line == nil {
		return nil
	}
	err := send(i.mu.line)
	if errors.Is(err, errHungUp) {
		return nil
	}
	return err
}

// attach goes on with the first connection, detach without one.
func (i *input) attach(l *line) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.mu.line = l
}

func (i *input) detach() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.mu.line = nil
}

// taken notes up to where the program has it.
func (i *input) taken(t initwire.StdinTaken) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if n := t.Offset - i.mu.base; n > 0 {
		i.mu.base = t.Offset
		i.mu.kept = i.mu.kept[min(n, int64(len(i.mu.kept))):]
	}
	i.mu.closed = i.mu.closed || t.Closed
	i.movedLocked()
}

// end says that nothing reads any more.
func (i *input) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.mu.closed = true
	i.movedLocked()
}

func (i *input) movedLocked() {
	close(i.mu.moved)
	i.mu.moved = make(chan struct{})
}

// resume sends on a new connection what was lost with the last one. has is up
// to where init has it.
func (i *input) resume(l *line, has int64) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.mu.line = l
	end := i.mu.base + int64(len(i.mu.kept))
	if has >= end { // another process of this agent gave it that
		i.mu.base, i.mu.kept = has, nil
	} else if lost := i.mu.kept[max(0, has-i.mu.base):]; len(lost) > 0 {
		if err := l.input(max(has, i.mu.base), append([]byte(nil), lost...)); err != nil {
			return err
		}
	}
	if i.mu.eof {
		return l.send(initwire.StdinClose{})
	}
	return nil
}

// Input implements runtime.Container.
func (c *attempt) Input(ctx context.Context, p []byte, eof bool) error {
	for {
		n, wait, err := c.input.put(p, eof)
		if err != nil || wait == nil {
			return err
		}
		p = p[n:]
		select {
		case <-wait:
		case <-c.over:
			return runtime.ErrNoInput
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
