package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/julienschmidt/httprouter"

	"ecs/internal/task"
	"ecs/proto/api"
)

// heartbeat keeps an event stream from looking dead to whatever is between.
const heartbeat = 15 * time.Second

// events serves GET /v2/tasks/{id}/events: the changes of a task's state and
// its output as it appears, as server-sent events. The last one is the state of
// the finished task, behind all output.
func (h *Handler) events(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	if _, err := query(r, nil); err != nil {
		return err
	}
	t, err := h.lookup(r, p)
	if err != nil {
		return err
	}
	from := parseMark(r.Header.Get(api.HeaderLastEventID))
	if from.state == task.Finished && t.State == task.Finished {
		w.WriteHeader(http.StatusNoContent) // nothing will follow: a browser stops asking
		return nil
	}
	holdOpen(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	s := &eventStream{w: w, control: http.NewResponseController(w), at: from}
	if err := h.streamEvents(r.Context(), t.ID, s); err != nil {
		h.cfg.Log.DebugContext(r.Context(), "events ended early", "task", t.ID, "err", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// streamEvents runs the followers of both streams beside the watch over the
// task's state, and ends with the finished state when they have ended. Only
// this goroutine writes; the followers hand it their pieces.
func (h *Handler) streamEvents(ctx context.Context, id task.ID, s *eventStream) error {
	ctx, cancel := context.WithCancel(ctx)
	var followers sync.WaitGroup
	defer followers.Wait()
	defer cancel()
	pieces, ended := make(chan piece), make(chan error, len(s.at.streams))
	for i, name := range streamNames() {
		f := &follower{h: h, id: id, stream: name, at: s.at.streams[i]}
		f.send = func(at position, data []byte) error {
			select {
			case pieces <- piece{stream: i, at: at, data: bytes.Clone(data)}:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		followers.Go(func() { ended <- f.run(ctx) })
	}
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	if err := s.heartbeat(); err != nil { // sends the header
		return err
	}
	live, incomplete := len(s.at.streams), false
	for {
		t, changed := h.cfg.Reader.Snapshot().WatchTask(id)
		switch {
		case t == nil:
			return errNotFound()
		case t.State == task.Finished && live == 0:
			v := render(t)
			v.OutputIncomplete = incomplete
			times, overhead := bill(t, nil)
			v.Times, v.OverheadMS = &times, ms(overhead)
			return s.state(t, v)
		case t.State == task.Finished:
			changed = nil // it changes no more; its output is still coming
		default:
			if err := s.state(t, render(t)); err != nil {
				return err
			}
		}
		var err error
		select {
		case p := <-pieces:
			err = s.output(p)
		case over := <-ended:
			live, incomplete = live-1, incomplete || over != nil
			if over != nil && !isLost(over) {
				err = over
			}
		case <-changed:
		case <-ticker.C:
			err = s.heartbeat()
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

func streamNames() []string { return []string{api.Stdout, api.Stderr} }

// piece is a part of one stream, on its way to the writer.
type piece struct {
	stream int
	at     position
	data   []byte
}

// mark is a place in a task's events: what has been sent of either stream and
// which state was told last. It is the id of every event.
type mark struct {
	streams  [2]position // stdout, stderr
	state    task.State
	attempts int // the state was told with so many
}

func (m mark) String() string {
	return fmt.Sprintf("%d.%d.%d.%d.%d.%d", m.streams[0].attempt, m.streams[0].offset,
		m.streams[1].attempt, m.streams[1].offset, m.state, m.attempts)
}

// parseMark reads a mark. One that is none is the beginning.
func parseMark(s string) mark {
	parts := strings.Split(s, ".")
	if len(parts) != 6 {
		return mark{}
	}
	var n [6]int64
	for i, p := range parts {
		v, err := strconv.ParseInt(p, 10, 48)
		if err != nil || v < 0 {
			return mark{}
		}
		n[i] = v
	}
	return mark{
		streams:  [2]position{{int(n[0]), n[1]}, {int(n[2]), n[3]}},
		state:    task.State(n[4]),
		attempts: int(n[5]),
	}
}

// eventStream writes events. One goroutine uses it.
type eventStream struct {
	w        http.ResponseWriter
	control  *http.ResponseController
	at       mark
	stopping task.Outcome
	held     [2][]byte // the beginning of a character whose rest has not come
}

// output tells a piece of a stream.
func (s *eventStream) output(p piece) error {
	if p.at.attempt != s.at.streams[p.stream].attempt {
		s.held[p.stream] = nil
	}
	p.at.offset -= int64(len(s.held[p.stream]))
	p.data = append(s.held[p.stream], p.data...)
	s.held[p.stream] = nil
	if rest := partialRune(p.data); rest > 0 && utf8.Valid(p.data[:len(p.data)-rest]) {
		s.held[p.stream] = bytes.Clone(p.data[len(p.data)-rest:])
		p.data = p.data[:len(p.data)-rest]
	}
	return s.tell(p)
}

func (s *eventStream) tell(p piece) error {
	e := api.OutputEvent{Attempt: p.at.attempt, Stream: streamNames()[p.stream], Offset: p.at.offset}
	e.Encoding, e.Data = encode(p.data)
	p.at.offset += int64(len(p.data))
	s.at.streams[p.stream] = p.at
	if len(p.data) == 0 {
		return nil
	}
	return s.event(api.EventOutput, e)
}

// state tells the task when something of its state is new.
func (s *eventStream) state(t *task.Task, v api.Task) error {
	if s.at.state == t.State && s.at.attempts == len(t.Attempts) && s.stopping == t.StopAs {
		return nil
	}
	if t.State == task.Finished {
		for i, rest := range s.held { // an unfinished character is what it is
			s.held[i] = nil
			if err := s.tell(piece{stream: i, at: s.at.streams[i], data: rest}); err != nil {
				return err
			}
		}
	}
	s.at.state, s.at.attempts, s.stopping = t.State, len(t.Attempts), t.StopAs
	return s.event(api.EventState, v)
}

func (s *eventStream) event(kind string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	return s.write(fmt.Sprintf("id: %s\nevent: %s\ndata: %s\n\n", s.at, kind, data))
}

// heartbeat writes a comment.
func (s *eventStream) heartbeat() error { return s.write(": \n\n") }

func (s *eventStream) write(text string) error {
	if _, err := io.WriteString(s.w, text); err != nil {
		return err
	}
	if err := s.control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}
