package api

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/coder/websocket"
	"github.com/julienschmidt/httprouter"

	"ecs/internal/task"
	"ecs/internal/telemetry"
	"ecs/proto/api"
)

// Inputs opens the way in to programs that run.
type Inputs interface {
	// Input opens it for the live attempt of a task. writer names who types,
	// over any connection. It lasts until ctx ends or it is closed.
	Input(ctx context.Context, t *task.Task, writer string) (Input, error)
}

// Input is the way in to one attempt. One goroutine may send while another
// waits for Taken.
type Input interface {
	// Give sends a piece of standard input, whose first byte is at offset of
	// all that the writer sends, and with end its end. It does not wait for
	// the program; Taken says for each piece when it was taken.
	Give(offset int64, data []byte, end bool) error
	Resize(rows, cols uint16) error
	Signal(s syscall.Signal) error
	// Taken waits for the next piece to be taken and says how far that is. An
	// error, ErrNoInput for one, is the end of this Input.
	Taken() (offset int64, ended bool, err error)
	Close()
}

// ErrNoInput says that a program takes no standard input (any more).
var ErrNoInput = errors.New("the program's standard input is closed")

const (
	pingEvery  = 20 * time.Second
	pongWithin = 20 * time.Second
	// sendWithin is how long a caller may take nothing. With the above it
	// bounds how long a dead one goes unnoticed.
	sendWithin = 40 * time.Second
	// explainAfter and explainEvery say when a caller whose task waits is told why.
	explainAfter = time.Second
	explainEvery = 10 * time.Second

	maxAttached = 1000 // callers at a time on one node
)

// attachQuery is what a caller who comes back says of before.
type attachQuery struct {
	attempt int
	offsets [2]int64 // of the output, by stream
	stdin   int64    // how much of its input was taken
	writer  string
}

// attach serves GET /v2/tasks/{id}/attach, a WebSocket: see openapi.yaml.
func (h *Handler) attach(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	q, err := attachQueryOf(r)
	if err != nil {
		return err
	}
	t, err := h.lookupOwn(r, p)
	if err != nil {
		return err
	}
	if r.ProtoMajor != 1 || !headerHas(r.Header, "Connection", "upgrade") || !headerHas(r.Header, "Upgrade", "websocket") {
		return refusal(api.CodeBadRequest, "this call is a WebSocket, over HTTP/1.1 with Upgrade: websocket")
	}
	if !h.attached.enter() {
		return refusal(api.CodeBusy, "as many callers are attached here as there may be, or this node stops")
	}
	defer h.attached.leave()
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{api.AttachProtocol}})
	if err != nil {
		h.cfg.Log.DebugContext(r.Context(), "no WebSocket", "task", t.ID, "err", err)
		return nil // it has answered
	}
	exchangeOf(r).task = t.ID
	h.audit.begun(r, exchangeOf(r))
	conn.SetReadLimit(1 + max(api.AttachPiece, api.AttachText))
	a := &attachment{h: h, t: t, conn: conn, query: q, typed: newTyped(q.stdin, t.Spec.OpenStdin)}
	code, reason, err := a.serve(r.Context())
	if err != nil {
		h.cfg.Log.DebugContext(r.Context(), "attachment ended early", "task", t.ID, "err", err)
	}
	if code == 0 {
		_ = conn.CloseNow() // the caller is gone
		return nil
	}
	_ = conn.Close(code, reason) // a caller that does not answer it is gone as well
	return nil
}

func attachQueryOf(r *http.Request) (attachQuery, error) {
	q, err := query(r, []string{"stdout", "stderr", "stdin", "attempt", "writer"})
	if err != nil {
		return attachQuery{}, err
	}
	a := attachQuery{writer: first(q, "writer")}
	if a.writer != "" && !saneCID(a.writer) {
		return a, badParameter("writer", "must be at most "+strconv.Itoa(maxCID)+" letters, digits, '.', '_' and '-'")
	}
	if a.writer == "" {
		a.writer = newCID()
	}
	attempt := int64(0)
	for name, into := range map[string]*int64{"stdout": &a.offsets[0], "stderr": &a.offsets[1], "stdin": &a.stdin, "attempt": &attempt} {
		text := first(q, name)
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 62)
		if err != nil || n < 0 || name == "attempt" && n > 1<<30 {
			return a, badParameter(name, "must be a whole number, not less than 0")
		}
		*into = n
	}
	a.attempt = int(attempt)
	return a, nil
}

