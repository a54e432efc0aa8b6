package attach

import (
	"sync"

	"ecs/proto/api"
)

// typed is what was sent and not taken, so that it can be sent again over the
// next connection.
type typed struct {
	poke chan struct{} // one slot: there is more to send
	room chan struct{} // one slot: Write may go on
	over chan struct{} // closed when the session has ended

	mu      sync.Mutex
	base    int64 // offset of rest
	rest    []byte
	end     bool
	closed  bool // the program takes nothing
	done    bool // over is closed
	size    *api.TerminalSize
	moved   bool // size was not sent over this connection
	signals []string
	sent    int  // of rest, over this connection
	endSent bool // likewise
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (t *typed) change(f func(*typed)) {
	t.mu.Lock()
	f(t)
	t.mu.Unlock()
	wake(t.poke)
}

// begin makes everything that was not taken ready to be sent again, and says
// where that begins.
func (t *typed) begin() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent, t.endSent, t.moved = 0, false, t.size != nil
	return t.base
}

func (t *typed) finish() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.done {
		t.done = true
		close(t.over)
	}
}

func (t *typed) write(p []byte) (n int, err error) {
	for n < len(p) {
		t.mu.Lock()
		if t.closed || t.end || t.done {
			t.mu.Unlock()
			return n, ErrClosed
		}
		fits := min(len(p)-n, api.AttachWindow-len(t.rest))
		t.rest = append(t.rest, p[n:n+fits]...)
		t.mu.Unlock()
		n += fits
		if fits > 0 {
			wake(t.poke)
			continue
		}
		select {
		case <-t.room:
		case <-t.over:
		}
	}
	return n, nil
}

// heard notes what the service says of the input. It reports whether more was
// taken, and whether it has just been closed.
func (t *typed) heard(s api.AttachStdin) (more, closed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(max(0, s.Taken-t.base), int64(len(t.rest)))
	t.rest, t.base, t.sent = t.rest[n:], t.base+n, max(0, t.sent-int(n))
	closed = s.Closed && !t.closed
	t.closed = s.Closed
	if s.Closed {
		t.rest, t.sent, t.base = nil, 0, max(t.base, s.Taken)
	}
	wake(t.room)
	return n > 0, closed
}

// next takes the next message to send, or nil.
func (t *typed) next() ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.moved:
		t.moved = false
		return (&api.AttachMessage{Resize: t.size}).Encode()
	case len(t.signals) > 0:
		name := t.signals[0]
		t.signals = t.signals[1:]
		return (&api.AttachMessage{Signal: name}).Encode()
	case t.closed:
		return nil, nil
	case t.sent < len(t.rest):
		piece := t.rest[t.sent:min(len(t.rest), t.sent+api.AttachPiece)]
		t.sent += len(piece)
		return append([]byte{api.ChannelStdin}, piece...), nil
	case t.end && !t.endSent:
		t.endSent = true
		return (&api.AttachMessage{CloseStdin: true}).Encode()
	}
	return nil, nil
}
