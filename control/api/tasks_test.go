package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
	"ecs/proto/api"
)

const hello = `{"image":"busybox:1","command":["echo","hello"]}`

func TestSubmitAnswersOnceCommitted(t *testing.T) {
	w := newWorld(t)
	a := w.do(http.MethodPost, "/v2/tasks", hello)
	got := w.task(a)
	if a.status != http.StatusAccepted || got.State != api.StatePending || a.header.Get("Location") != "/v2/tasks/"+got.ID || w.Snapshot().Task(task.ID(got.ID)) == nil {
		t.Errorf("got %d %s, want 202 with a pending task that is committed", a.status, a.body)
	}
	if got.Spec.Image != "busybox:1" || got.Spec.Timeouts.Queue != api.Duration(24*time.Hour) || got.Attempts == nil || got.Stdout != nil {
		t.Errorf("got %s, want the spec with its defaults and no output", a.body)
	}
}

func TestWaitingSubmitAnswersWithTheResult(t *testing.T) {
	w := newWorld(t)
	w.runs(func(id task.ID) task.Result {
		w.print(id, api.Stdout, "hello\n", true)
		w.print(id, api.Stderr, "\xff", true)
		return exited(3)
	})
	a := w.do(http.MethodPost, "/v2/tasks?wait=60s", hello)
	got := w.task(a)
	if a.status != http.StatusOK || got.State != api.StateFinished || got.Outcome != api.OutcomeExited || got.ExitCode == nil || *got.ExitCode != 3 {
		t.Fatalf("got %d %s, want 200 with exit code 3", a.status, a.body)
	}
	if got.Stdout.Data != "hello\n" || got.Stdout.Encoding != api.EncodingUTF8 || got.Stdout.Bytes != 6 || got.Stdout.Truncated {
		t.Errorf("got stdout %+v", got.Stdout)
	}
	if data, err := got.Stderr.Content(); got.Stderr.Encoding != api.EncodingBase64 || string(data) != "\xff" || err != nil {
		t.Errorf("got stderr %+v, want the byte in base64", got.Stderr)
	}
	if got.Node != "a1" || got.Zone != "a" || len(got.Attempts) != 1 || got.Attempts[0].Outcome != api.OutcomeExited {
		t.Errorf("got node %s, zone %s, attempts %+v", got.Node, got.Zone, got.Attempts)
	}
	if got.Spec.Timeouts.Queue != api.Duration(time.Minute) {
		t.Errorf("got queue limit %s, want a minute for a waiting caller", got.Spec.Timeouts.Queue)
	}
	if got.Times == nil || *got.Times.Run != 30 || *got.Times.Total <= 0 || got.OverheadMS == nil || *got.Times.Transfer < 0 {
		t.Errorf("got times %s", a.body)
	}
	list := decodeAs[api.TaskList](t, w.do(http.MethodGet, "/v2/tasks", ""))
	if len(list.Tasks) != 1 || list.Tasks[0].Times == nil || *list.Tasks[0].Times.Run != 30 || list.Tasks[0].OverheadMS == nil {
		t.Errorf("got the list %+v, want where its time went too", list.Tasks)
	}
	timing := a.header.Get("Server-Timing")
	for _, part := range []string{"accepted;dur=", "committed;dur=", "queued;dur=", "run;dur=30.000", "transfer;dur=", "answered;dur=", "total;dur="} {
		if !strings.Contains(timing, part) {
			t.Errorf("got Server-Timing %q, want %s in it", timing, part)
		}
	}
}

func TestWaitThatIsOverAnswersThePresentState(t *testing.T) {
	w := newWorld(t)
	a := w.do(http.MethodPost, "/v2/tasks?wait=20ms", hello)
	got := w.task(a)
	if a.status != http.StatusAccepted || got.State != api.StatePending || got.WaitingBecause != "0 of 1 nodes can take it" || got.QueuePosition != 2 {
		t.Errorf("got %d %s, want 202 and why it waits", a.status, a.body)
	}
	w.start(task.ID(got.ID))
	got = w.task(w.do(http.MethodGet, "/v2/tasks/"+got.ID+"?wait=20ms", ""))
	if got.State != api.StateRunning || got.WaitingBecause != "" || got.Node != "a1" {
		t.Errorf("got %+v, want it running on a1 and no reason to wait", got)
	}
}

