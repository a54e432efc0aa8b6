package api

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"ecs/control/state"
	"ecs/internal/task"
	"ecs/proto/api"
)

// big is more than the record's head, in characters of two bytes.
var big = strings.Repeat("äöü", 20_000)

// ran commits a task that printed text and exited.
func (w *world) ran(text string) string {
	w.t.Helper()
	id := w.submitted(`{"image":"busybox:1","max_output":"4MiB"}`)
	tok := w.start(id)
	w.print(id, api.Stdout, text, true)
	w.finish(tok, exited(0))
	return string(id)
}

func TestInlineOutputGoesAsFarAsAsked(t *testing.T) {
	w := newWorld(t)
	id := w.ran(big)
	for _, tc := range []struct {
		query string
		want  int // bytes
	}{
		{"", task.HeadBytes}, {"?max_inline=10", 10}, {"?max_inline=11", 10}, {"?max_inline=0", 0}, {"?max_inline=100KB", 100_000}, {"?max_inline=64MiB", len(big)}, {"?wait=1s", len(big)},
	} {
		a := w.do(http.MethodGet, "/v2/tasks/"+id+tc.query, "")
		got := w.task(a)
		if a.status != http.StatusOK || got.Stdout.Data != big[:tc.want] || got.Stdout.Encoding != api.EncodingUTF8 || got.OutputIncomplete || got.Stdout.Kept != int64(len(big)) {
			t.Errorf("%s: got %d with %d bytes of %s, want %d whole characters", tc.query, a.status, len(got.Stdout.Data), got.Stdout.Encoding, tc.want)
		}
	}
	for _, bad := range []string{"?max_inline=-1", "?max_inline=65MiB", "?max_inline=x"} {
		w.problem(w.do(http.MethodGet, "/v2/tasks/"+id+bad, ""), http.StatusBadRequest, api.CodeBadRequest)
	}
}

func TestEveryByteComesInlineAsItIs(t *testing.T) {
	w := newWorld(t)
	var every strings.Builder
	for i := range 256 {
		every.WriteByte(byte(i))
	}
	awkward := "\"\\\n\r\t\x00\x1f<>&\u2028\u2029\U0001f600" + strings.Repeat("\x7f😀", 9_000)
	for _, text := range []string{"", "no newline", every.String(), awkward, strings.Repeat(every.String(), 1000)} {
		got := w.task(w.do(http.MethodGet, "/v2/tasks/"+w.ran(text)+"?max_inline=4MiB", ""))
		if data, err := got.Stdout.Content(); err != nil || string(data) != text {
			t.Errorf("%.20q: got %d bytes %.40q, %v, want %d", text, len(data), data, err, len(text))
		}
	}
}

func TestLostOutputIsSaid(t *testing.T) {
	w := newWorld(t)
	id := w.ran(big)
	w.stream(task.ID(id), api.Stdout).err = &task.Error{Code: task.CodeOutputLost, Message: "its node is gone"}
	got := w.task(w.do(http.MethodGet, "/v2/tasks/"+id+"?wait=1s", ""))
	if !got.OutputIncomplete || got.Stdout.Data != big[:task.HeadBytes] {
		t.Errorf("got incomplete %v with %d bytes, want the head and a mark", got.OutputIncomplete, len(got.Stdout.Data))
	}
	p := w.problem(w.do(http.MethodGet, "/v2/tasks/"+id+"/output", ""), http.StatusGone, api.CodeOutputLost)
	sum := sha256.Sum256([]byte(big))
	if p.Lost == nil || p.Lost.Kept != int64(len(big)) || p.Lost.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("got %+v, want size and hash", p.Lost)
	}
	if a := w.do(http.MethodGet, "/v2/tasks/"+id+"/output", "", "Range", "bytes=0-99"); a.status != http.StatusPartialContent || string(a.body) != big[:100] {
		t.Errorf("got %d, want what the record holds still served", a.status)
	}
	w.stream(task.ID(id), api.Stdout).err = errors.New("connection refused")
	a := w.do(http.MethodGet, "/v2/tasks/"+id+"/output", "")
	if w.problem(a, http.StatusServiceUnavailable, api.CodeUnreachable); a.header.Get("Retry-After") == "" {
		t.Error("got no Retry-After for output that can't be reached now")
	}
}

