package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ecs/proto/api"
)

// dev runs a dev command on the cluster and takes over what it is afterwards.
func (c *cluster) dev(t *testing.T, args ...string) {
	t.Helper()
	out, stderr, code := c.ecsctl(append([]string{"dev"}, append(args, "--json", "--dir", c.Dir)...)...)
	var now cluster
	if code != 0 || json.Unmarshal([]byte(out), &now) != nil {
		t.Fatalf("dev %v: got status %d\n%s%s", args, code, out, stderr)
	}
	c.Endpoints, c.Nodes = now.Endpoints, now.Nodes
}

// voters counts who votes, through the first control node.
func (c *cluster) voters(t *testing.T) (votes int) {
	t.Helper()
	status, _, body := c.get(0, "/v2/cluster")
	var info api.Cluster
	if status != http.StatusOK || json.Unmarshal(body, &info) != nil {
		return 0
	}
	for _, v := range info.Voters {
		if v.Voter {
			votes++
		}
	}
	return votes
}

// keepBusy submits a task every half second, through whichever control
// node takes it, until stopped; stop gives the ids of all that were accepted.
func (c *cluster) keepBusy(t *testing.T) (stop func() []string) {
	var ids []string
	var running sync.WaitGroup
	end := make(chan struct{})
	tick := time.NewTicker(500 * time.Millisecond)
	running.Go(func() {
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
			case <-end:
				return
			}
			id, err := c.submitAnywhere(fmt.Sprint("busy-", i))
			if err != nil {
				t.Errorf("submit %d: %v", i, err)
				continue
			}
			ids = append(ids, id)
		}
	})
	once := sync.OnceFunc(func() { close(end); running.Wait() })
	t.Cleanup(once) // before the cluster goes
	return func() []string { once(); return ids }
}

// submitAnywhere posts a task under a key until somebody accepts it. It reads
// where the control nodes are from the cluster's own record: they change.
func (c *cluster) submitAnywhere(key string) (string, error) {
	body := `{"image":"` + busybox + `","command":["sh","-c","sleep 0.3; echo hi"]}`
	var last error
	for began := time.Now(); time.Since(began) < 30*time.Second; {
		for _, n := range c.record() {
			if n.HTTP == "" {
				continue
			}
			req, err := http.NewRequest(http.MethodPost, "http://"+n.HTTP+"/v2/tasks", strings.NewReader(body))
			if err != nil {
				return "", err
			}
			req.SetBasicAuth(c.Key, c.Secret)
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set(api.HeaderIdempotencyKey, key)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				last = err
				continue
			}
			var task api.Task
			err = json.NewDecoder(resp.Body).Decode(&task)
			resp.Body.Close()
			if err == nil && resp.StatusCode < 300 {
				return task.ID, nil
			}
			last = fmt.Errorf("status %d", resp.StatusCode)
		}
	}
	return "", last
}

// record is what the cluster's own file says of its nodes.
func (c *cluster) record() (nodes []node) {
	text, err := os.ReadFile(filepath.Join(c.Dir, "cluster.json"))
	if err != nil {
		return nil
	}
	var r struct{ Nodes []node }
	_ = json.Unmarshal(text, &r) // a bad file shows as no nodes
	return r.Nodes
}

// wantAll wants every one of the tasks ended as it should.
func (c *cluster) wantAll(t *testing.T, ids []string) {
	t.Helper()
	for _, id := range ids {
		status, _, body := c.get(0, "/v2/tasks/"+id+"?wait=60s")
		var task api.Task
		if status != http.StatusOK || json.Unmarshal(body, &task) != nil || task.Outcome != api.OutcomeExited {
			t.Errorf("task %s: got %d %s, want it exited", id, status, body)
		}
	}
}

func TestDevClusterGrowsAndShrinksUnderLoadAndLosesNothing(t *testing.T) {
	c := ownCluster(t, "--controls", "1", "--agents", "1")
	stop, began := c.keepBusy(t), time.Now()
	c.dev(t, "add", "--controls", "2", "--agents", "2")
	within(t, time.Minute, "three voters", func() bool { return c.voters(t) == 3 })
	c.dev(t, "remove", "a1", "a2", "c1", "c2")
	ids := stop()
	// A quarter of what was to come: how many that is depends on how long it all took.
	if took := time.Since(began); len(ids) < int(took/(2*time.Second)) {
		t.Errorf("got %d tasks accepted in %v, too few for a test of anything", len(ids), took)
	}
	c.wantAll(t, ids)
	if c.voters(t) != 1 || len(c.Nodes) != 2 {
		t.Errorf("got %d voters and %d nodes, want 1 and 2", c.voters(t), len(c.Nodes))
	}
	if _, stderr, code := c.ecsctl("dev", "remove", "c3", "--dir", c.Dir); code == 0 || !strings.Contains(stderr, "last voter") {
		t.Errorf("removing the last control node: got %d %q, want it refused", code, stderr)
	}
	if _, stderr, code := c.ecsctl("leave", "--node", "nobody"); code == 0 || !strings.Contains(stderr, "no such node") {
		t.Errorf("leave of nobody: got %d %q", code, stderr)
	}
}

