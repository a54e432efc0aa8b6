package ecstest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"ecs/proto/api"
)

// Client asks control nodes over HTTP, as a user would, and remembers what was
// promised to it.
type Client struct {
	c    *Cluster
	http *http.Client
	mu   struct {
		sync.Mutex
		accepted map[string]promise // by task id
		byKey    map[string]string  // idempotency key -> task id
	}
}

// promise is what the service owes the client.
type promise struct {
	key, delivery string
}

func newClient(c *Cluster) *Client {
	host := c.Net.Host("user")
	cl := &Client{c: c, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return host.Dial(ctx, network, addr)
		},
		DisableKeepAlives: true,
	}}}
	cl.mu.accepted, cl.mu.byKey = make(map[string]promise), make(map[string]string)
	return cl
}

func (cl *Client) close() { cl.http.CloseIdleConnections() }

// Do makes one call of a control node and reads the answer into out, if any.
func (cl *Client) Do(ctx context.Context, node *Control, method, path, key string, body, out any) (int, error) {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://%s:%d%s", node.host.Name(), httpPort, path), reader)
	if err != nil {
		return 0, err
	}
	req.SetBasicAuth("user", "secret")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set(api.HeaderIdempotencyKey, key)
	}
	resp, err := cl.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if out != nil && resp.StatusCode < 300 {
		if err := json.Unmarshal(text, out); err != nil {
			return 0, fmt.Errorf("answer %s: %w", text, err)
		}
	}
	if resp.StatusCode >= 300 && out != nil {
		return resp.StatusCode, fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, text)
	}
	return resp.StatusCode, nil
}

// Submit posts a task under a key to random control nodes until one accepts
// it or ctx ends, and notes the promise. A task under a key that was promised
// before must be the same task.
func (cl *Client) Submit(ctx context.Context, key string, req api.TaskRequest) (string, error) {
	for {
		node := cl.anyNode()
		var t api.Task
		call, cancel := context.WithTimeout(ctx, 15*time.Second)
		status, err := cl.Do(call, node, http.MethodPost, "/v2/tasks", key, req, &t)
		cancel()
		if err == nil && (status == http.StatusAccepted || status == http.StatusOK) {
			return t.ID, cl.note(t.ID, key, req.Delivery)
		}
		if status >= 400 && status < 500 {
			return "", err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return "", fmt.Errorf("submit %s: %w (last: %v)", key, ctx.Err(), err)
		}
	}
}

// anyNode draws a control node. Nodes come and go while tasks are submitted.
func (cl *Client) anyNode() *Control {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return cl.c.Controls[cl.c.Rand.IntN(len(cl.c.Controls))]
}

// setControls changes which control nodes there are.
func (cl *Client) setControls(change func([]*Control) []*Control) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.c.Controls = change(slices.Clone(cl.c.Controls))
}

// pick draws from the cluster's random source, which is not safe for
// concurrent use.
func (cl *Client) pick(n int) int {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return cl.c.Rand.IntN(n)
}

func (cl *Client) note(id, key, delivery string) error {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if key != "" {
		if before, ok := cl.mu.byKey[key]; ok && before != id {
			return fmt.Errorf("key %s is task %s, was task %s", key, id, before)
		}
		cl.mu.byKey[key] = id
	}
	cl.mu.accepted[id] = promise{key: key, delivery: delivery}
	return nil
}

// Accepted lists the tasks that were promised.
func (cl *Client) Accepted() map[string]promise {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	all := make(map[string]promise, len(cl.mu.accepted))
	for id, p := range cl.mu.accepted {
		all[id] = p
	}
	return all
}

// Run submits through a node and waits for the finished task.
func (cl *Client) Run(node *Control, req api.TaskRequest) (api.Task, error) {
	var t api.Task
	_, err := cl.Do(cl.c.ctx, node, http.MethodPost, "/v2/tasks?wait=10m", "", req, &t)
	if err == nil {
		err = cl.note(t.ID, "", req.Delivery)
	}
	return t, err
}

// Script is a request for the fake engine: words of its script language.
func Script(words ...string) api.TaskRequest {
	return api.TaskRequest{Image: "fake:1", Command: words, Timeouts: api.Timeouts{Queue: api.Duration(time.Hour)}}
}
