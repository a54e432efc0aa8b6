package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// How many log lines one answer holds.
const (
	DefaultLogLines = 1000
	MaxLogLines     = 5000
)

// gatherWithin is how long the service may look for log lines.
const gatherWithin = 10 * time.Second

// LogList is what the nodes of a cluster wrote of late about one request.
type LogList struct {
	CID string `json:"cid"`
	// Lines are JSON objects, oldest first by the clocks of their nodes, each
	// with time, level, msg and cid, and, where there are any, node, task and
	// attempt.
	Lines     []json.RawMessage `json:"lines"`
	Truncated bool              `json:"truncated"` // older lines were left out
	Asked     int               `json:"asked"`     // nodes
	Silent    []SilentNode      `json:"silent"`    // those that did not answer
}

// SilentNode is a node that gave no lines.
type SilentNode struct {
	Node   string `json:"node"`
	Role   string `json:"role"` // control | agent
	Detail string `json:"detail"`
}

// Logs gathers the newest log lines of a correlation id that are the caller's,
// or for an operator everybody's, at most limit; 0 is DefaultLogLines. Nodes keep the last few MiB of their
// logs: what is older is gone here.
func (c *Client) Logs(ctx context.Context, cid string, limit int) (*LogList, error) {
	query := url.Values{"cid": {cid}}
	if limit > 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	list := new(LogList)
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/v2/logs", query: query, wait: gatherWithin, into: list})
	return list, err
}
