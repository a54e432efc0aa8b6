package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"ecs/proto/api"
)

const (
	// acceptedWithin is how soon after the loss of the leader a submission is
	// accepted again, in 99 of 100 cases.
	acceptedWithin = 3 * time.Second
	// settledWithin is for how long a node looks for a leader before it says that
	// there is none.
	settledWithin = 10 * time.Second
	// controlDown is how long all control nodes are gone: longer than a usual lease,
	// shorter than one of 5 minutes.
	controlDown = 30 * time.Second
)

// failovers is how often the leader is killed: ECS_FAILOVER_ROUNDS, or 5.
func failovers(t *testing.T) int {
	text := os.Getenv("ECS_FAILOVER_ROUNDS")
	if text == "" {
		return 5
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		t.Fatalf("ECS_FAILOVER_ROUNDS=%q: want a number above 0", text)
	}
	return n
}

// TestALostLeaderCostsSeconds kills the leader again and again while a client
// submits, and measures from each kill to the first acceptance of a submission
// that was begun after it.
func TestALostLeaderCostsSeconds(t *testing.T) {
	c := ownCluster(t, "--agents", "2", "--zones", "a,b,c")
	ids := make(map[string]string) // by key
	var took []time.Duration
	for round := range failovers(t) {
		c.bystand(t, ids, fmt.Sprint("before-", round))
		lost := c.killLeader(t)
		killed := time.Now()
		for n := 0; ; n++ {
			key := fmt.Sprintf("after-%d-%d", round, n)
			if id := c.tryOnce(n, key); id != "" {
				ids[key] = id
				took = append(took, time.Since(killed))
				break
			}
			if time.Since(killed) > time.Minute {
				t.Fatalf("round %d: no submission was accepted within a minute", round)
			}
			<-time.After(20 * time.Millisecond) // as often as a hasty client asks
		}
		c.restart(t, lost)
		within(t, time.Minute, "every control node is ready", func() bool { return c.ledByOne() })
	}
	slices.Sort(took)
	p99 := took[(len(took)*99+99)/100-1]
	t.Logf("%d leaders killed: next submission accepted after %s in the median, %s at p99, %s at worst; all: %.2f",
		len(took), took[len(took)/2].Round(time.Millisecond), p99.Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), seconds(took))
	// The promise is for 99 of 100; with few rounds their worst is no such number.
	median, worst := took[len(took)/2], took[len(took)-1]
	if len(took) >= 100 && p99 > acceptedWithin || median > acceptedWithin || worst > settledWithin {
		t.Errorf("got %s in the median, %s at p99 and %s at worst, want %s, %s of 100 rounds and %s at most",
			median, p99, worst, acceptedWithin, acceptedWithin, settledWithin)
	}
	c.noneLostNoneDoubled(t, ids)
}

func seconds(all []time.Duration) (s []float64) {
	for _, d := range all {
		s = append(s, d.Seconds())
	}
	return s
}

// bystand submits some tasks under keys: no more than a busy engine runs in a round,
// or many rounds end with a queue of minutes.
func (c *cluster) bystand(t *testing.T, ids map[string]string, prefix string) {
	t.Helper()
	var mu sync.Mutex
	forEach(3, 3, func(n int) {
		key := fmt.Sprintf("%s-%d", prefix, n)
		id := ""
		for tries := 0; id == "" && tries < 100; tries++ {
			id = c.tryOnce(n+tries, key)
		}
		mu.Lock()
		defer mu.Unlock()
		if ids[key] = id; id == "" {
			t.Errorf("key %s was not accepted in 100 calls", key)
		}
	})
}

// tryOnce submits a task under a key to one node, and gives its id if it was
// accepted.
func (c *cluster) tryOnce(endpoint int, key string) string {
	req := api.TaskRequest{Image: busybox, Command: sh("true"), Labels: map[string]string{"key": key}}
	status, _, body := c.call(endpoint, http.MethodPost, "/v2/tasks", req, api.HeaderIdempotencyKey, key)
	var task api.Task
	if (status == http.StatusAccepted || status == http.StatusOK) && json.Unmarshal(body, &task) == nil {
		return task.ID
	}
	return ""
}

// ledByOne reports whether all control nodes are ready and name one leader.
func (c *cluster) ledByOne() bool {
	leaders := make(map[string]bool)
	for i := range c.Endpoints {
		var info api.Cluster
		if status, _, body := c.get(i, "/v2/cluster"); status != http.StatusOK || json.Unmarshal(body, &info) != nil || !info.Health.Ready {
			return false
		}
		leaders[info.Leader] = true
	}
	return len(leaders) == 1 && !leaders[""]
}

