package ecstest

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"ecs/internal/task"
)

// Spewed is what the script word spew writes.
func Spewed(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i % 251)
	}
	return p
}

// Open begins to read a task's output, path behind its id, from a control node. The
// body is the caller's to close.
func (cl *Client) Open(node *Control, id, path, ranged string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(cl.c.ctx, http.MethodGet, fmt.Sprintf("http://%s:%d/v2/tasks/%s/%s", node.host.Name(), httpPort, id, path), nil)
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth("user", "secret")
	if ranged != "" {
		req.Header.Set("Range", ranged)
	}
	return cl.http.Do(req)
}

// Read reads it whole.
func (cl *Client) Read(node *Control, id, path, ranged string) (status int, body []byte, err error) {
	resp, err := cl.Open(node, id, path, ranged)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// Holder is the node that holds a finished task's output, as a control node knows.
func (n *Control) Holder(id string) task.NodeID {
	t := n.Snapshot().Task(task.ID(id))
	if t == nil || t.Result == nil {
		return ""
	}
	return t.Result.Holder()
}

// Agent finds an agent by its id, or nil.
func (c *Cluster) Agent(id task.NodeID) *Agent {
	for _, a := range c.Agents {
		if a.ID() == id {
			return a
		}
	}
	return nil
}

// SlowBetween has everything between two agents take so long each way.
func (c *Cluster) SlowBetween(a, b *Agent, d time.Duration) {
	c.Net.Delay(a.host.Name(), b.host.Name(), d, 0)
}
