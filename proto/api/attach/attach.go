// Package attach is the client of GET /v2/tasks/{id}/attach: it shows a task's
// output as it appears and types into its program, through any control node.
//
// It stands apart from package api so that those who only run tasks need no
// WebSocket library.
package attach

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/coder/websocket"

	"ecs/proto/api"
)

// Event is something that happened to the task. One member is set.
type Event struct {
	Stream      string // api.Stdout or api.Stderr, with Data
	Data        []byte // valid until the event has been seen
	State       *api.AttachState
	Attempt     int          // whose output follows; the next begins again at 0
	InputClosed bool         // the program takes no input (any more)
	Problem     *api.Problem // what was wrong with something that was sent
	Lost        error        // the connection, which is being taken up again
}

// Start says which output the caller has. Zero: none.
type Start struct {
	Attempt        int
	Stdout, Stderr int64
}

// Session is one caller attached to one task, over as many connections as it
// takes. Its methods may be called by many goroutines.
type Session struct {
	client  *api.Client
	task    string
	writer  string
	attempt int
	offsets [2]int64
	typed   typed
}

// New makes a session with the task; Run connects it.
func New(c *api.Client, task string, from Start) *Session {
	s := &Session{client: c, task: task, writer: rand.Text(), attempt: from.Attempt, offsets: [2]int64{from.Stdout, from.Stderr}}
	s.typed.poke, s.typed.room = make(chan struct{}, 1), make(chan struct{}, 1)
	s.typed.over = make(chan struct{})
	return s
}

// maxBroken is how many connections in a row may break without bringing
// anything.
const maxBroken = 5

// Run shows everything to see, in order, until the task has finished, and gives
// it. An error of see ends it. A connection that breaks is taken up where it
// broke, with another node where there is one. It is to be called once.
func (s *Session) Run(ctx context.Context, see func(Event) error) (*api.Task, error) {
	defer s.typed.finish()
	for broken := 0; ; broken++ {
		c, err := s.connect(ctx)
		if err != nil {
			return nil, err
		}
		done, err := c.run(ctx, see)
		switch {
		case done != nil:
			return done, nil
		case c.final != nil:
			return nil, c.final
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case c.brought:
			broken = 0
		case broken == maxBroken:
			return nil, err
		}
		if c.code != api.CloseRestart {
			if err := see(Event{Lost: err}); err != nil {
				return nil, err
			}
		}
		s.client.Elsewhere()
		pause := time.NewTimer(min(50*time.Millisecond<<broken, time.Second))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, ctx.Err()
		}
	}
}

// connect opens a connection at the first node that takes it.
func (s *Session) connect(ctx context.Context) (*connection, error) {
	c := &connection{Session: s}
	query := fmt.Sprintf("/v2/tasks/%s/attach?attempt=%d&stdout=%d&stderr=%d&stdin=%d&writer=%s",
		s.task, s.attempt, s.offsets[0], s.offsets[1], s.typed.begin(), s.writer)
	err := s.client.Reach(ctx, func(ctx context.Context, e api.Endpoint) error {
		ctx, cancel := context.WithTimeout(ctx, connectWithin)
		defer cancel()
		conn, resp, err := websocket.Dial(ctx, e.URL+query,
			&websocket.DialOptions{HTTPClient: e.HTTP, HTTPHeader: e.Header, Subprotocols: []string{api.AttachProtocol}})
		if err == nil {
			c.conn, c.since = conn, time.Now()
			return nil
		}
		if resp != nil && resp.StatusCode >= 400 {
			return api.ReadProblem(resp)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("attach to task %s: %w", s.task, err)
	}
	c.conn.SetReadLimit(maxMessage)
	return c, nil
}

// Write gives the program's standard input more bytes. It waits while the
// program does not read. ErrClosed says that it takes no more.
func (s *Session) Write(p []byte) (int, error) { return s.typed.write(p) }

// ErrClosed is answered by Write when the program takes no input, or the task
// has finished.
var ErrClosed = errors.New("the program takes no input")

// CloseInput ends the program's standard input behind what was written.
func (s *Session) CloseInput() { s.typed.change(func(t *typed) { t.end = true }) }

// Resize sets the size of the program's terminal.
func (s *Session) Resize(rows, cols uint16) {
	s.typed.change(func(t *typed) { t.size, t.moved = &api.TerminalSize{Rows: rows, Cols: cols}, true })
}

// Signal sends the program a signal: "INT", "TERM", ...
func (s *Session) Signal(name string) {
	s.typed.change(func(t *typed) { t.signals = append(t.signals, name) })
}