func TestAnswersShareOneBudget(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.OutputBudget = 150_000 })
	id := w.ran(big)
	got := w.task(w.do(http.MethodGet, "/v2/tasks/"+id+"?wait=1s", ""))
	if n := len(got.Stdout.Data); n != 75_000 || got.OutputIncomplete {
		t.Errorf("got %d bytes inline, want half of the budget for one stream", n)
	}
	b := newBudget(100)
	if !b.take(60) || b.take(41) || !b.take(40) {
		t.Error("the budget does not add up")
	}
	b.give(60)
	if !b.take(60) {
		t.Error("what was given back is gone")
	}
	h := &Handler{budget: newBudget(100_000)}
	h.budget.take(100_000)
	if err := h.answer(nil, nil, w.Snapshot().Task(task.ID(id)), 1<<20, nil); !errors.Is(err, &task.Error{Code: task.Code(api.CodeBusy)}) {
		t.Errorf("got %v, want busy", err)
	}
}

func TestOutputServesRanges(t *testing.T) {
	w := newWorld(t)
	id := w.ran(big)
	path := "/v2/tasks/" + id + "/output?stream=stdout"
	whole := w.do(http.MethodGet, path, "")
	sum := sha256.Sum256([]byte(big))
	if whole.status != http.StatusOK || string(whole.body) != big || whole.header.Get(api.HeaderSHA256) != hex.EncodeToString(sum[:]) ||
		whole.header.Get("Content-Length") != fmt.Sprint(len(big)) || whole.header.Get(api.HeaderKept) != fmt.Sprint(len(big)) || whole.header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("got %d, %d bytes, %v", whole.status, len(whole.body), whole.header)
	}
	size := len(big)
	for _, tc := range []struct {
		header    string
		from, end int // -1: the whole
	}{
		{"bytes=0-0", 0, 1}, {"bytes=8190-8193", 8190, 8194}, {"bytes=119999-", 119_999, size}, {"bytes=-5", size - 5, size}, {"bytes=-999999", 0, size},
		{"bytes=100-999999", 100, size}, {"bytes=0-1,5-6", -1, 0}, {"bytes=5-1", -1, 0}, {"lines=1-2", -1, 0}, {"bytes=a-b", -1, 0}, {"bytes=-", -1, 0},
	} {
		a := w.do(http.MethodGet, path, "", "Range", tc.header)
		if tc.from < 0 {
			if a.status != http.StatusOK || string(a.body) != big {
				t.Errorf("%s: got %d with %d bytes, want the whole", tc.header, a.status, len(a.body))
			}
			continue
		}
		if want := fmt.Sprintf("bytes %d-%d/%d", tc.from, tc.end-1, size); a.status != http.StatusPartialContent || string(a.body) != big[tc.from:tc.end] || a.header.Get("Content-Range") != want {
			t.Errorf("%s: got %d %s with %d bytes, want %s", tc.header, a.status, a.header.Get("Content-Range"), len(a.body), want)
		}
	}
	for _, beyond := range []string{"bytes=120000-", "bytes=999999-", "bytes=-0"} {
		a := w.do(http.MethodGet, path, "", "Range", beyond)
		if w.problem(a, http.StatusRequestedRangeNotSatisfiable, api.CodeRange); a.header.Get("Content-Range") != fmt.Sprintf("bytes */%d", size) {
			t.Errorf("%s: got Content-Range %q", beyond, a.header.Get("Content-Range"))
		}
	}
	if a := w.do(http.MethodGet, path, "", "Range", "bytes=0-9", "If-Range", `"other"`); a.status != http.StatusOK {
		t.Errorf("got %d for another version's range, want the whole", a.status)
	}
	if a := w.do(http.MethodHead, path, ""); a.status != http.StatusOK || len(a.body) != 0 || a.header.Get("Content-Length") != fmt.Sprint(size) {
		t.Errorf("HEAD: got %d, %d bytes, %v", a.status, len(a.body), a.header)
	}
	if a := w.do(http.MethodGet, "/v2/tasks/"+id+"/output?stream=stderr", ""); a.status != http.StatusOK || len(a.body) != 0 {
		t.Errorf("stderr: got %d %q, want nothing", a.status, a.body)
	}
	for _, bad := range []string{"?stream=stdin", "?follow=maybe", "?streem=stdout"} {
		w.problem(w.do(http.MethodGet, "/v2/tasks/"+id+"/output"+bad, ""), http.StatusBadRequest, api.CodeBadRequest)
	}
}

