package integration

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ecs/proto/api"
)

// marks is a program that finds the marker of an earlier one in its container.
const marks = "test ! -e /marker || exit 9; echo used > /marker; echo fresh"

// parked are the cluster's containers that wait for a task, or have waited.
func (c *cluster) parked(t *testing.T) []string {
	t.Helper()
	name, err := c.name()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("docker", "ps", "-aq", "--filter", "label=ecs.cluster="+name, "--filter", "label=ecs.parked=true").Output()
	if err != nil {
		t.Fatalf("docker ps: %v", err)
	}
	return strings.Fields(string(out))
}

// TestNoContainerIsUsedTwice mixes tasks that find a container parked with tasks
// that don't, some at once.
func TestNoContainerIsUsedTwice(t *testing.T) {
	c := ownCluster(t, "--controls", "1", "--agents", "1", "--zones", "a", "--agent-cpus", "2", "--warm-count", "4")
	request := func(n int) api.TaskRequest {
		req := api.TaskRequest{Image: busybox, Command: sh(marks), Env: []string{fmt.Sprint("N=", n)},
			Resources: api.Resources{CPU: 250, Memory: 32 << 20}}
		if n%6 == 5 {
			req.Resources.Memory += api.Size(n) << 20 // nobody else's
		}
		return req
	}
	var mu sync.Mutex
	warm := map[string]int{}
	const rounds, wide = 15, 4
	for round := range rounds {
		forEach(wide, wide, func(i int) {
			got := c.run(t, 0, request(round*wide+i))
			mu.Lock()
			defer mu.Unlock()
			if got.Outcome != api.OutcomeExited || codeOf(got) != "0" || got.Stdout == nil || got.Stdout.Data != "fresh\n" || len(got.Attempts) != 1 {
				t.Errorf("task %s (%s): got %s %s %s after %d attempts, want fresh", got.ID, got.Warm, got.Outcome, codeOf(got), got.Reason, len(got.Attempts))
			}
			warm[got.Warm]++
		})
		within(t, 30*time.Second, "something is parked", func() bool { return len(c.parked(t)) > 0 })
	}
	t.Logf("warm: %v", warm)
	if warm["hit"] < rounds/2 || warm["first"] == 0 || warm["empty"] == 0 {
		t.Errorf("warm: got %v, want many hits and some of the others", warm)
	}
}

// TestImagesAreWarmedAsWished: containers that are wished for are parked before
// anybody asks, spread over the nodes, and gone once the wish is taken back.
func TestImagesAreWarmedAsWished(t *testing.T) {
	c := ownCluster(t, "--controls", "3", "--agents", "2", "--warm-count", "4")
	client, err := api.New(c.Endpoints, c.Key, c.Secret)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Warm(t.Context(), busybox, 4); err != nil {
		t.Fatal(err)
	}
	within(t, 60*time.Second, "as many as were wished for are parked", func() bool {
		list, err := client.Images(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(list.Images, api.Image{Image: busybox, Nodes: 2, Warm: 4, Parked: 4})
	})
	if n := len(c.parked(t)); n != 4 {
		t.Errorf("parked: got %d, want 4", n)
	}
	for i := range 3 { // through each control node
		if got := c.run(t, i, api.TaskRequest{Image: busybox, Command: sh("exit 4")}); got.Warm != "hit" || codeOf(got) != "4" {
			t.Errorf("got %s, code %s; want a hit", got.Warm, codeOf(got))
		}
	}
	if _, err := client.Warm(t.Context(), busybox, 0); err != nil {
		t.Fatal(err)
	}
	// What tasks have asked for meanwhile stays, as without a wish.
	within(t, 60*time.Second, "fewer are parked", func() bool { return len(c.parked(t)) < 4 })
}

// TestThirdTaskIsWarm also kills the agent: what it had parked is gone after it
// comes back.
func TestThirdTaskIsWarm(t *testing.T) {
	c := ownCluster(t, "--controls", "1", "--agents", "1", "--zones", "a", "--warm-count", "4")
	req := api.TaskRequest{Image: busybox, Command: sh("echo $0; exit 4")}
	for range 2 { // for one alone nothing is parked
		if got := c.run(t, 0, req); got.Warm != "first" || codeOf(got) != "4" {
			t.Errorf("first: got %s, code %s", got.Warm, codeOf(got))
		}
	}
	within(t, 30*time.Second, "two are parked", func() bool { return len(c.parked(t)) == 2 && c.inUse(t) == 0 })
	before := fmt.Sprint(c.parked(t))
	time.Sleep(time.Second) // it may have been seen a moment before it was ready
	if got := c.run(t, 0, req); got.Warm != "hit" || codeOf(got) != "4" {
		t.Errorf("third: got %s, code %s", got.Warm, codeOf(got))
	}
	within(t, 30*time.Second, "another is parked", func() bool {
		return slices.ContainsFunc(c.parked(t), func(id string) bool { return !strings.Contains(before, id) })
	})
	left := fmt.Sprint(c.parked(t))
	agent := c.agents()[0]
	if err := syscall.Kill(agent.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.restart(t, agent)
	within(t, 40*time.Second, "what was parked is gone", func() bool {
		for _, id := range c.parked(t) {
			if strings.Contains(left, id) {
				return false
			}
		}
		return true
	})
	within(t, 30*time.Second, "the node takes tasks", func() bool { return c.nodes(t)[0].Status == "ready" })
	if got := c.run(t, 0, req); codeOf(got) != "4" {
		t.Errorf("after a restart: got %s, code %s", got.Warm, codeOf(got))
	}
}