func TestMissingExplanationIsLeftOut(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(hello)
	w.explain = func(ctx context.Context) (string, int, error) { return "", 0, errors.New("no leader") }
	if a := w.do(http.MethodGet, "/v2/tasks/"+string(id), ""); a.status != http.StatusOK || w.task(a).WaitingBecause != "" {
		t.Errorf("got %d %s, want the task without a reason", a.status, a.body)
	}
}

func TestWaiterWakesWhenTheTaskEnds(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(hello)
	done := make(chan answer, 1)
	go func() {
		a, err := w.try(http.MethodGet, "/v2/tasks/"+string(id)+"?wait=60s", "")
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	tok := w.start(id)
	w.finish(tok, exited(0))
	select {
	case a := <-done:
		if a.status != http.StatusOK || w.task(a).State != api.StateFinished {
			t.Errorf("got %d %s", a.status, a.body)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the waiter was not woken")
	}
}

func TestCallerThatGoesAwayCancelsNothing(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/v2/tasks?wait=60s", "/v1.1/tasks"} {
		body := hello
		if strings.HasPrefix(path, "/v1") {
			body = v1("")
		}
		ctx, cancel := context.WithCancel(context.Background())
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(alice, "a-secret")
		before := w.Snapshot().Counts().Pending
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
			}
		}()
		eventually(t, "the task is there", func() bool { return w.Snapshot().Counts().Pending > before })
		cancel()
		<-ended
	}
	for tk := range w.Snapshot().Newest(0) {
		if tk.State != task.Pending || tk.StopAs != "" {
			t.Errorf("got %s %s, want it still pending", tk.State, tk.StopAs)
		}
	}
}

func TestSameKeyIsTheSameTask(t *testing.T) {
	w := newWorld(t)
	w.runs(func(id task.ID) task.Result { w.print(id, api.Stdout, "of "+string(id), true); return exited(0) })
	for _, tc := range []struct{ path, body, same, other string }{
		{"/v2/tasks?wait=60s", hello, "{ \"command\":[\"echo\", \"hell\\u006f\"],\n \"image\":\"busybox:1\" }", `{"image":"busybox:2"}`},
		{"/v1.1/tasks", v1(""), `{"cmd":["true"],"docker_image":"busybox:1"}`, `{"docker_image":"busybox:2","cmd":["true"]}`},
	} {
		key := "key of " + tc.path
		first := w.do(http.MethodPost, tc.path, tc.body, api.HeaderIdempotencyKey, key)
		again := w.do(http.MethodPost, tc.path, tc.same, api.HeaderIdempotencyKey, key)
		if first.status != again.status || first.header.Get("Location") != again.header.Get("Location") {
			t.Errorf("%s: got %d %s, then %d %s", tc.path, first.status, first.body, again.status, again.body)
		}
		if strings.HasPrefix(tc.path, "/v1") && string(first.body) != string(again.body) {
			t.Errorf("got %s, then %s", first.body, again.body)
		}
		w.problem(w.do(http.MethodPost, tc.path, tc.other, api.HeaderIdempotencyKey, key), http.StatusConflict, api.CodeKeyConflict)
		if a := w.do(http.MethodPost, tc.path, tc.body, api.HeaderIdempotencyKey, key, "Authorization", basic(bob, "b-secret")); a.header.Get("Location") == first.header.Get("Location") {
			t.Errorf("%s: bob got alice's task %s", tc.path, a.body)
		}
	}
	for _, key := range []string{"", strings.Repeat("x", 256), "a\tb"} {
		p := w.problem(w.do(http.MethodPost, "/v2/tasks", hello, api.HeaderIdempotencyKey, key), http.StatusBadRequest, api.CodeBadRequest)
		if len(p.Errors) != 1 || p.Errors[0].Parameter != api.HeaderIdempotencyKey {
			t.Errorf("%q: got %+v, want the header named", key, p.Errors)
		}
	}
}

