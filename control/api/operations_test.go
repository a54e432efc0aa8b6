package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"go.yaml.in/yaml/v3"

	"ecs/internal/task"
	"ecs/proto/api"
)

// every calls each operation of the description so that it does what it is for.
// Every answer is held against the description, as those of all tests are.
func every(w *world) map[string]func() int {
	finished := w.ran("hello")
	waiting := func() string { return string(w.submitted(`{"image":"busybox:1"}`)) }
	call := func(method, path, body string) func() int {
		return func() int { return w.do(method, path, body).status }
	}
	const get, post, del = http.MethodGet, http.MethodPost, http.MethodDelete
	calls := map[string]func() int{
		"POST /v2/tasks":             call(post, "/v2/tasks", `{"image":"busybox:1"}`),
		"GET /v2/tasks":              call(get, "/v2/tasks", ""),
		"GET /v2/tasks/{id}":         call(get, "/v2/tasks/"+finished, ""),
		"POST /v2/tasks/{id}/cancel": func() int { return w.do(post, "/v2/tasks/"+waiting()+"/cancel", "").status },
		"GET /v2/tasks/{id}/output":  call(get, "/v2/tasks/"+finished+"/output?stream=stdout", ""),
		"GET /v2/tasks/{id}/outputs": func() int { return w.do(get, "/v2/tasks/"+w.left("a tar", exited(0))+"/outputs", "").status },
		"GET /v2/tasks/{id}/events":  call(get, "/v2/tasks/"+finished+"/events", ""),
		"GET /v2/tasks/{id}/attach": func() int {
			c := w.attach(task.ID(finished), "")
			_ = c.conn.Close(websocket.StatusNormalClosure, "")
			return http.StatusSwitchingProtocols
		},
		"GET /v2/nodes":      call(get, "/v2/nodes", ""),
		"GET /v2/nodes/{id}": call(get, "/v2/nodes/a1", ""),
		"POST /v2/nodes/{id}/drain": func() int {
			status := w.do(post, "/v2/nodes/a1/drain", "").status
			w.do(post, "/v2/nodes/a1/undrain", "") // others run tasks there
			return status
		},
		"POST /v2/nodes/{id}/undrain": call(post, "/v2/nodes/a1/undrain", ""),
		"POST /v2/nodes/{id}/leave":   call(post, "/v2/nodes/a1/leave?force=true", ""),
		"GET /v2/images":              call(get, "/v2/images", ""),
		"POST /v2/images/warm":        call(post, "/v2/images/warm", `{"image":"busybox:1","count":1}`),
		"GET /v2/cluster":             call(get, "/v2/cluster", ""),
		"POST /v2/cluster/snapshot":   call(post, "/v2/cluster/snapshot", ""),
		"POST /v2/cluster/gossip-key": call(post, "/v2/cluster/gossip-key", ""),
		"GET /v2/keys":                call(get, "/v2/keys", ""),
		"POST /v2/keys":               call(post, "/v2/keys", `{"role":"run"}`),
		"DELETE /v2/keys/{id}": func() int {
			made := decodeAs[api.Key](w.t, w.do(post, "/v2/keys", `{"role":"run"}`))
			return w.do(del, "/v2/keys/"+made.ID, "").status
		},
		"GET /v2/join/tokens": call(get, "/v2/join/tokens", ""),
		"DELETE /v2/join/tokens/{id}": func() int {
			made := decodeAs[api.IssuedToken](w.t, w.do(post, "/v2/join/tokens", `{"role":"agent"}`))
			return w.do(del, "/v2/join/tokens/"+tokenID(w.t, made.Token), "").status
		},
		"POST /v2/join/tokens": call(post, "/v2/join/tokens", `{"role":"agent"}`),
		"POST /v2/join": func() int {
			made := decodeAs[api.IssuedToken](w.t, w.do(post, "/v2/join/tokens", `{"role":"agent"}`))
			return w.do(post, "/v2/join", fmt.Sprintf(`{"token":%q,"role":"agent","request":"r"}`, made.Token), "Authorization", "").status
		},
		"GET /v2/revocations":  call(get, "/v2/revocations", ""),
		"POST /v2/revocations": call(post, "/v2/revocations", `{"node":"a1"}`),
		"GET /v2/logs":         call(get, "/v2/logs?cid=c", ""),
		"GET /metrics":         call(get, "/metrics", ""),
		"GET /openapi.yaml":    call(get, "/openapi.yaml", ""),
		"GET /docs":            call(get, "/docs", ""),
		"GET /":                call(get, "/", ""),
	}
	for _, v := range []string{"/v1.0/", "/v1.1/"} {
		body := `{"docker_image":"busybox:1","cmd":["true"]}`
		if v == "/v1.0/" {
			body = `{"docker_image":"busybox","tag":"1","cmd":["true"]}`
		}
		calls["POST "+v+"tasks"], calls["POST "+v+"tasks/"] = call(post, v+"tasks", body), call(post, v+"tasks/", body)
		for _, name := range []string{"_version", "_noop", "_health"} {
			calls["GET "+v+name] = call(get, v+name, "")
		}
	}
	return calls
}