// noneLostNoneDoubled wants each accepted task to come to a good end, on every
// node alike, and no second one under its key.
func (c *cluster) noneLostNoneDoubled(t *testing.T, ids map[string]string) {
	t.Helper()
	queue := 2*time.Minute + time.Duration(len(ids))*time.Second // an engine that is slow does one a second
	for key, id := range ids {
		if got := c.await(t, id, queue); got.Outcome != api.OutcomeExited || codeOf(got) != "0" {
			t.Errorf("key %s: got %s %s (%s), want exited 0", key, got.Outcome, codeOf(got), got.Reason)
		}
		if again := c.tryOnce(len(key), key); again != id {
			t.Errorf("key %s is task %q, was task %s", key, again, id)
		}
	}
	byKey := make(map[string]string)
	for _, task := range c.list(t) {
		key := task.Spec.Labels["key"]
		if other, twice := byKey[key]; twice && key != "" {
			t.Errorf("key %s is tasks %s and %s", key, other, task.ID)
		}
		byKey[key] = task.ID
	}
}

// TestAllControlNodesDown kills all of them at once for longer than a lease. A
// program with a longer one runs on and reports; another is ended in time and run
// again.
func TestAllControlNodesDown(t *testing.T) {
	c := ownCluster(t, "--agents", "2", "--zones", "a,b,c")
	ended := c.run(t, 0, api.TaskRequest{Image: busybox, Command: sh("echo before")})
	long := c.start(t, 0, api.TaskRequest{Image: busybox, Command: sh("sleep 40; echo ran on; exit 5"), Lease: api.Duration(5 * time.Minute)})
	short := c.start(t, 1, api.TaskRequest{Image: busybox, Command: sh("sleep 20; echo again")})
	for _, task := range []api.Task{long, short} {
		within(t, 30*time.Second, "it runs", func() bool { return c.task(0, task.ID).State == api.StateRunning })
	}
	container := c.containerID(t, short.ID)
	killed := time.Now()
	for _, n := range c.Nodes {
		if n.Role == "control" {
			signal(t, n.PID, syscall.SIGKILL)
		}
	}
	time.Sleep(time.Until(killed.Add(lease + time.Second))) // the lease is what is tested
	if c.runs(container) {
		t.Error("a program with a lease of 10 s runs 11 s after its last contact")
	}
	if !c.runs(c.containerID(t, long.ID)) {
		t.Error("a program with a lease of 5 min was ended")
	}
	time.Sleep(time.Until(killed.Add(controlDown)))
	for _, n := range c.Nodes {
		if n.Role == "control" {
			c.restart(t, n)
		}
	}
	within(t, time.Minute, "every control node is ready", func() bool { return c.ledByOne() })
	if got := c.await(t, long.ID, time.Minute); codeOf(got) != "5" || len(got.Attempts) != 1 || string(content(t, got.Stdout)) != "ran on\n" {
		t.Errorf("long lease: got %s %s after %d attempts (%s), want exited 5 after 1", got.Outcome, codeOf(got), len(got.Attempts), got.Reason)
	}
	if got := c.await(t, short.ID, 2*time.Minute); codeOf(got) != "0" || len(got.Attempts) != 2 || got.Attempts[0].Outcome != api.OutcomeNodeLost {
		t.Errorf("usual lease: got %s %s after %+v, want exited 0 after one that was lost", got.Outcome, codeOf(got), got.Attempts)
	}
	for i := range c.Endpoints {
		if got := c.task(i, ended.ID); got.Outcome != api.OutcomeExited || string(content(t, got.Stdout)) != "before\n" {
			t.Errorf("node %d: a task that had ended before is %s with %q", i, got.Outcome, content(t, got.Stdout))
		}
	}
}

// runs reports whether the engine says that a container runs.
func (c *cluster) runs(container string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	info, err := engine.ContainerInspect(ctx, container)
	return err == nil && info.State.Running
}

// TestAReadSeesAWriteThroughAnotherNode submits through one node, cancels through
// the next and reads through the third, at once.
func TestAReadSeesAWriteThroughAnotherNode(t *testing.T) {
	c := sharedCluster(t)
	for i := range 30 {
		task := c.start(t, i, api.TaskRequest{Image: busybox, Command: sh("sleep 30"), Placement: api.Placement{Zones: []string{"a"}}})
		if got := c.task(i+1, task.ID); got.ID != task.ID {
			t.Errorf("read through another node: got %q", got.ID)
		}
		c.cancel(t, i+1, task.ID)
		if got := c.task(i+2, task.ID); got.Stopping == "" && got.State != api.StateFinished {
			t.Errorf("a cancellation through another node is not seen: %s", got.State)
		}
	}
}