func TestRefusalsOfTheClusterReachTheCaller(t *testing.T) {
	w := newWorld(t)
	for code, status := range map[task.Code]int{task.CodeNoLeader: 503, task.CodeUnknown: 503, task.CodeQueueFull: 503, task.CodeUnschedulable: 422, task.CodeTooLarge: 413} {
		w.refuse = &task.Error{Code: code, Message: "because"}
		if p := w.problem(w.do(http.MethodPost, "/v2/tasks", hello), status, api.Code(code)); p.Detail != "because" {
			t.Errorf("%s: got %+v, want the reason", code, p)
		}
	}
	// A v1 caller has no say in what the task needs: it may try again.
	w.refuse = &task.Error{Code: task.CodeUnschedulable, Message: "no node has egress"}
	a := w.do(http.MethodPost, "/v1.1/tasks", v1(""))
	if w.problem(a, http.StatusServiceUnavailable, api.CodeUnschedulable); a.header.Get("Retry-After") == "" {
		t.Error("got no Retry-After")
	}
	w.refuse = fmt.Errorf("propose: %w", context.DeadlineExceeded)
	w.problem(w.do(http.MethodPost, "/v2/tasks", hello), http.StatusServiceUnavailable, api.CodeUnknown)
	w.refuse = errors.New("a broken thing")
	if p := w.problem(w.do(http.MethodPost, "/v2/tasks", hello), http.StatusInternalServerError, api.CodeInternal); strings.Contains(p.Detail, "broken") {
		t.Errorf("got %q, want nothing of the inside", p.Detail)
	}
}

func TestUnknownTaskIsAskedOfTheLeaderFirst(t *testing.T) {
	w := newWorld(t)
	w.problem(w.do(http.MethodGet, "/v2/tasks/none", ""), http.StatusNotFound, api.CodeNotFound)
	if w.syncs != 1 {
		t.Errorf("got %d syncs, want one before saying no", w.syncs)
	}
	w.behind = true
	w.problem(w.do(http.MethodGet, "/v2/tasks/none", ""), http.StatusServiceUnavailable, api.CodeNoLeader)
}

// Another node may have been told of a cancellation that this one does not know.
func TestAReadSeesWhatWasWrittenElsewhere(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(hello)
	path := "/v2/tasks/" + string(id)
	w.catchUp = func() { w.apply(state.Stop{Task: id, Outcome: task.Cancelled}) }
	if got := w.task(w.do(http.MethodGet, path, "")); got.Outcome != string(task.Cancelled) {
		t.Errorf("got %s %s, want it cancelled", got.State, got.Outcome)
	}
	w.behind = true // what has finished needs nobody
	if a := w.do(http.MethodGet, path, ""); a.status != http.StatusOK {
		t.Errorf("got status %d of a finished task, want 200", a.status)
	}
	id = w.submitted(hello)
	w.problem(w.do(http.MethodGet, "/v2/tasks/"+string(id), ""), http.StatusServiceUnavailable, api.CodeNoLeader)
}

func TestTasksOfOthersAreNotThere(t *testing.T) {
	w := newWorld(t)
	id := string(w.submitted(hello))
	asBob := []string{"Authorization", basic(bob, "b-secret")}
	for _, rt := range [][2]string{{"GET", ""}, {"GET", "/output"}, {"GET", "/events"}, {"POST", "/cancel"}} {
		syncs := w.syncs
		theirs := w.do(rt[0], "/v2/tasks/"+id+rt[1], "", asBob...)
		none := w.do(rt[0], "/v2/tasks/none"+rt[1], "", asBob...)
		p, q := w.problem(theirs, http.StatusNotFound, api.CodeNotFound), w.problem(none, http.StatusNotFound, api.CodeNotFound)
		if p.Detail != q.Detail || p.Title != q.Title || w.syncs != syncs+2 {
			t.Errorf("%s: got %+v and %+v after %d syncs, want the same for both", rt[1], p, q, w.syncs-syncs)
		}
	}
	if list := decodeAs[api.TaskList](t, w.do(http.MethodGet, "/v2/tasks", "", asBob...)); len(list.Tasks) != 0 {
		t.Errorf("bob lists %+v", list.Tasks)
	}
	if w.Snapshot().Task(task.ID(id)).StopAs != "" || w.Snapshot().Task(task.ID(id)).State != task.Pending {
		t.Error("bob cancelled alice's task")
	}
}