func TestEveryOperationAnswersAsDescribed(t *testing.T) {
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	calls := every(w)
	w.runsV1()
	for _, name := range slices.Sorted(maps.Keys(d.operations)) {
		op, call := d.operations[name], calls[name]
		if call == nil {
			t.Errorf("%s is not called here", name)
			continue
		}
		status := call()
		best := http.StatusNotImplemented
		for text := range op.responses {
			if text[0] <= '2' {
				best = 0
			}
		}
		if best == 0 && status >= 300 || best != 0 && status != best {
			t.Errorf("%s: got %d, want what it is for", name, status)
		}
		if status == http.StatusSwitchingProtocols {
			continue
		}
		d.mu.Lock()
		for _, code := range []string{"200", "201", "202", "501"} {
			if d.seen[name+" "+code] {
				status = 0
			}
		}
		d.mu.Unlock()
		if status != 0 {
			t.Errorf("%s: its answer was not held against the description", name)
		}
	}
	for name := range calls {
		if _, ok := d.operations[name]; !ok {
			t.Errorf("%s is called but not described", name)
		}
	}
}

// runsV1 plays the agent for v1 tasks, which are waited for.
func (w *world) runsV1() {
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		for ctx.Err() == nil {
			changed := w.Snapshot().WatchPending()
			for _, t := range slices.Collect(w.Snapshot().Pending()) {
				if t.API == task.V1 {
					w.finish(w.start(t.ID), exited(0))
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}()
	w.t.Cleanup(func() { cancel(); <-over })
}

// Every example of a request in the description is accepted as it is written.
func TestExamplesAreAccepted(t *testing.T) {
	w := newWorld(t)
	w.runsV1()
	var doc struct {
		Paths map[string]map[string]yaml.Node
	}
	if err := yaml.Unmarshal([]byte(api.OpenAPI()), &doc); err != nil {
		t.Fatal(err)
	}
	tried := 0
	for path, item := range doc.Paths {
		node := item["post"]
		var op operationYAML
		if err := node.Decode(&op); node.Kind != 0 && err != nil {
			t.Fatal(err)
		}
		for name, example := range op.RequestBody.Content["application/json"].Examples {
			body, err := json.Marshal(example.Value)
			if err != nil {
				t.Fatal(err)
			}
			tried++
			if a := w.do(http.MethodPost, path, string(body)); a.status >= 300 {
				t.Errorf("example %s of %s: got %d %s", name, path, a.status, a.body)
			}
		}
	}
	if tried < 6 {
		t.Errorf("got %d examples, want some of every operation that takes a task", tried)
	}
}

func TestDocsShowEveryOperationAndAskForNothingElse(t *testing.T) {
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	a := w.do(http.MethodGet, "/docs", "", "Authorization", "")
	page := string(a.body)
	for name := range d.operations {
		method, path, _ := strings.Cut(name, " ")
		if !strings.Contains(page, "<code>"+method+" "+path+"</code>") {
			t.Errorf("the page lacks %s", name)
		}
	}
	if n := strings.Count(page, " in the benchmark.") + strings.Count(page, "Not measured."); n != len(d.operations) {
		t.Errorf("%d of %d operations say how long they take", n, len(d.operations))
	}
	if !strings.Contains(page, `-d &#39;{&#34;command&#34;:[&#34;echo&#34;,&#34;hello&#34;],&#34;image&#34;:&#34;ecs-demo/busybox:1&#34;}&#39;`) {
		t.Error("the page lacks the example's call")
	}
	for _, never := range []string{"<script", "http://", "https://", " style=", "onclick"} {
		if i := strings.Index(page, never); i >= 0 && !strings.Contains(page[max(0, i-60):min(len(page), i+60)], "ECS_ENDPOINT") {
			t.Errorf("the page holds %q: ...%s", never, page[max(0, i-40):min(len(page), i+40)])
		}
	}
	if csp := a.header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none';") || strings.Contains(csp, "unsafe") {
		t.Errorf("got policy %q", csp)
	}
}
