package ecstest_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"ecs/internal/ecstest"
	"ecs/proto/api"
)

// The lines of one request are gathered from the node that answered it, the
// leader and the agent, in the order of time; a node that is gone is named.
func TestLinesOfOneRequestAreGatheredFromAllNodes(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{Logs: true}, func(c *ecstest.Cluster) {
		asked := c.Controls[0]
		if asked == c.Leader() {
			asked = c.Controls[1]
		}
		done, err := c.Client.Run(asked, ecstest.Script("exit", "3"))
		if err != nil {
			t.Fatal(err)
		}
		other, err := c.Client.Run(asked, ecstest.Script("exit", "4"))
		if err != nil {
			t.Fatal(err)
		}
		c.Settle(time.Minute)
		find := func(cid string) (list api.LogList) {
			t.Helper()
			status, err := c.Client.Do(context.Background(), c.Controls[2], "GET", "/v2/logs?cid="+cid, "", nil, &list)
			if err != nil || status != 200 {
				t.Fatalf("logs of %s: got %d, %v", cid, status, err)
			}
			return list
		}
		list := find(done.CID)
		if list.Asked != 6 || len(list.Silent) != 0 || list.Truncated {
			t.Errorf("got %d nodes asked, silent %v, truncated %v, want 6, none, false", list.Asked, list.Silent, list.Truncated)
		}
		var last time.Time
		nodes := map[string][]string{}
		for _, raw := range list.Lines {
			var line struct {
				Time                        time.Time
				Msg, Node, CID, Task, Owner string
				Attempt                     int
			}
			if err := json.Unmarshal(raw, &line); err != nil {
				t.Fatalf("line %s: %v", raw, err)
			}
			if line.CID != done.CID || line.Task == other.ID || line.Owner != "user" || line.Time.Before(last) {
				t.Errorf("line %s: want only lines of %s, in the order of time", raw, done.CID)
			}
			last = line.Time
			nodes[line.Node] = append(nodes[line.Node], line.Msg)
		}
		for node, msg := range map[string]string{asked.Name(): "request", c.Leader().Name(): "attempt assigned", done.Node: "attempt ended"} {
			if !slices.Contains(nodes[node], msg) {
				t.Errorf("node %s says %q, want %q among it", node, nodes[node], msg)
			}
		}
		if !slices.Contains(nodes[c.Leader().Name()], "task ended") {
			t.Errorf("the leader says %q, want the task's end", nodes[c.Leader().Name()])
		}

		for _, a := range c.Agents {
			if string(a.ID()) == done.Node {
				a.Crash()
			}
		}
		list = find(done.CID)
		if len(list.Silent) != 1 || list.Silent[0].Node != done.Node || list.Silent[0].Role != "agent" || list.Silent[0].Detail == "" || len(list.Lines) == 0 {
			t.Errorf("got %d lines, silent %v, want what the others have and the crashed agent named", len(list.Lines), list.Silent)
		}
	})
}