func TestOutputThatBreaksIsTakenUpAgain(t *testing.T) {
	w := newWorld(t)
	id := w.ran(big)
	b := w.stream(task.ID(id), api.Stdout)
	b.breaks = 2
	if a := w.do(http.MethodGet, "/v2/tasks/"+id+"/output", ""); string(a.body) != big {
		t.Errorf("got %d bytes, want all %d over broken connections", len(a.body), len(big))
	}
	b.breaks = 10
	if a, err := w.try(http.MethodGet, "/v2/tasks/"+id+"/output", ""); err == nil && len(a.body) == len(big) {
		t.Error("got everything over ten broken connections, want it given up")
	} else if err == nil {
		t.Errorf("got %d bytes and a clean end", len(a.body))
	}
}

// follow opens a followed stream.
func (w *world) follow(id string) *http.Response {
	w.t.Helper()
	req, err := http.NewRequest(http.MethodGet, w.url+"/v2/tasks/"+id+"/output?follow=true", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.SetBasicAuth(alice, "a-secret")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestFollowShowsOutputAsItComes(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(hello)
	resp := w.follow(string(id)) // pending still: it waits
	tok := w.start(id)
	w.print(id, api.Stdout, "first\n", false)
	line := make([]byte, 6)
	if _, err := io.ReadFull(resp.Body, line); err != nil || string(line) != "first\n" {
		t.Fatalf("got %q, %v, want the first line while the program runs", line, err)
	}
	if a := w.do(http.MethodGet, "/v2/tasks/"+string(id)+"/output", ""); string(a.body) != "first\n" {
		t.Errorf("without follow: got %q, want what there is", a.body)
	}
	w.print(id, api.Stdout, "second\n", true)
	w.finish(tok, exited(0))
	rest, err := io.ReadAll(resp.Body)
	if err != nil || string(rest) != "second\n" {
		t.Errorf("got %q, %v, want the second line and a clean end", rest, err)
	}
	if got := resp.Trailer.Get(api.HeaderBytes); got != "13" || resp.Trailer.Get(api.HeaderTruncated) != "" {
		t.Errorf("got trailers %v, want 13 bytes, not truncated", resp.Trailer)
	}
}

func TestFollowingALostAttemptBreaksOff(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(hello)
	silent := w.submitted(hello)
	tok, other := w.start(id), w.start(silent)
	resp, quiet := w.follow(string(id)), w.follow(string(silent))
	w.print(id, api.Stdout, "of the first attempt", false)
	got := make([]byte, 5)
	if _, err := io.ReadFull(resp.Body, got); err != nil {
		t.Fatal(err)
	}
	for _, lost := range []task.Token{tok, other} {
		w.apply(state.LoseAttempt{Token: lost, Reason: "its node is gone"})
		again := w.start(lost.Task)
		w.print(lost.Task, api.Stdout, "of the second attempt", true)
		w.finish(again, exited(0))
	}
	if rest, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("got %q and a clean end, want it broken: what was sent can't be taken back", rest)
	}
	if all, err := io.ReadAll(quiet.Body); err != nil || string(all) != "of the second attempt" {
		t.Errorf("got %q, %v, want the second attempt alone, for nothing of the first was sent", all, err)
	}
}

func TestOutputOfATaskThatNeverRanIsEmpty(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(hello)
	if a := w.do(http.MethodGet, "/v2/tasks/"+string(id)+"/output", ""); a.status != http.StatusOK || len(a.body) != 0 {
		t.Errorf("pending: got %d %q", a.status, a.body)
	}
	w.apply(state.Stop{Task: id, Outcome: task.Cancelled})
	empty := sha256.Sum256(nil)
	for _, query := range []string{"", "?follow=true"} {
		a := w.do(http.MethodGet, "/v2/tasks/"+string(id)+"/output"+query, "")
		if a.status != http.StatusOK || len(a.body) != 0 || a.header.Get(api.HeaderSHA256) != hex.EncodeToString(empty[:]) {
			t.Errorf("%s: got %d %q %v", query, a.status, a.body, a.header)
		}
	}
}

func TestLiveOutputOutOfReachIsNotEmptyOutput(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(hello)
	w.start(id)
	w.stream(id, api.Stdout).err = &task.Error{Code: task.CodeOutputLost, Message: "unreachable"}
	w.problem(w.do(http.MethodGet, "/v2/tasks/"+string(id)+"/output", ""), http.StatusServiceUnavailable, api.CodeUnreachable)
}

func TestReaderThatLeavesEndsItsFollowing(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(hello)
	w.start(id)
	resp := w.follow(string(id))
	b := w.stream(id, api.Stdout)
	eventually(t, "the output is being read", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return b.reads > 0 })
	resp.Body.Close()
	// Close of the test's server waits for the handler: a leak would hang it.
}
