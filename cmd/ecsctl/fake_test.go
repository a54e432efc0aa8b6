package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"ecs/proto/api"
)

// service is a control node as far as these tests need one: it plays back one
// task.
type service struct {
	*httptest.Server
	// events are written as the task's event stream, then the finished task.
	events []api.Event
	// hold, when set, keeps the stream open after events until it is closed.
	hold chan struct{}
	task api.Task // as it finishes
	// waiting is what a task says while it is pending.
	waiting string
	// output is what GET output gives, by stream.
	output map[string]string
	// notes are what is said of wishes.
	notes []string
	// tar is what GET outputs gives.
	tar []byte
	// program is what those who attach find running.
	program *program

	mu        sync.Mutex
	submitted []api.TaskRequest
	cancelled int
	state     string
}

func newService(t *testing.T) *service {
	t.Helper()
	s := &service{state: api.StatePending}
	s.task = finishedTask(api.OutcomeExited, 0)
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func finishedTask(outcome string, exit int) api.Task {
	t := api.Task{ID: "t1", State: api.StateFinished, Outcome: outcome, Spec: api.Spec{Image: "busybox:1", Network: "none"}}
	if outcome == api.OutcomeExited {
		t.ExitCode = &exit
	}
	return t
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key, secret, _ := r.BasicAuth(); key != "k" || secret != "s" {
		problem(w, http.StatusUnauthorized, api.CodeUnauthorized)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "POST /v2/tasks":
		var q api.TaskRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Image == "bad:1" {
			problem(w, http.StatusBadRequest, api.CodeInvalidTask)
			return
		}
		s.submitted = append(s.submitted, q)
		w.WriteHeader(http.StatusAccepted)
		json.NewEncoder(w).Encode(api.Task{ID: s.task.ID, State: api.StatePending})
	case "POST /v2/keys":
		var q api.KeyRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Role == "" {
			problem(w, http.StatusBadRequest, api.CodeInvalidTask)
			return
		}
		w.WriteHeader(http.StatusCreated)
		json.NewEncoder(w).Encode(api.Key{ID: "key", Secret: "secret", Name: q.Name, Role: q.Role, Rate: q.Rate, Concurrency: q.Concurrency, Quota: q.Quota})
	case "GET /v2/keys":
		json.NewEncoder(w).Encode(api.KeyList{Keys: []api.Key{{ID: "key", Name: "n\x1b", Role: "run", Quota: new(0), Rate: new(7)}}})
	case "DELETE /v2/keys/key":
		json.NewEncoder(w).Encode(api.Key{ID: "key", Role: "run"})
	case "GET /v2/join/tokens":
		json.NewEncoder(w).Encode(api.TokenList{Tokens: []api.Token{{ID: "0123456789abcdef", Role: "agent", State: api.TokenUsed, CreatedBy: "key", Node: "n1"}}})
	case "DELETE /v2/join/tokens/0123456789ab":
		json.NewEncoder(w).Encode(api.Token{ID: "0123456789abcdef", Role: "agent", State: api.TokenWithdrawn})
	case "GET /v2/nodes":
		json.NewEncoder(w).Encode(api.NodeList{Nodes: []api.Node{{ID: "node-id", Name: "node-name"}}})
	case "POST /v2/images/warm":
		var q api.WarmRequest
		json.NewDecoder(r.Body).Decode(&q)
		json.NewEncoder(w).Encode(api.WarmAnswer{Image: q.Image, Count: q.Count, Notes: s.notes})
	case "GET /v2/images":
		if r.URL.Query().Get("node") == "none" {
			problem(w, http.StatusNotFound, api.CodeNotFound)
			return
		}
		json.NewEncoder(w).Encode(api.ImageList{Images: []api.Image{{Image: "busybox:1", Nodes: 2, Warm: 3, Parked: 1}}, Notes: s.notes})
	case "GET /v2/tasks/t1":
		t := s.task
		if s.state != api.StateFinished {
			t = api.Task{ID: t.ID, State: s.state, WaitingBecause: s.waiting}
		}
		json.NewEncoder(w).Encode(t)
	case "POST /v2/tasks/t1/cancel":
		s.cancelled++
		json.NewEncoder(w).Encode(api.Task{ID: "t1", State: api.StateRunning, Stopping: api.OutcomeCancelled})
		if s.hold != nil && s.cancelled == 1 {
			s.task = finishedTask(api.OutcomeCancelled, 0)
			close(s.hold)
		}
	case "GET /v2/tasks/t1/events":
		s.play(w, r)
	case "GET /v2/tasks/t1/attach":
		s.mu.Unlock()
		s.program.serve(w, r)
		s.mu.Lock()
	case "GET /v2/tasks/t1/output":
		fmt.Fprint(w, s.output[r.URL.Query().Get("stream")])
	case "GET /v2/tasks/t1/outputs":
		w.Write(s.tar)
	default:
		problem(w, http.StatusNotFound, api.CodeNotFound)
	}
}

func (s *service) play(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for i, e := range s.events {
		var data any = e.Output
		if e.Type == api.EventState {
			data = e.Task
			s.state = e.Task.State
		}
		text, _ := json.Marshal(data)
		fmt.Fprintf(w, "id: %d\nevent: %s\ndata: %s\n\n", i, e.Type, text)
	}
	w.(http.Flusher).Flush()
	if s.hold != nil {
		s.mu.Unlock()
		select {
		case <-s.hold:
		case <-r.Context().Done():
		}
		s.mu.Lock()
	}
	s.state = api.StateFinished
	text, _ := json.Marshal(s.task)
	fmt.Fprintf(w, "id: end\nevent: state\ndata: %s\n\n", text)
}

func problem(w http.ResponseWriter, status int, code api.Code) {
	w.Header().Set("Content-Type", api.ProblemType)
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(api.Problem{Title: "No", Status: status, Code: code, Detail: "because\x1b[2J"})
}

func outputEvent(attempt int, stream string, offset int64, data string) api.Event {
	return api.Event{Type: api.EventOutput, Output: &api.OutputEvent{Attempt: attempt, Stream: stream, Offset: offset,
		Encoding: api.EncodingUTF8, Data: data}}
}

func stateEvent(state string) api.Event {
	return api.Event{Type: api.EventState, Task: &api.Task{ID: "t1", State: state}}
}

// written is a buffer that several goroutines may write and read.
type written struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

func (w *written) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// invocation is one run of ecsctl in this process.
type invocation struct {
	*app
	out, err *written
	signals  chan os.Signal
}

func invoke(s *service, env ...string) *invocation {
	vars := map[string]string{"ECS_KEY": "k", "ECS_SECRET": "s"}
	if s != nil {
		vars["ECS_ENDPOINT"] = s.URL
	}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		vars[name] = value
	}
	i := &invocation{out: new(written), err: new(written), signals: make(chan os.Signal, 2)}
	i.app = &app{stdin: strings.NewReader(""), stdout: i.out, stderr: i.err, env: func(n string) string { return vars[n] }, signals: i.signals, unguard: func() {}}
	return i
}
