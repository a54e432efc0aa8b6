package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ecs/proto/api"
)

const (
	burst = 500
	room  = 20 // tasks that the cluster holds at once
)

// TestBurstThroughALostLeader submits 500 tasks at once over three control
// nodes against room for 20 and kills the leader in the middle of it.
func TestBurstThroughALostLeader(t *testing.T) {
	// 5 agents of 1 CPU with room for 4 tasks of 0.25 CPU each.
	c := ownCluster(t, "--agents", "5", "--zones", "a,b,c", "--agent-cpus", "1")
	ids := c.submitBurst(t)

	waiting := c.waitingTask(t, ids)
	out, _, code := c.ecsctl("tasks", "show", waiting)
	if code != 0 || !strings.Contains(out, "room") {
		t.Errorf("tasks show of a waiting one: exit %d\n%s\nwant the sentence that says why it waits", code, out)
	}
	within(t, 4*time.Minute, "50 tasks ended", func() bool { return c.finished(0) >= 50 })
	c.killLeader(t)

	// Clients that lost their connection post the same key elsewhere.
	var mu sync.Mutex
	forEach(burst, 16, func(n int) {
		again := c.post(t, n+1, n)
		mu.Lock()
		defer mu.Unlock()
		if again != ids[n] {
			t.Errorf("key %d: got task %s from another node, want %s", n, again, ids[n])
		}
	})
	var busiest int
	within(t, 15*time.Minute, "every task ended", func() bool {
		busiest = max(busiest, c.checkCapacity(t))
		return c.finished(0) == burst
	})
	if busiest > room {
		t.Errorf("%d attempts at once, room is for %d", busiest, room)
	}
	for n, id := range ids {
		got := c.task(n, id)
		if got.Outcome != api.OutcomeExited || codeOf(got) != fmt.Sprint(n%7) || len(got.Attempts) != 1 {
			t.Errorf("task %d: got %s %s after %d attempts (%s), want exited %d after 1", n, got.Outcome, codeOf(got), len(got.Attempts), got.Reason, n%7)
			continue
		}
		if text := string(content(t, got.Stdout)); text != fmt.Sprintf("task %d\n", n) {
			t.Errorf("task %d: got stdout %q", n, text)
		}
	}
}

func burstRequest(n int) api.TaskRequest {
	return api.TaskRequest{Image: busybox, Command: sh(fmt.Sprintf("echo task %d; exit %d", n, n%7)),
		Resources: api.Resources{CPU: api.CPU(250), Memory: 32 << 20}, Timeouts: api.Timeouts{Queue: api.Duration(10 * time.Minute)}}
}

// post submits task n of the burst under its key until a node accepts it.
func (c *cluster) post(t *testing.T, endpoint, n int) string {
	deadline := time.Now().Add(time.Minute)
	for {
		status, _, body := c.call(endpoint, http.MethodPost, "/v2/tasks", burstRequest(n), api.HeaderIdempotencyKey, fmt.Sprintf("burst-%d", n))
		var task api.Task
		if (status == http.StatusAccepted || status == http.StatusOK) && json.Unmarshal(body, &task) == nil {
			return task.ID
		}
		if time.Now().After(deadline) {
			t.Errorf("task %d was not accepted within a minute: %d %s", n, status, body)
			return ""
		}
		endpoint++ // the next node, as a client would
		<-time.After(50 * time.Millisecond)
	}
}

func (c *cluster) submitBurst(t *testing.T) []string {
	t.Helper()
	ids := make([]string, burst)
	forEach(burst, 64, func(n int) { ids[n] = c.post(t, n, n) })
	seen := make(map[string]bool)
	for n, id := range ids {
		if id == "" || seen[id] {
			t.Fatalf("task %d has id %q, taken or missing", n, id)
		}
		seen[id] = true
	}
	return ids
}

// forEach runs f for 0 to n-1, at most wide at once.
func forEach(n, wide int, f func(int)) {
	var group sync.WaitGroup
	slots := make(chan struct{}, wide)
	for i := range n {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			f(i)
		})
	}
	group.Wait()
}

func (c *cluster) waitingTask(t *testing.T, ids []string) string {
	t.Helper()
	for n := len(ids) - 1; n >= 0; n-- {
		if c.task(n, ids[n]).State == api.StatePending {
			return ids[n]
		}
	}
	t.Fatal("no task waits: the burst was no burst")
	return ""
}

// finished counts the finished tasks, by any node that answers.
func (c *cluster) finished(from int) int {
	for i := range c.Endpoints {
		var info api.Cluster
		if status, _, body := c.get(from+i, "/v2/cluster"); status == http.StatusOK && json.Unmarshal(body, &info) == nil {
			return info.Tasks.Finished
		}
	}
	return 0
}

// checkCapacity wants no node over its capacity and returns the attempts at
// once in the whole cluster.
func (c *cluster) checkCapacity(t *testing.T) int {
	t.Helper()
	for i := range c.Endpoints {
		var list api.NodeList
		status, _, body := c.get(i, "/v2/nodes")
		if status != http.StatusOK || json.Unmarshal(body, &list) != nil {
			continue
		}
		sum := 0
		for _, n := range list.Nodes {
			sum += n.Attempts
			if n.Reserved.CPU > n.Capacity.CPU || n.Reserved.Memory > n.Capacity.Memory {
				t.Errorf("node %s has %v of %v in use", n.Name, n.Reserved, n.Capacity)
			}
		}
		return sum
	}
	return 0
}

// killLeader ends the leading control node with SIGKILL.
func (c *cluster) killLeader(t *testing.T) node {
	t.Helper()
	for i := range c.Endpoints {
		var info api.Cluster
		status, _, body := c.get(i, "/v2/cluster")
		if status != http.StatusOK || json.Unmarshal(body, &info) != nil {
			continue
		}
		for _, m := range info.Members {
			if m.ID != info.Leader {
				continue
			}
			for _, n := range c.Nodes {
				if n.Role == "control" && strings.HasSuffix(n.HTTP, m.HTTP) {
					if err := syscall.Kill(n.PID, syscall.SIGKILL); err != nil {
						t.Fatal(err)
					}
					return n
				}
			}
		}
	}
	t.Fatal("no leader to kill")
	return node{}
}