// kill ends a node's process at once.
func (c *cluster) kill(t *testing.T, name string) {
	t.Helper()
	for _, n := range c.Nodes {
		if n.Name == name {
			if out, err := exec.Command("kill", "-9", fmt.Sprint(n.PID)).CombinedOutput(); err != nil {
				t.Fatalf("kill %s: %v %s", name, err, out)
			}
			within(t, 10*time.Second, name+" is dead", func() bool {
				cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n.PID))
				return len(cmdline) == 0
			})
		}
	}
}

// revive starts a control node's daemon again, as dev up did.
func (c *cluster) revive(t *testing.T, name string) {
	t.Helper()
	dir := filepath.Join(c.Dir, name)
	log, err := os.OpenFile(filepath.Join(dir, "daemon.log"), os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(binaries, "ecs-control"), "--config", filepath.Join(dir, "config.yaml"))
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }() // dev down ends it
}

func TestLostMajorityIsRecoveredFromOneSurvivor(t *testing.T) {
	c := ownCluster(t, "--controls", "3", "--agents", "1")
	var ids []string
	for i := range 10 {
		id, err := c.submitAnywhere(fmt.Sprint("before-", i))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	c.wantAll(t, ids)
	saved := filepath.Join(t.TempDir(), "saved")
	if out, stderr, code := c.ecsctl("cluster", "snapshot", saved); code != 0 || !strings.Contains(out, "10 tasks") {
		t.Errorf("snapshot: got %d %s%s", code, out, stderr)
	}
	// The survivor is a follower that has everything.
	survivor := ""
	for i, n := range c.Nodes[:3] {
		if !n.Leader && survivor == "" {
			survivor = n.Name
			within(t, 10*time.Second, "the survivor has everything", func() bool {
				status, _, body := c.get(i, "/v2/cluster")
				var info api.Cluster
				return status == http.StatusOK && json.Unmarshal(body, &info) == nil && info.Tasks.Finished == 10
			})
		}
	}
	for _, n := range c.Nodes[:3] {
		c.kill(t, n.Name)
		if n.Name != survivor {
			if err := os.RemoveAll(filepath.Join(c.Dir, n.Name, "data")); err != nil {
				t.Fatal(err)
			}
		}
	}
	data := filepath.Join(c.Dir, survivor, "data")
	if _, stderr, code := c.ecsctl("cluster", "recover", "--data-dir", data); code == 0 || !strings.Contains(stderr, "nothing was changed") {
		t.Errorf("recover without yes: got %d %s", code, stderr)
	}
	if out, stderr, code := c.ecsctl("cluster", "recover", "--data-dir", data, "--yes"); code != 0 || !strings.Contains(out, "incarnation 1") {
		t.Fatalf("recover: got %d %s%s", code, out, stderr)
	}
	c.revive(t, survivor)
	for i, n := range c.Nodes[:3] {
		if n.Name == survivor {
			c.Endpoints = append([]string{c.Endpoints[i]}, append(c.Endpoints[:i:i], c.Endpoints[i+1:]...)...)
		}
	}
	within(t, time.Minute, "the survivor leads alone and its agent is back", func() bool {
		if c.voters(t) != 1 {
			return false
		}
		nodes := c.nodes(t)
		return len(nodes) == 1 && nodes[0].Status == "ready"
	})
	c.wantAll(t, ids)
	// The others come back empty, and vote again.
	for _, n := range c.Nodes[:3] {
		if n.Name != survivor {
			c.revive(t, n.Name)
		}
	}
	within(t, 2*time.Minute, "three voters again", func() bool { return c.voters(t) == 3 })
	id, err := c.submitAnywhere("after")
	if err != nil {
		t.Fatal(err)
	}
	c.wantAll(t, append(ids, id))
}
