package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"

	"ecs/proto/api"
)

// TestOutputOutlivesAnAgentThatLeaves has an agent leave that holds 1 MiB of output
// and the files of a task, and reads both from those that stay.
func TestOutputOutlivesAnAgentThatLeaves(t *testing.T) {
	c := ownCluster(t, "--controls", "1", "--agents", "2")
	var tasks []api.Task
	for range 4 {
		tasks = append(tasks, c.run(t, 0, api.TaskRequest{Image: busybox, Outputs: []string{"/out"},
			Command: sh("yes 0123456789abcde | head -c 1048576; mkdir /out; head -c 300000 /dev/urandom >/out/f")}))
	}
	leaver, here := tasks[0].Node, 0
	name := ""
	for _, n := range c.nodes(t) {
		if n.ID == leaver || n.Name == leaver {
			name = n.Name
		}
	}
	out, stderr, code := c.ecsctl("dev", "remove", name, "--dir", c.Dir)
	if code != 0 || !strings.Contains(out+stderr, "outputs handed on") {
		t.Fatalf("remove %s: got %d\n%s%s", name, code, out, stderr)
	}
	want := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	for _, done := range tasks {
		if done.Node == leaver {
			here++
		}
		status, _, body := c.get(0, "/v2/tasks/"+done.ID+"/output")
		if status != http.StatusOK || !bytes.Equal(body, want) {
			t.Errorf("output of %s, run by %s: got %d with %d bytes, want all of %d", done.ID, done.Node, status, len(body), len(want))
		}
		status, _, body = c.get(0, "/v2/tasks/"+done.ID+"/outputs")
		sum := sha256.Sum256(body)
		if done.Outputs == nil || status != http.StatusOK || hex.EncodeToString(sum[:]) != done.Outputs.SHA256 {
			t.Errorf("files of %s, run by %s: got %d with %d bytes, want those recorded", done.ID, done.Node, status, len(body))
		}
	}
	if here == 0 {
		t.Error("the agent that left had run nothing")
	}
}
