package integration

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"ecs/proto/api"
)

// TestManyWaitForLargeAnswers has 200 clients wait for 2 MiB each through one
// follower: 400 MiB, of which the node assembles no more at a time than its byte
// budget. Whom that leaves out is told when to come again.
func TestManyWaitForLargeAnswers(t *testing.T) {
	const (
		clients = 200
		size    = 2 << 20
		budget  = 64 << 20
		// most is what the process may grow by. Before a heap is collected it is twice
		// what lives in it, and more where the collector comes late; without a budget
		// all of the answers would live at once, and it would be twice this.
		most = clients * size
	)
	c := ownCluster(t, "--controls", "3", "--agents", "1", "--zones", "a,b,c")
	follower := c.follower(t)
	task := c.start(t, follower, api.TaskRequest{Image: busybox, MaxOutput: size,
		Command: sh(fmt.Sprintf("sleep 3; head -c %d /dev/zero | tr '\\0' x", size))})
	pid := 0
	for _, n := range c.Nodes {
		if n.HTTP == c.Endpoints[follower] {
			pid = n.PID
		}
	}
	before := resident(t, pid)
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Fatal(err) // its peak begins here
	}
	var later sync.Map
	forEach(clients, clients, func(i int) {
		for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
			status, header, body := c.get(follower, fmt.Sprintf("/v2/tasks/%s?wait=60s&max_inline=%d", task.ID, size))
			switch status {
			case http.StatusOK:
				got := decodeJSON[api.Task](t, body)
				if n := len(content(t, got.Stdout)); n != size || got.OutputIncomplete {
					t.Errorf("client %d: got %d bytes, incomplete %v, want %d", i, n, got.OutputIncomplete, size)
				}
				return
			case http.StatusServiceUnavailable:
				seconds, err := strconv.Atoi(header.Get("Retry-After"))
				if err != nil || problem(t, header, body).Code != api.CodeBusy {
					t.Errorf("client %d: got 503 %s with Retry-After %q, want busy and when to come again", i, body, header.Get("Retry-After"))
					return
				}
				later.Store(i, true)
				<-time.After(time.Duration(seconds) * time.Second)
			default:
				t.Errorf("client %d: got %d %.200s", i, status, body)
				return
			}
		}
		t.Errorf("client %d had no answer in time", i)
	})
	grown := peak(t, pid) - before
	told := 0
	later.Range(func(any, any) bool { told++; return true })
	t.Logf("%d clients, %d of them told to come later: the follower grew by %d MiB", clients, told, grown>>20)
	if told == 0 {
		t.Error("nobody had to come later: 400 MiB were assembled at once")
	}
	if grown > most {
		t.Errorf("the follower grew by %d MiB with a budget of %d MiB, want %d MiB at most", grown>>20, budget>>20, most>>20)
	}
}

// follower is the number of an endpoint that does not lead.
func (c *cluster) follower(t *testing.T) int {
	t.Helper()
	for i, endpoint := range c.Endpoints {
		for _, n := range c.Nodes {
			if n.HTTP == endpoint && !n.Leader {
				return i
			}
		}
	}
	t.Fatalf("no follower in %+v", c.Nodes)
	return 0
}

// peak is the most memory that a process has had.
func peak(t *testing.T, pid int) int64 { return memory(t, pid, "VmHWM") }
