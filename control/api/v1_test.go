package api

import (
	"bytes"
	"encoding/base64"
	"math/rand"
	"net/http"
	"strings"
	"testing"

	"ecs/internal/task"
	"ecs/proto/api"
)

func TestV1AnswersExitCodeAndOutput(t *testing.T) {
	w := newWorld(t)
	w.runs(func(id task.ID) task.Result {
		w.print(id, api.Stdout, "out\n", true)
		w.print(id, api.Stderr, "\x00\xff", true)
		return exited(7)
	})
	for path, body := range map[string]string{"/v1.1/tasks": v1(""), "/v1.1/tasks/": v1(`,"creds":{"username":"u","password":"p","email":"e"}`),
		"/v1.0/tasks": `{"docker_image":"xubuntu","tag":"latest","cmd":["date"]}`, "/v1.0/tasks/": `{"docker_image":"localhost:5000/a","tag":"1","cmd":["date"]}`} {
		a := w.do(http.MethodPost, path, body)
		if want := `{"exitCode":7,"stdout":"b3V0Cg==","stderr":"AP8="}` + "\n"; a.status != http.StatusCreated || string(a.body) != want {
			t.Errorf("%s: got %d %s, want 201 %s", path, a.status, a.body, want)
		}
		if a.header.Get(api.HeaderTruncated) != "" || !strings.Contains(a.header.Get("Server-Timing"), "total;dur=") {
			t.Errorf("%s: got header %v", path, a.header)
		}
		s := w.Snapshot().Task(task.ID(strings.TrimPrefix(a.header.Get("Location"), "/v2/tasks/"))).Spec
		if !s.DefaultCaps || s.Network != task.NetworkEgress || s.Resources.Memory != task.DefaultV1Memory || s.MaxOutput != task.V1MaxOutput || s.Timeouts.Queue != task.DefaultQueueWaiting {
			t.Errorf("%s: got spec %+v, want the old defaults", path, s)
		}
	}
}

func TestV1TellsEveryOutcome(t *testing.T) {
	for _, tc := range []struct {
		result task.Result
		creds  bool
		status int
		code   string
		later  bool
	}{
		{task.Result{Outcome: task.OOMKilled, HasExit: true, ExitCode: 137}, false, 201, "", false},
		{task.Result{Outcome: task.OOMKilled}, false, 201, "", false},
		{task.Result{Outcome: task.ImageNotFound, Reason: "no such image"}, false, 404, api.OutcomeImageNotFound, false},
		{task.Result{Outcome: task.ImageDenied, Reason: "401 from the registry"}, false, 404, api.OutcomeImageNotFound, false},
		{task.Result{Outcome: task.ImageDenied, Reason: "401 from the registry"}, true, 403, api.OutcomeImageDenied, false},
		{task.Result{Outcome: task.ImageUnavailable}, false, 502, api.OutcomeImageUnavailable, false},
		{task.Result{Outcome: task.ImageInvalid}, false, 422, api.OutcomeImageInvalid, false},
		{task.Result{Outcome: task.PullTimedOut}, false, 504, api.OutcomePullTimedOut, false},
		{task.Result{Outcome: task.TimedOut}, false, 504, api.OutcomeTimedOut, false},
		{task.Result{Outcome: task.DeadlineExceeded}, false, 504, api.OutcomeDeadlineExceeded, false},
		{task.Result{Outcome: task.StartFailed, Reason: "no such command"}, false, 422, api.OutcomeStartFailed, false},
		{task.Result{Outcome: task.Cancelled}, false, 409, api.OutcomeCancelled, false},
		{task.Result{Outcome: task.QueueExpired}, false, 503, api.OutcomeQueueExpired, true},
		{task.Result{Outcome: task.NodeLost}, false, 503, api.OutcomeNodeLost, true},
		{task.Result{Outcome: task.Interrupted}, false, 503, api.OutcomeInterrupted, true},
	} {
		w := newWorld(t)
		a := w.answerV1(tc.result, tc.creds)
		if tc.status == http.StatusCreated {
			if got := decodeAs[api.TaskResultV1](t, a); a.status != 201 || got.ExitCode != 137 {
				t.Errorf("%s: got %d %s, want 201 with 137", tc.result.Outcome, a.status, a.body)
			}
			continue
		}
		p := w.problem(a, tc.status, api.Code(tc.code))
		if later := a.header.Get("Retry-After") != ""; later != tc.later || p.Task == "" || !strings.Contains(p.Detail, tc.result.Reason) {
			t.Errorf("%s: got %+v, Retry-After %v, want %v", tc.result.Outcome, p, later, tc.later)
		}
	}
	known := failuresV1()
	for _, o := range task.Outcomes() {
		if _, ok := known[o]; !ok && o != task.Exited && o != task.OOMKilled {
			t.Errorf("no answer for %s", o)
		}
	}
}

