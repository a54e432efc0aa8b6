package api

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ecs/control/state"
	"ecs/internal/task"
	"ecs/proto/api"
)

const asksForOutputs = `{"image":"busybox:1","outputs":["/out","/none","/var/log"]}`

// left commits a task that left a tar, however it ended.
func (w *world) left(content string, r task.Result) string {
	w.t.Helper()
	id := w.submitted(asksForOutputs)
	tok := w.start(id)
	w.print(id, api.OutputsTar, content, true)
	r.Outputs = &task.Outputs{Bytes: int64(len(content)), SHA256: sha256.Sum256([]byte(content)), Entries: 7, Missing: []int{1}}
	w.finish(tok, r)
	return string(id)
}

func TestOutputsAreServedInRanges(t *testing.T) {
	w := newWorld(t)
	content := strings.Repeat("not really a tar", 5000)
	sum := sha256.Sum256([]byte(content))
	for _, r := range []task.Result{exited(0), exited(3), {Outcome: task.TimedOut}, {Outcome: task.OOMKilled}, {Outcome: task.Cancelled}} {
		id := w.left(content, r)
		got := w.task(w.do(http.MethodGet, "/v2/tasks/"+id, ""))
		want := &api.Outputs{Bytes: int64(len(content)), Entries: 7, SHA256: hex.EncodeToString(sum[:]), Missing: []string{"/none"}}
		if !reflect.DeepEqual(got.Outputs, want) || !slices.Equal(got.Spec.Outputs, []string{"/out", "/none", "/var/log"}) {
			t.Errorf("%s: got %+v of %q, want %+v", r.Outcome, got.Outputs, got.Spec.Outputs, want)
		}
		path := "/v2/tasks/" + id + "/outputs"
		a := w.do(http.MethodGet, path, "")
		if a.status != http.StatusOK || string(a.body) != content || a.header.Get("Content-Type") != "application/x-tar" ||
			a.header.Get(api.HeaderSHA256) != want.SHA256 || a.header.Get("Content-Length") != fmt.Sprint(len(content)) || a.header.Get(api.HeaderTruncated) != "" {
			t.Errorf("%s: got %d, %d bytes, %v", r.Outcome, a.status, len(a.body), a.header)
		}
		a = w.do(http.MethodGet, path, "", "Range", "bytes=70000-70009")
		if a.status != http.StatusPartialContent || string(a.body) != content[70000:70010] || a.header.Get("Content-Type") != "application/x-tar" {
			t.Errorf("range: got %d %q %v", a.status, a.body, a.header)
		}
		w.problem(w.do(http.MethodGet, path, "", "Range", "bytes=80000-"), http.StatusRequestedRangeNotSatisfiable, api.CodeRange)
		if a := w.do(http.MethodHead, path, ""); a.status != http.StatusOK || a.header.Get("Content-Length") != fmt.Sprint(len(content)) {
			t.Errorf("HEAD: got %d %v", a.status, a.header)
		}
		w.problem(w.do(http.MethodGet, path+"?stream=stdout", ""), http.StatusBadRequest, api.CodeBadRequest)
		w.problem(w.do(http.MethodGet, path, "", "Authorization", basic(bob, "b-secret")), http.StatusNotFound, api.CodeNotFound)
	}
}