func TestCancelIsIdempotent(t *testing.T) {
	w := newWorld(t)
	pending := string(w.submitted(hello))
	a := w.do(http.MethodPost, "/v2/tasks/"+pending+"/cancel", "")
	if got := w.task(a); a.status != http.StatusOK || got.Outcome != api.OutcomeCancelled {
		t.Errorf("pending: got %d %s, want it cancelled at once", a.status, a.body)
	}
	running := w.submitted(hello)
	tok := w.start(running)
	for range 2 {
		a = w.do(http.MethodPost, "/v2/tasks/"+string(running)+"/cancel", "{}")
		if got := w.task(a); a.status != http.StatusAccepted || got.State != api.StateRunning || got.Stopping != api.OutcomeCancelled {
			t.Errorf("running: got %d %s, want 202 and that it stops", a.status, a.body)
		}
	}
	w.finish(tok, task.Result{Outcome: task.Cancelled})
	for _, path := range []string{"/cancel", "/cancel?wait=5s"} {
		a = w.do(http.MethodPost, "/v2/tasks/"+string(running)+path, "")
		if got := w.task(a); a.status != http.StatusOK || got.Outcome != api.OutcomeCancelled {
			t.Errorf("finished: got %d %s, want it as it is", a.status, a.body)
		}
	}
	p := w.problem(w.do(http.MethodPost, "/v2/tasks/"+pending+"/cancel", `{"force":true}`), http.StatusBadRequest, api.CodeInvalidTask)
	if len(p.Errors) != 1 || p.Errors[0].Pointer != "/force" {
		t.Errorf("got %+v, want /force", p.Errors)
	}
	w.problem(w.do(http.MethodPost, "/v2/tasks/none/cancel", ""), http.StatusNotFound, api.CodeNotFound)
}

func TestListShowsOwnTasksNewestFirst(t *testing.T) {
	w := newWorld(t)
	for i := range 25 {
		w.submitted(fmt.Sprintf(`{"image":"busybox:1","labels":{"n":"%d","even":"%v"}}`, i, i%2 == 0))
	}
	w.finish(w.start("t25"), exited(0))
	ids := func(path string) (got []string) {
		for pages := 0; ; pages++ {
			page := decodeAs[api.TaskList](t, w.do(http.MethodGet, path, ""))
			for _, tk := range page.Tasks {
				if tk.Stdout != nil && tk.Stdout.Data != "" {
					t.Error("a list carries output")
				}
				got = append(got, tk.ID)
			}
			if page.Next == "" || pages > 30 {
				return got
			}
			path, _, _ = strings.Cut(path, "&cursor=")
			path += "&cursor=" + page.Next
		}
	}
	if got := ids("/v2/tasks?limit=10"); len(got) != 25 || got[0] != "t25" || got[24] != "t1" {
		t.Errorf("got %v, want t25 to t1 over three pages", got)
	}
	for path, want := range map[string]int{"?state=pending": 24, "?state=finished": 1, "?state=pending,finished": 25, "?state=pending&state=finished": 25,
		"?label=even=true": 13, "?label=even=true&label=n=4": 1, "?label=even": 25, "?label=none": 0, "?label=n=": 0, "?limit=3&state=finished": 1} {
		if got := ids("/v2/tasks" + path); len(got) != want {
			t.Errorf("%s: got %v, want %d", path, got, want)
		}
	}
	for _, bad := range []string{"?state=done", "?limit=0", "?limit=1001", "?limit=x", "?cursor=!", "?label==x", "?page=2"} {
		w.problem(w.do(http.MethodGet, "/v2/tasks"+bad, ""), http.StatusBadRequest, api.CodeBadRequest)
	}
}

func TestListPagesAreBoundedInBytes(t *testing.T) {
	w := newWorld(t)
	for range 20 {
		w.submitted(`{"image":"busybox:1","env":["A=` + strings.Repeat("x", 120_000) + `","B=` + strings.Repeat("x", 120_000) + `"]}`)
	}
	total := 0
	for path := "/v2/tasks?limit=1000"; ; {
		a := w.do(http.MethodGet, path, "")
		if len(a.body) > pageAtMost+1<<20 {
			t.Errorf("got a page of %d bytes, want about %d at most", len(a.body), pageAtMost)
		}
		page := decodeAs[api.TaskList](t, a)
		if total += len(page.Tasks); page.Next == "" {
			break
		}
		path = "/v2/tasks?limit=1000&cursor=" + page.Next
	}
	if total != 20 {
		t.Errorf("got %d tasks over all pages, want 20", total)
	}
}

func TestForgottenTaskEndsItsWaiters(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(hello)
	h := &Handler{cfg: Config{Reader: w}}
	pending := w.Snapshot().Task(id)
	w.finish(w.start(id), exited(0))
	w.apply(state.Forget{Tasks: []task.ID{id}})
	if _, err := h.await(context.Background(), pending, 0); !errors.Is(err, &task.Error{Code: task.CodeNotFound}) {
		t.Errorf("got %v, want not_found", err)
	}
}