// attachment is one caller attached to one task.
type attachment struct {
	h     *Handler
	t     *task.Task // as it was last seen
	conn  *websocket.Conn
	query attachQuery
	typed *typed

	attempt  int             // the last that was announced
	state    api.AttachState // the last that was told
	stdin    api.AttachStdin // likewise
	complete bool            // no output is missing
}

// serve runs everything that belongs to the attachment and waits for it. Only
// this goroutine writes. It gives the code to close with, 0 for none.
func (a *attachment) serve(ctx context.Context) (code websocket.StatusCode, reason string, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var parts sync.WaitGroup
	pieces, ended := make(chan piece), make(chan error, len(a.query.offsets))
	faults := make(chan *fault, 1)
	why := make(chan api.AttachState)
	a.follow(ctx, &parts, pieces, ended)
	id := a.t.ID
	parts.Go(func() { a.typed.pump(ctx, a.h, id, a.query.writer) })
	parts.Go(func() { cancel(a.ping(ctx)) })
	parts.Go(func() { a.explain(ctx, id, why) })
	// Reading ends with the connection and not with ctx, so that a close frame
	// can still be exchanged; who reads ends right after this attachment.
	go func() { cancel(a.read(ctx, faults)) }()
	code, reason, err = a.write(ctx, pieces, ended, faults, why)
	cancel(nil)
	parts.Wait()
	return code, reason, err
}