func TestOutputsThatAreNotThereSayWhy(t *testing.T) {
	w := newWorld(t)
	get := func(id task.ID) answer { return w.do(http.MethodGet, "/v2/tasks/"+string(id)+"/outputs", "") }
	w.problem(get("nosuchtask"), http.StatusNotFound, api.CodeNotFound)
	w.problem(get(w.submitted(hello)), http.StatusNotFound, api.CodeNoOutputs)

	id := w.submitted(asksForOutputs)
	w.problem(get(id), http.StatusConflict, api.CodeNotFinished)
	tok := w.start(id)
	w.problem(get(id), http.StatusConflict, api.CodeNotFinished)
	r := exited(0)
	r.Outputs = &task.Outputs{Lost: "the engine hung"}
	w.finish(tok, r)
	if p := w.problem(get(id), http.StatusGone, api.CodeOutputLost); !strings.Contains(p.Detail, "the engine hung") || p.Lost != nil {
		t.Errorf("got %+v, want the reason", p)
	}
	if got := w.task(w.do(http.MethodGet, "/v2/tasks/"+string(id), "")); got.Outputs == nil || got.Outputs.Lost != "the engine hung" || got.Outcome != api.OutcomeExited {
		t.Errorf("got %s and %+v, want exited and the reason", got.Outcome, got.Outputs)
	}

	never := w.submitted(asksForOutputs)
	w.apply(state.Stop{Task: never, Outcome: task.Cancelled})
	w.problem(get(never), http.StatusNotFound, api.CodeNoOutputs)
	never = w.submitted(asksForOutputs)
	w.finish(w.start(never), task.Result{Outcome: task.StartFailed})
	w.problem(get(never), http.StatusNotFound, api.CodeNoOutputs)

	gone := w.submitted(`{"image":"busybox:1","outputs":["/out"],"delivery":"at_most_once"}`)
	w.apply(state.LoseAttempt{Token: w.start(gone), Reason: "its node is gone"})
	w.problem(get(gone), http.StatusGone, api.CodeOutputLost)
}

// TestOutputsOfWhatFinishedElsewhere asks a node that has not heard yet of the end
// that another one told.
func TestOutputsOfWhatFinishedElsewhere(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(asksForOutputs)
	tok := w.start(id)
	w.print(id, api.OutputsTar, "some", true)
	get := func() answer { return w.do(http.MethodGet, "/v2/tasks/"+string(id)+"/outputs", "") }
	w.behind = true
	w.problem(get(), http.StatusServiceUnavailable, api.CodeNoLeader)
	w.behind = false
	w.catchUp = func() {
		r := exited(0)
		r.Outputs = &task.Outputs{Bytes: 4, SHA256: sha256.Sum256([]byte("some"))}
		w.finish(tok, r)
	}
	if a := get(); a.status != http.StatusOK || string(a.body) != "some" {
		t.Errorf("got %d %s, want the tar", a.status, a.body)
	}
	before := w.syncs
	if a := get(); a.status != http.StatusOK || w.syncs != before {
		t.Errorf("got %d and %d more syncs, want none of a finished task", a.status, w.syncs-before)
	}
}

func TestOutputsOutOfReach(t *testing.T) {
	w := newWorld(t)
	content := strings.Repeat("x", 20_000)
	id := w.left(content, exited(0))
	b := w.stream(task.ID(id), api.OutputsTar)
	b.err = &task.Error{Code: task.CodeOutputLost, Message: "its node is gone"}
	p := w.problem(w.do(http.MethodGet, "/v2/tasks/"+id+"/outputs", ""), http.StatusGone, api.CodeOutputLost)
	sum := sha256.Sum256([]byte(content))
	if p.Lost == nil || p.Lost.Stream != api.OutputsTar || p.Lost.Kept != 20_000 || p.Lost.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("got %+v, want size and hash", p.Lost)
	}
	b.err = errors.New("connection refused")
	w.problem(w.do(http.MethodGet, "/v2/tasks/"+id+"/outputs", ""), http.StatusServiceUnavailable, api.CodeUnreachable)
}

func TestCutOutputsAreMarked(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(asksForOutputs)
	tok := w.start(id)
	w.print(id, api.OutputsTar, "some", true)
	r := exited(0)
	r.Outputs = &task.Outputs{Bytes: 4, SHA256: sha256.Sum256([]byte("some")), Truncated: true}
	w.finish(tok, r)
	if a := w.do(http.MethodGet, "/v2/tasks/"+string(id)+"/outputs", ""); a.header.Get(api.HeaderTruncated) != "outputs=4" {
		t.Errorf("got %v, want the mark", a.header)
	}
}
