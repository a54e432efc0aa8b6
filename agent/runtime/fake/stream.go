package fake

import (
	"context"
	"fmt"
	"io"
	"sync"

	"ecs/agent/runtime"
)

const (
	// heldBytes is how much of a stream is held for an agent that is not there;
	// when that is full the program waits.
	heldBytes = 256 << 10
	// unknownBytes is how much an agent that was there may have dealt with
	// without having said so.
	unknownBytes = 64 << 10
)

// stream is one output stream of a program: from it to whoever takes it now.
type stream struct {
	mu   sync.Mutex
	to   io.Writer     // nil: there is no agent
	base int64         // the offset of held
	held []byte        // the newest bytes, of which an agent may have some or all
	room chan struct{} // closed when somebody takes what is held
}

func newStream(to io.Writer) *stream { return &stream{to: to, room: make(chan struct{})} }

// write passes p on, and waits while nobody takes it and no more can be held.
func (s *stream) write(ctx context.Context, p []byte) (int, error) {
	for rest := p; ; {
		n, room, err := s.take(rest)
		if rest = rest[n:]; err != nil || len(rest) == 0 {
			return len(p) - len(rest), err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return len(p) - len(rest), ctx.Err()
		}
	}
}

func (s *stream) take(p []byte) (n int, room <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.to == nil {
		n = min(len(p), heldBytes-len(s.held))
		s.held = append(s.held, p[:n]...)
		return n, s.room, nil
	}
	if n, err = s.to.Write(p); err != nil {
		return n, nil, err
	}
	if over := len(s.held) + len(p) - unknownBytes; over > 0 {
		s.base += int64(over)
		kept := min(over, len(s.held))
		s.held = append(s.held[:0], s.held[kept:]...)
		p = p[over-kept:]
	}
	s.held = append(s.held, p...)
	return n, nil, nil
}

// detach makes what comes wait for the next agent.
func (s *stream) detach() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to = nil
}

// attach gives to what comes from the offset on.
func (s *stream) attach(to io.Writer, from int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if end := s.base + int64(len(s.held)); from < 0 || from > end {
		return fmt.Errorf("output is wanted from %d, there is none beyond %d", from, end)
	}
	if from < s.base {
		if skipper, ok := to.(runtime.Skipper); ok {
			skipper.Skip(s.base - from)
		}
		from = s.base
	}
	if _, err := to.Write(s.held[from-s.base:]); err != nil {
		return err
	}
	s.held = append(s.held[:0], s.held[from-s.base:]...) // what the agent has for good
	s.base = from
	s.to = to
	close(s.room)
	s.room = make(chan struct{})
	return nil
}

// until is a stream as a program sees it.
type until struct {
	ctx context.Context
	*stream
}

func (u until) Write(p []byte) (int, error) { return u.write(u.ctx, p) }
