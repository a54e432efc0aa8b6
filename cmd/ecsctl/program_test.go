package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"ecs/proto/api"
)

// program is a task's program with a control node in front of it, as far as
// those who attach can tell.
type program struct {
	t       *testing.T
	service *service
	// reads is called, one at a time, with what came in by now; end says that
	// nothing follows. It gives what the program prints then, and whether it
	// ends with that.
	reads func(all string, end bool) (prints string, exits bool)
	// drops is how many connections are cut after their first input was taken
	// and before that was said.
	drops int
	// waiting: it has not begun, and why.
	waiting string

	mu      sync.Mutex
	in      string
	ended   bool
	out     string
	exited  bool
	changed chan struct{}
	queries []string
	control []string // resizes and signals
}

// runs gives the service's task a program. Like all programs of these tests it
// is attached to and not listened to by events.
func (s *service) runs(t *testing.T, reads func(all string, end bool) (string, bool)) *program {
	s.program = &program{t: t, service: s, reads: reads, changed: make(chan struct{})}
	return s.program
}

// print adds output from outside.
func (p *program) print(text string, exits bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.printed(text, exits)
}

func (p *program) printed(text string, exits bool) {
	p.out += text
	if exits && !p.exited {
		p.exited = true
		p.service.mu.Lock()
		p.service.state = api.StateFinished
		p.service.mu.Unlock()
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *program) typed() (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.in, p.ended
}

func (p *program) told() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.control...)
}

func (p *program) serve(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{api.AttachProtocol}})
	if err != nil {
		p.t.Error(err)
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 + api.AttachPiece)
	number := func(name string) int {
		n, _ := strconv.Atoi(r.URL.Query().Get(name))
		return n
	}
	p.mu.Lock()
	p.queries = append(p.queries, r.URL.RawQuery)
	p.mu.Unlock()
	ctx, cancel := context.WithCancel(r.Context())
	acks := make(chan api.AttachStdin, 100)
	var reading sync.WaitGroup
	reading.Go(func() { defer cancel(); p.listen(ctx, conn, number("stdin"), acks) })
	defer reading.Wait()
	defer cancel()
	p.talk(ctx, conn, number("stdout"), acks)
}

// listen takes what the caller sends.
func (p *program) listen(ctx context.Context, conn *websocket.Conn, offset int, acks chan<- api.AttachStdin) {
	for {
		_, b, err := conn.Read(ctx)
		if err != nil {
			return
		}
		p.mu.Lock()
		if b[0] == api.ChannelControl {
			var m api.AttachMessage
			if err := json.Unmarshal(b[1:], &m); err != nil {
				p.t.Error(err)
			}
			if !m.CloseStdin {
				p.control = append(p.control, string(b[1:]))
				p.mu.Unlock()
				continue
			}
			p.ended = true
		}
		if data := string(b[1:]); b[0] == api.ChannelStdin {
			if offset > len(p.in) {
				p.t.Errorf("input at %d does not follow %d", offset, len(p.in))
			}
			p.in += data[min(len(p.in)-offset, len(data)):]
			offset += len(data)
		}
		dropped := p.drops > 0
		if dropped {
			p.drops--
		}
		if p.reads != nil {
			p.printed(p.reads(p.in, p.ended))
		}
		ack := api.AttachStdin{Taken: int64(offset), Ended: p.ended}
		p.mu.Unlock()
		if dropped {
			_ = conn.CloseNow()
			return
		}
		acks <- ack
	}
}

// talk tells the caller everything.
func (p *program) talk(ctx context.Context, conn *websocket.Conn, offset int, acks <-chan api.AttachStdin) {
	control := func(m api.AttachMessage) error {
		b, err := m.Encode()
		if err != nil {
			p.t.Error(err)
		}
		return conn.Write(ctx, websocket.MessageBinary, b)
	}
	if p.waiting != "" {
		_ = control(api.AttachMessage{State: &api.AttachState{State: api.StatePending, WaitingBecause: p.waiting}})
	} else {
		_ = control(api.AttachMessage{State: &api.AttachState{State: api.StateRunning}})
		_ = control(api.AttachMessage{Attempt: 1})
	}
	for {
		p.mu.Lock()
		out, exited, changed := p.out, p.exited, p.changed
		p.mu.Unlock()
		if len(out) > offset {
			if conn.Write(ctx, websocket.MessageBinary, append([]byte{api.ChannelStdout}, out[offset:]...)) != nil {
				return
			}
			offset = len(out)
		}
		if exited {
			p.service.mu.Lock()
			task := p.service.task
			p.service.mu.Unlock()
			_ = control(api.AttachMessage{Exit: &task})
			_ = conn.Close(api.CloseEnded, "")
			return
		}
		select {
		case ack := <-acks:
			if control(api.AttachMessage{Stdin: &ack}) != nil {
				return
			}
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