func TestV1StreamsLargeOutput(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.OutputBudget = streamingV1 })
	out := make([]byte, 2<<20+1)
	rand.New(rand.NewSource(1)).Read(out)
	w.runs(func(id task.ID) task.Result {
		w.print(id, api.Stdout, string(out), true)
		w.print(id, api.Stderr, strings.Repeat("e", task.HeadBytes), true)
		b := w.stream(id, api.Stdout)
		w.mu.Lock()
		b.breaks = 2 // the second reading, of the bytes themselves, breaks once
		w.mu.Unlock()
		return exited(0)
	})
	a := w.do(http.MethodPost, "/v1.1/tasks", v1(""))
	got := decodeAs[api.TaskResultV1](t, a)
	if data, err := base64.StdEncoding.DecodeString(got.Stdout); err != nil || !bytes.Equal(data, out) {
		t.Errorf("got %d bytes, %v, want the %d that were printed", len(data), err, len(out))
	}
	if data, _ := base64.StdEncoding.DecodeString(got.Stderr); len(data) != task.HeadBytes {
		t.Errorf("got %d bytes of stderr", len(data))
	}
}

func TestV1SaysWhatWasCut(t *testing.T) {
	w := newWorld(t)
	w.runs(func(id task.ID) task.Result { return exited(0) })
	done := w.do(http.MethodPost, "/v1.1/tasks", v1(""))
	id := task.ID(strings.TrimPrefix(done.header.Get("Location"), "/v2/tasks/"))
	tk := *w.Snapshot().Task(id)
	result := *tk.Result
	result.Stdout.Truncated, result.Stdout.Bytes = true, 70<<20
	result.Stderr.Truncated, result.Stderr.Bytes = true, 65<<20
	rec := newRecorder()
	truncated(rec, &result)
	if got := rec.Header().Get(api.HeaderTruncated); got != "stdout=73400320, stderr=68157440" {
		t.Errorf("got %q", got)
	}
}

func TestV1NeverShowsAPartForTheWhole(t *testing.T) {
	w := newWorld(t)
	big := strings.Repeat("x", 50_000)
	lose := func(id task.ID) {
		b := w.stream(id, api.Stdout)
		w.mu.Lock()
		b.err = &task.Error{Code: task.CodeOutputLost, Message: "the node is gone"}
		w.mu.Unlock()
	}
	w.runs(func(id task.ID) task.Result { w.print(id, api.Stdout, big, true); defer lose(id); return exited(0) })
	// The stream is lost before the answer begins.
	a, err := w.try(http.MethodPost, "/v1.1/tasks", v1(""), api.HeaderIdempotencyKey, "k")
	if err == nil && a.status == http.StatusCreated {
		// The task was answered between finish and loss; ask again.
		a, err = w.try(http.MethodPost, "/v1.1/tasks", v1(""), api.HeaderIdempotencyKey, "k")
	}
	if err != nil {
		t.Fatal(err)
	}
	p := w.problem(a, http.StatusGone, api.CodeOutputLost)
	if p.Lost == nil || p.Lost.Bytes != 50_000 || p.Lost.Stream != api.Stdout || len(p.Lost.SHA256) != 64 {
		t.Errorf("got %+v, want size and hash", p)
	}
	// It is another's bytes: the connection breaks instead of a clean end.
	id := task.ID(p.Task)
	b := w.stream(id, api.Stdout)
	w.mu.Lock()
	b.err, b.data = nil, []byte(strings.Repeat("y", 50_000))
	w.mu.Unlock()
	if a, err := w.try(http.MethodPost, "/v1.1/tasks", v1(""), api.HeaderIdempotencyKey, "k"); err == nil {
		t.Errorf("got a clean answer of %d bytes with the wrong content", len(a.body))
	}
}
