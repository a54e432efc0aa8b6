package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
	"ecs/proto/api"
)

// client is the real client, as alice.
func (w *world) client() *api.Client {
	w.t.Helper()
	c, err := api.New([]string{w.url}, alice, "a-secret", api.WithPatience(5*time.Second))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

// told is what a watcher saw: states, and the output of each attempt.
type told struct {
	states []string
	text   map[string]string // by attempt and stream
	ids    []string
	last   *api.Task
}

func (w *world) watch(ctx context.Context, id task.ID, after string, each func(api.Event)) told {
	w.t.Helper()
	got := told{text: make(map[string]string)}
	for e, err := range w.client().Events(ctx, string(id), after) {
		if err != nil {
			w.t.Errorf("events: %v", err)
			break
		}
		got.ids = append(got.ids, e.ID)
		if e.Type == api.EventState {
			got.states = append(got.states, e.Task.State)
			got.last = e.Task
		} else {
			key := fmt.Sprintf("%d/%s", e.Output.Attempt, e.Output.Stream)
			data, err := e.Output.Content()
			if err != nil || e.Output.Offset != int64(len(got.text[key])) && after == "" {
				w.t.Errorf("piece %+v behind %d bytes: %v", e.Output, len(got.text[key]), err)
			}
			got.text[key] += string(data)
		}
		if each != nil {
			each(e)
		}
	}
	return got
}

func TestEventsTellStatesAndOutputInOrder(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(hello)
	ending := false
	play := func(e api.Event) {
		switch {
		case e.Type == api.EventState && e.Task.State == api.StatePending:
			w.start(id)
			w.print(id, api.Stdout, "ä"[:1], false) // a character in two pieces
			w.print(id, api.Stdout, "ä"[1:]+"x\n", false)
			w.print(id, api.Stderr, "oops\xff", false)
		case e.Type == api.EventOutput && e.Output.Stream == api.Stdout && !ending:
			ending = true
			if e.Output.Encoding != api.EncodingUTF8 {
				t.Errorf("got %+v, want text as text", e.Output)
			}
			w.print(id, api.Stdout, "end\xc3", true)
			w.print(id, api.Stderr, "", true)
			w.finish(w.Snapshot().Task(id).Live().Token(id), exited(4))
		}
	}
	got := w.watch(context.Background(), id, "", play)
	// Whether assigned is seen depends on how soon the next state follows.
	if states := strings.Replace(strings.Join(got.states, " "), " assigned", "", 1); states != "pending running finished" {
		t.Errorf("got states %q, want pending running finished", states)
	}
	if got.text["1/stdout"] != "äx\nend\xc3" || got.text["1/stderr"] != "oops\xff" {
		t.Errorf("got output %q", got.text)
	}
	if got.last == nil || got.last.ExitCode == nil || *got.last.ExitCode != 4 || got.last.Stdout.Bytes != 8 || got.last.Stdout.Data != "" || got.last.Times == nil {
		t.Errorf("got the end %+v, want the result without its output", got.last)
	}
	// From any of the events on, exactly the rest is told.
	for i, after := range got.ids[:len(got.ids)-1] {
		rest := w.watch(context.Background(), id, after, nil)
		if last := rest.ids[len(rest.ids)-1]; last != got.ids[len(got.ids)-1] {
			t.Errorf("after event %d: got to %s, want %s", i, last, got.ids[len(got.ids)-1])
		}
		var seen mark = parseMark(after)
		if want := "äx\nend\xc3"[seen.streams[0].offset:]; rest.text["1/stdout"] != want {
			t.Errorf("after %s: got %q, want %q", after, rest.text["1/stdout"], want)
		}
	}
	if a := w.do(http.MethodGet, "/v2/tasks/"+string(id)+"/events", "", api.HeaderLastEventID, got.ids[len(got.ids)-1]); a.status != http.StatusNoContent {
		t.Errorf("got %d behind the end, want 204", a.status)
	}
}

func TestEventsTellALostAttemptAndTheNext(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(hello)
	var step atomic.Int32
	got := w.watch(context.Background(), id, "", func(e api.Event) {
		switch {
		case e.Type == api.EventState && e.Task.State == api.StatePending && step.CompareAndSwap(0, 1):
			w.start(id)
			w.print(id, api.Stdout, "first", false)
		case e.Type == api.EventOutput && step.CompareAndSwap(1, 2):
			w.apply(state.LoseAttempt{Token: w.Snapshot().Task(id).Live().Token(id), Reason: "gone"})
		case e.Type == api.EventState && e.Task.State == api.StatePending && step.CompareAndSwap(2, 3):
			tok := w.start(id)
			w.print(id, api.Stdout, "second", true)
			w.finish(tok, exited(0))
		}
	})
	if got.text["1/stdout"] != "first" || got.text["2/stdout"] != "second" {
		t.Errorf("got %q, want both attempts apart", got.text)
	}
	if states := strings.Join(got.states, " "); !strings.HasSuffix(states, "finished") || strings.Count(states, "pending") != 2 {
		t.Errorf("got states %q, want it pending twice", states)
	}
}

func TestEventsOfLostOutputEndWithAMark(t *testing.T) {
	w := newWorld(t)
	id := task.ID(w.ran(big))
	w.stream(id, api.Stdout).err = &task.Error{Code: task.CodeOutputLost, Message: "gone"}
	got := w.watch(context.Background(), id, "", nil)
	if got.last == nil || !got.last.OutputIncomplete {
		t.Errorf("got %+v, want it marked incomplete", got.last)
	}
}

func TestEventsOfAFinishedTaskTellItAll(t *testing.T) {
	w := newWorld(t)
	id := task.ID(w.ran(big))
	got := w.watch(context.Background(), id, "", nil)
	if got.text["1/stdout"] != big || strings.Join(got.states, " ") != "finished" {
		t.Errorf("got %d bytes and states %v, want everything and the end", len(got.text["1/stdout"]), got.states)
	}
}

func TestMarksSurviveTheirText(t *testing.T) {
	m := mark{streams: [2]position{{1, 20}, {2, 0}}, state: task.Running, attempts: 2}
	if got := parseMark(m.String()); got != m {
		t.Errorf("got %+v, want %+v", got, m)
	}
	for _, rubbish := range []string{"", "x", "1.2.3", "1.2.3.4.5.x", "-1.0.0.0.0.0", "1.2.3.4.5.6.7", "99999999999999999999.0.0.0.0.0"} {
		if got := parseMark(rubbish); got != (mark{}) {
			t.Errorf("%q: got %+v, want the beginning", rubbish, got)
		}
	}
}

func TestClientSeesTheServiceAsItIs(t *testing.T) {
	w := newWorld(t)
	w.runs(func(id task.ID) task.Result { w.print(id, api.Stdout, "hi", true); return exited(0) })
	c, ctx := w.client(), context.Background()
	tk, err := c.Submit(ctx, api.TaskRequest{Image: "busybox:1", Command: []string{"x"}, Entrypoint: []string{}, Resources: api.Resources{CPU: 500, Memory: 64 << 20},
		Timeouts: api.Timeouts{Run: api.Duration(time.Minute)}, MaxOutput: 1 << 20, Labels: map[string]string{"a": "b"}}, api.SubmitOptions{Wait: time.Minute})
	if err != nil || !tk.Finished() || tk.Stdout.Data != "hi" || tk.Spec.Resources.Memory != 64<<20 || tk.Spec.Entrypoint == nil {
		t.Fatalf("got %+v, %v", tk, err)
	}
	if tk.IdempotencyKey == "" {
		t.Error("got no key, want one drawn so that repeating is safe")
	}
	if tk, err = c.Wait(ctx, tk.ID); err != nil || tk.Stdout.Data != "hi" {
		t.Errorf("got %+v, %v", tk, err)
	}
	if list, err := c.List(ctx, api.ListOptions{States: []string{"finished"}, Labels: []string{"a=b"}, Limit: 1}); err != nil || len(list.Tasks) != 1 {
		t.Errorf("got %+v, %v, want one task", list, err)
	}
	if tk, err := c.Cancel(ctx, tk.ID); err != nil || tk.Outcome != api.OutcomeExited {
		t.Errorf("got %+v, %v, want it as it ended", tk, err)
	}
	c, err = api.New([]string{w.url}, root, "r-secret", api.WithPatience(0))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n, err := c.Drain(ctx, "agent-1", true)
	if err != nil || !n.Drain || n.ID != "a1" {
		t.Errorf("got %+v, %v, want a1 drained by its name", n, err)
	}
	if _, err := c.Leave(ctx, "agent-1", false); !errors.Is(err, &api.Problem{Code: api.CodeMembership}) {
		t.Errorf("got %v, want the refusal", err)
	}
	if l, err := c.Leave(ctx, "c1", true); err != nil || l.Node != "c1" || l.Role != "control" || l.Detail == "" {
		t.Errorf("got %+v, %v, want c1 to go", l, err)
	}
	var saved bytes.Buffer
	if err := c.Save(ctx, &saved); err != nil {
		t.Errorf("save: %v", err)
	}
	record, _, err := state.OpenArchive(&saved)
	if err != nil {
		t.Fatal(err)
	}
	if s := state.NewStore(state.Limits{}); s.Restore(record) != nil || s.Snapshot().Hash() != w.Snapshot().Hash() {
		t.Error("got another record than the service's, or none")
	}
	if n, err = c.Node(ctx, "a1"); err != nil || !n.Drain || n.Capacity.CPU != 64000 {
		t.Errorf("got %+v, %v", n, err)
	}
	if nodes, err := c.Nodes(ctx); err != nil || len(nodes) != 1 {
		t.Errorf("got %+v, %v", nodes, err)
	}
	if cl, err := c.Cluster(ctx); err != nil || cl.Leader != "c1" || len(cl.Voters) != 1 || !cl.Voters[0].Leader || cl.Tasks.Finished != 1 || !cl.Health.Ready {
		t.Errorf("got %+v, %v", cl, err)
	}
}