// follow reads both streams from where the caller left them.
func (a *attachment) follow(ctx context.Context, parts *sync.WaitGroup, pieces chan<- piece, ended chan<- error) {
	for i, name := range streamNames() {
		f := &follower{h: a.h, id: a.t.ID, stream: name, at: position{attempt: a.query.attempt, offset: a.query.offsets[i]}}
		if f.at.attempt == 0 {
			f.at.attempt = attemptOf(a.t)
		}
		f.send = func(at position, data []byte) error {
			select {
			case pieces <- piece{stream: i, at: at, data: bytes.Clone(data)}:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		parts.Go(func() { ended <- f.run(ctx) })
	}
}

// write tells the caller everything, until the task has finished or the
// attachment can't go on.
func (a *attachment) write(ctx context.Context, pieces <-chan piece, ended <-chan error, faults <-chan *fault, why <-chan api.AttachState) (websocket.StatusCode, string, error) {
	live := len(a.query.offsets)
	a.complete = true
	for {
		t, changed := a.h.cfg.Reader.Snapshot().WatchTask(a.t.ID)
		if t == nil {
			return a.giveUp(ctx, &api.Problem{Code: api.CodeNotFound, Detail: "the task is not kept any more"}, api.CloseProtocol)
		}
		a.t = t
		if t.State == task.Finished {
			changed = nil // it changes no more; its output is still coming
			if live == 0 {
				return a.exit(ctx)
			}
		}
		if err := a.tell(ctx); err != nil {
			return 0, "", err
		}
		var err error
		select {
		case p := <-pieces:
			err = a.output(ctx, p)
		case over := <-ended:
			live--
			a.complete = a.complete && over == nil
			if over != nil && !isLost(over) && ctx.Err() == nil {
				return a.giveUp(ctx, &api.Problem{Code: api.CodeUnreachable, Detail: over.Error()}, api.CloseLater)
			}
		case s := <-why:
			err = a.send(ctx, &api.AttachMessage{State: &s})
		case p := <-faults:
			wrong := &api.Problem{Code: api.CodeBadRequest, Detail: p.detail}
			if p.fatal {
				return a.giveUp(ctx, wrong, api.CloseProtocol)
			}
			err = a.problem(ctx, wrong)
		case <-a.typed.news:
		case <-changed:
		case <-a.h.attached.closing:
			return api.CloseRestart, "this node stops; come back", nil
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			return 0, "", err
		}
	}
}

// tell says what changed of the task's state, its attempt and its input.
func (a *attachment) tell(ctx context.Context) error {
	if stdin := a.typed.state(); stdin != a.stdin {
		a.stdin = stdin
		if err := a.send(ctx, &api.AttachMessage{Stdin: &stdin}); err != nil {
			return err
		}
	}
	if a.t.State == task.Finished {
		return nil
	}
	state := api.AttachState{State: a.t.State.String(), Stopping: string(a.t.StopAs)}
	if state != a.state {
		a.state = state
		if err := a.send(ctx, &api.AttachMessage{State: &state}); err != nil {
			return err
		}
	}
	return a.announce(ctx, attemptOf(a.t))
}

// announce says that another attempt's output follows.
func (a *attachment) announce(ctx context.Context, attempt int) error {
	if attempt <= a.attempt {
		return nil
	}
	a.attempt = attempt
	return a.send(ctx, &api.AttachMessage{Attempt: attempt})
}

// output passes a piece on, unless its attempt has been replaced.
func (a *attachment) output(ctx context.Context, p piece) error {
	if err := a.announce(ctx, p.at.attempt); err != nil {
		return err
	}
	if p.at.attempt < a.attempt {
		a.complete = false
		return nil
	}
	return a.binary(ctx, append([]byte{api.ChannelStdout + byte(p.stream)}, p.data...))
}

// exit tells the end of the task, the last message.
func (a *attachment) exit(ctx context.Context) (websocket.StatusCode, string, error) {
	if err := a.tell(ctx); err != nil {
		return 0, "", err
	}
	if err := a.announce(ctx, attemptOf(a.t)); err != nil {
		return 0, "", err
	}
	v := render(a.t)
	v.OutputIncomplete = !a.complete
	times, overhead := bill(a.t, nil)
	v.Times, v.OverheadMS = &times, ms(overhead)
	if err := a.send(ctx, &api.AttachMessage{Exit: &v}); err != nil {
		return 0, "", err
	}
	return api.CloseEnded, "", nil
}

// giveUp says why the attachment ends before the task.
func (a *attachment) giveUp(ctx context.Context, p *api.Problem, code websocket.StatusCode) (websocket.StatusCode, string, error) {
	if err := a.problem(ctx, p); err != nil {
		return 0, "", err
	}
	return code, string(p.Code), nil
}

func (a *attachment) problem(ctx context.Context, p *api.Problem) error {
	info := a.h.codes[p.Code]
	p.Status, p.Title, p.Type = info.Status, info.Title, "/docs#"+string(p.Code)
	p.CID = telemetry.CID(ctx)
	return a.send(ctx, &api.AttachMessage{Error: p})
}

func (a *attachment) send(ctx context.Context, m *api.AttachMessage) error {
	b, err := m.Encode()
	if err != nil {
		return err
	}
	return a.binary(ctx, b)
}

func (a *attachment) binary(ctx context.Context, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, sendWithin)
	defer cancel()
	return a.conn.Write(ctx, websocket.MessageBinary, b)
}

// ping returns when the caller does not answer any more.
func (a *attachment) ping(ctx context.Context) error {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		within, cancel := context.WithTimeout(ctx, pongWithin)
		err := a.conn.Ping(within)
		cancel()
		if err != nil {
			return err
		}
	}
}

// explain says, now and then, why a task waits.
func (a *attachment) explain(ctx context.Context, id task.ID, to chan<- api.AttachState) {
	for pause := time.NewTimer(explainAfter); ; pause.Reset(explainEvery) {
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
		t := a.h.cfg.Reader.Snapshot().Task(id)
		if t == nil || t.State == task.Finished {
			return
		}
		v := a.h.explained(ctx, t)
		if v.WaitingBecause == "" {
			continue
		}
		select {
		case to <- api.AttachState{State: v.State, Stopping: v.Stopping, WaitingBecause: v.WaitingBecause, QueuePosition: v.QueuePosition}:
		case <-ctx.Done():
			return
		}
	}
}
