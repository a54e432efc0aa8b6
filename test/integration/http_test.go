package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"ecs/proto/api"
)

var httpClient = &http.Client{Timeout: 5 * time.Minute}

// call makes one request of endpoint i with the cluster's key.
func (c *cluster) call(i int, method, path string, body any, header ...string) (int, http.Header, []byte) {
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = bytes.NewReader([]byte(b))
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return 0, nil, []byte(err.Error())
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, c.Endpoints[i%len(c.Endpoints)]+path, reader)
	if err != nil {
		return 0, nil, []byte(err.Error())
	}
	req.SetBasicAuth(c.Key, c.Secret)
	if reader != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for h := 0; h+1 < len(header); h += 2 {
		req.Header.Set(header[h], header[h+1])
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return 0, nil, []byte(err.Error())
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, resp.Header, []byte(err.Error())
	}
	return resp.StatusCode, resp.Header, text
}

func (c *cluster) get(i int, path string) (int, http.Header, []byte) {
	return c.call(i, http.MethodGet, path, nil)
}

// run submits a v2 task through endpoint i and waits for it.
func (c *cluster) run(t *testing.T, i int, req api.TaskRequest) api.Task {
	t.Helper()
	return c.submit(t, i, "/v2/tasks?wait=5m", req, http.StatusOK)
}

// start submits without waiting.
func (c *cluster) start(t *testing.T, i int, req api.TaskRequest) api.Task {
	t.Helper()
	return c.submit(t, i, "/v2/tasks", req, http.StatusAccepted)
}

func (c *cluster) submit(t *testing.T, i int, path string, req api.TaskRequest, want int) api.Task {
	t.Helper()
	status, _, body := c.call(i, http.MethodPost, path, req)
	if status != want {
		t.Fatalf("POST %s: got %d %s, want %d", path, status, body, want)
	}
	var task api.Task
	if err := json.Unmarshal(body, &task); err != nil {
		t.Fatalf("answer %s: %v", body, err)
	}
	return task
}

// task reads a task through endpoint i, or the next that answers; the zero task
// when none does.
func (c *cluster) task(i int, id string) api.Task {
	for n := range c.Endpoints {
		var task api.Task
		status, _, body := c.get(i+n, "/v2/tasks/"+id)
		if status == http.StatusOK && json.Unmarshal(body, &task) == nil {
			return task
		}
	}
	return api.Task{}
}

// await waits for a task's end.
func (c *cluster) await(t *testing.T, id string, limit time.Duration) api.Task {
	t.Helper()
	var task api.Task
	i := 0
	within(t, limit, "task "+id+" finished", func() bool {
		i++
		task = c.task(i, id)
		return task.Finished()
	})
	return task
}

// v1Answer is what the old contract answers.
type v1Answer struct {
	ExitCode int    `json:"exitCode"`
	Stdout   []byte `json:"stdout"` // base64 on the wire, as encoding/json does it
	Stderr   []byte `json:"stderr"`
}

func (c *cluster) v1(t *testing.T, i int, image string, cmd ...string) v1Answer {
	t.Helper()
	status, _, body := c.call(i, http.MethodPost, "/v1.1/tasks", map[string]any{"docker_image": image, "cmd": cmd})
	if status != http.StatusCreated {
		t.Fatalf("v1 %v: got %d %s, want 201", cmd, status, body)
	}
	var a v1Answer
	if err := json.Unmarshal(body, &a); err != nil {
		t.Fatalf("answer %.200s: %v", body, err)
	}
	return a
}

func content(t *testing.T, s *api.Stream) []byte {
	t.Helper()
	if s == nil {
		t.Fatal("the answer has no such stream")
	}
	data, err := s.Content()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// problem reads a problem+json answer.
func problem(t *testing.T, header http.Header, body []byte) api.Problem {
	t.Helper()
	if got := header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("got Content-Type %q, want application/problem+json", got)
	}
	var p api.Problem
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatalf("problem %s: %v", body, err)
	}
	return p
}

func sh(script string) []string { return []string{"sh", "-c", script} }

func sizeOf(n int) string { return fmt.Sprint(n) }

func decodeJSON[T any](t *testing.T, text []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("answer %.300s: %v", text, err)
	}
	return v
}
