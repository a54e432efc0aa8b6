package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// SubmitOptions say how a task is submitted.
type SubmitOptions struct {
	// Key is the idempotency key. Empty: the client draws one, so that its own
	// repetitions make no second task.
	Key string
	// Wait is how long the service may wait for the task to finish. Zero: the
	// answer is the task as accepted.
	Wait time.Duration
}

// Submit hands in a task. With Wait the task may have finished in the answer;
// see Task.Finished.
func (c *Client) Submit(ctx context.Context, r TaskRequest, o SubmitOptions) (*Task, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode task: %w", err)
	}
	if o.Key == "" {
		o.Key = newKey()
	}
	header := http.Header{HeaderIdempotencyKey: {o.Key}}
	return c.task(ctx, call{method: http.MethodPost, path: "/v2/tasks", query: waiting(o.Wait), header: header, body: body, wait: o.Wait})
}

// Get gives the task as it is now.
func (c *Client) Get(ctx context.Context, id string) (*Task, error) {
	return c.task(ctx, call{method: http.MethodGet, path: taskPath(id)})
}

// waitAtOnce is how long one request of Wait is held: short enough for any
// proxy on the way.
const waitAtOnce = 50 * time.Second

// Wait gives the task once it has finished, however long that takes: ctx alone
// ends the wait. It never cancels the task.
func (c *Client) Wait(ctx context.Context, id string) (*Task, error) {
	for {
		t, err := c.task(ctx, call{method: http.MethodGet, path: taskPath(id), query: waiting(waitAtOnce), wait: waitAtOnce})
		if err != nil || t.Finished() {
			return t, err
		}
	}
}

// Cancel asks for the task to stop and gives it as it is then: finished, or
// with Stopping set. Cancelling a finished task changes nothing.
func (c *Client) Cancel(ctx context.Context, id string) (*Task, error) {
	return c.task(ctx, call{method: http.MethodPost, path: taskPath(id) + "/cancel"})
}

// ListOptions choose tasks. Zero: all of the caller's.
type ListOptions struct {
	States []string
	Labels []string // "key=value", or "key" for any value; all must match
	Limit  int      // at most MaxList; 0: DefaultList
	Cursor string   // TaskList.Next of the page before
	Owner  string   // a key, or "*" for all; others than the caller's take RoleOperate
}

// List gives one page of the caller's tasks, newest first.
func (c *Client) List(ctx context.Context, o ListOptions) (*TaskList, error) {
	query := url.Values{}
	for _, s := range o.States {
		query.Add("state", s)
	}
	for _, l := range o.Labels {
		query.Add("label", l)
	}
	if o.Limit > 0 {
		query.Set("limit", strconv.Itoa(o.Limit))
	}
	if o.Cursor != "" {
		query.Set("cursor", o.Cursor)
	}
	if o.Owner != "" {
		query.Set("owner", o.Owner)
	}
	list := new(TaskList)
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/v2/tasks", query: query, into: list})
	return list, err
}

// Nodes gives every node the cluster knows.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	list := new(NodeList)
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/v2/nodes", into: list})
	return list.Nodes, err
}

// Node gives one node, by id or by name.
func (c *Client) Node(ctx context.Context, id string) (*Node, error) {
	n := new(Node)
	_, err := c.do(ctx, call{method: http.MethodGet, path: nodePath(id), into: n})
	return n, err
}

// Drain makes a node, named by id or by name, take no new tasks, or take them
// again.
func (c *Client) Drain(ctx context.Context, id string, drain bool) (*Node, error) {
	verb := "/undrain"
	if drain {
		verb = "/drain"
	}
	n := new(Node)
	_, err := c.do(ctx, call{method: http.MethodPost, path: nodePath(id) + verb, into: n})
	return n, err
}

// Images lists what nodes hold: all of them, or one, named by id or by name.
func (c *Client) Images(ctx context.Context, node string) (*ImageList, error) {
	list := new(ImageList)
	q := call{method: http.MethodGet, path: "/v2/images", into: list}
	if node != "" {
		q.query = url.Values{"node": {node}}
	}
	_, err := c.do(ctx, q)
	return list, err
}

// Warm asks for containers of an image that are started ahead; see WarmRequest.
func (c *Client) Warm(ctx context.Context, image string, count int) (*WarmAnswer, error) {
	body, err := json.Marshal(WarmRequest{Image: image, Count: count})
	if err != nil {
		return nil, err
	}
	answer := new(WarmAnswer)
	_, err = c.do(ctx, call{method: http.MethodPost, path: "/v2/images/warm", body: body, into: answer})
	return answer, err
}

// Leave has a node, named by id or by name, leave the cluster in good order; with
// force one that can't be asked is taken out of it.
func (c *Client) Leave(ctx context.Context, id string, force bool) (*Leaving, error) {
	l := new(Leaving)
	q := call{method: http.MethodPost, path: nodePath(id) + "/leave", into: l}
	if force {
		q.query = url.Values{"force": {"true"}}
	}
	_, err := c.do(ctx, q)
	return l, err
}

// Save writes a snapshot of the whole record, whose checksum is at its end: see
// `ecsctl cluster restore`. A write that broke off left no whole one.
func (c *Client) Save(ctx context.Context, w io.Writer) error {
	resp, err := c.do(ctx, call{method: http.MethodPost, path: "/v2/cluster/snapshot"})
	if err != nil {
		return err
	}
	_, err = io.Copy(w, resp.Body)
	return errors.Join(err, resp.Body.Close())
}

// Cluster gives the cluster as one of its control nodes sees it.
func (c *Client) Cluster(ctx context.Context) (*Cluster, error) {
	cl := new(Cluster)
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/v2/cluster", into: cl})
	return cl, err
}

// RotateGossipKey begins a rotation of the key that encrypts gossip; Cluster says how
// far it is.
func (c *Client) RotateGossipKey(ctx context.Context) (*GossipKey, error) {
	k := new(GossipKey)
	_, err := c.do(ctx, call{method: http.MethodPost, path: "/v2/cluster/gossip-key", into: k})
	return k, err
}

func (c *Client) task(ctx context.Context, q call) (*Task, error) {
	t := new(Task)
	q.into = t
	if _, err := c.do(ctx, q); err != nil {
		return nil, err
	}
	return t, nil
}

func taskPath(id string) string { return "/v2/tasks/" + url.PathEscape(id) }
func nodePath(id string) string { return "/v2/nodes/" + url.PathEscape(id) }

func waiting(d time.Duration) url.Values {
	if d <= 0 {
		return nil
	}
	return url.Values{"wait": {Duration(d).String()}}
}
