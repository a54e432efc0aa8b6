package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Types of events.
const (
	EventState  = "state"  // Event.Task is set
	EventOutput = "output" // Event.Output is set
)

// Event is one server-sent event of a task.
type Event struct {
	// ID resumes the stream behind this event, as Last-Event-ID.
	ID     string
	Type   string
	Task   *Task
	Output *OutputEvent
}

// OutputEvent is a piece of one stream of one attempt. Pieces of one stream
// come in order; a higher attempt starts again from offset 0.
type OutputEvent struct {
	Attempt  int    `json:"attempt"`
	Stream   string `json:"stream"`
	Offset   int64  `json:"offset"`
	Encoding string `json:"encoding"`
	Data     string `json:"data"`
}

// Content gives the bytes of Data.
func (o *OutputEvent) Content() ([]byte, error) { return decode(o.Encoding, o.Data) }

// maxEvent bounds one line of an event stream: a chunk of output in base64, or
// a task with everything in it.
const maxEvent = 2 << 20

// eventReader reads server-sent events as far as this protocol uses them.
type eventReader struct{ lines *bufio.Scanner }

func newEventReader(r io.Reader) *eventReader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxEvent)
	return &eventReader{lines: s}
}

// next gives the next event, or io.EOF at a clean end of the stream. Events of
// types it does not know are skipped.
func (r *eventReader) next() (Event, error) {
	var e Event
	var data strings.Builder
	for r.lines.Scan() {
		line := r.lines.Text()
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			ok, err := e.fill(data.String())
			if err != nil || ok {
				return e, err
			}
			e = Event{}
			data.Reset()
		case name == "id":
			e.ID = value
		case name == "event":
			e.Type = value
		case name == "data":
			data.WriteString(value)
		}
	}
	if err := r.lines.Err(); err != nil {
		return Event{}, fmt.Errorf("read events: %w", err)
	}
	return Event{}, io.EOF
}

func (e *Event) fill(data string) (bool, error) {
	var into any
	switch e.Type {
	case EventState:
		e.Task = new(Task)
		into = e.Task
	case EventOutput:
		e.Output = new(OutputEvent)
		into = e.Output
	default:
		return false, nil
	}
	if err := json.Unmarshal([]byte(data), into); err != nil {
		return false, fmt.Errorf("read event %s: %w", e.ID, err)
	}
	return true, nil
}
