package integration

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ecs/proto/api"
	"ecs/test/registry"
)

func (c *cluster) cancel(t *testing.T, i int, id string) api.Task {
	t.Helper()
	status, _, body := c.call(i, http.MethodPost, "/v2/tasks/"+id+"/cancel", nil)
	if status != http.StatusOK && status != http.StatusAccepted {
		t.Fatalf("cancel: got %d %s", status, body)
	}
	var task api.Task
	if err := json.Unmarshal(body, &task); err != nil {
		t.Fatal(err)
	}
	return task
}

func TestCancelWhereverTheTaskIs(t *testing.T) {
	c := sharedCluster(t)
	wantCancelled := func(name, id string) {
		t.Helper()
		got := c.await(t, id, 20*time.Second)
		if got.Outcome != api.OutcomeCancelled {
			t.Errorf("%s: got %s (%s), want cancelled", name, got.Outcome, got.Reason)
		}
		if again := c.cancel(t, 1, id); again.Outcome != got.Outcome || !again.FinishedAt.Equal(got.FinishedAt) {
			t.Errorf("%s: a second cancel changed the record: %+v", name, again)
		}
		within(t, 10*time.Second, name+": no container left", func() bool { return len(c.containersOf(t, id)) == 0 })
	}

	// Before placement: a zone where no node is ready takes it.
	nodes := c.nodes(t)
	for _, n := range nodes {
		if n.Zone == "c" {
			c.drain(t, n.ID, true)
			defer c.drain(t, n.ID, false)
		}
	}
	waiting := c.start(t, 0, api.TaskRequest{Image: busybox, Command: sh("sleep 60"), Placement: api.Placement{Zones: []string{"c"}}})
	c.cancel(t, 2, waiting.ID)
	wantCancelled("before placement", waiting.ID)

	// While pulling: a registry that never answers.
	hub := registry.New()
	hub.Fail("", registry.Stall, 0)
	server := httptest.NewServer(hub)
	defer server.CloseClientConnections()
	pulling := c.start(t, 0, api.TaskRequest{Image: strings.TrimPrefix(server.URL, "http://") + "/slow/app:1", Command: sh("true")})
	within(t, 10*time.Second, "the agent asks the registry", func() bool { return len(hub.Requests()) > 0 })
	c.cancel(t, 1, pulling.ID)
	wantCancelled("while pulling", pulling.ID)

	running := c.start(t, 0, api.TaskRequest{Image: busybox, Command: sh("trap '' TERM INT; echo up; while :; do sleep 1; done")})
	within(t, 20*time.Second, "it runs", func() bool { return c.task(0, running.ID).State == api.StateRunning })
	c.cancel(t, 1, running.ID)
	wantCancelled("while running", running.ID)

	ended := c.run(t, 0, api.TaskRequest{Image: busybox, Command: sh("exit 4")})
	after := c.cancel(t, 2, ended.ID)
	if after.Outcome != api.OutcomeExited || *after.ExitCode != 4 {
		t.Errorf("after the end: got %s %v, want exited 4 unchanged", after.Outcome, after.ExitCode)
	}
}
