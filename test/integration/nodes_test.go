package integration

import (
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"ecs/proto/api"
	"ecs/test/registry"
)

func (c *cluster) nodes(t *testing.T) []api.Node {
	t.Helper()
	status, _, body := c.get(0, "/v2/nodes")
	var list api.NodeList
	if err := json.Unmarshal(body, &list); status != http.StatusOK || err != nil {
		t.Fatalf("nodes: got %d %s", status, body)
	}
	return list.Nodes
}

func (c *cluster) drain(t *testing.T, id string, on bool) {
	t.Helper()
	verb := "drain"
	if !on {
		verb = "undrain"
	}
	if status, _, body := c.call(1, http.MethodPost, "/v2/nodes/"+id+"/"+verb, nil); status != http.StatusOK {
		t.Errorf("%s %s: got %d %s", verb, id, status, body)
	}
}

// containersOf counts containers of a task, running or not.
func containersOf(t *testing.T, id string) int {
	t.Helper()
	out, err := exec.Command("docker", "ps", "-aq", "--filter", "label=ecs.task="+id).Output()
	if err != nil {
		t.Fatalf("docker ps: %v", err)
	}
	return len(strings.Fields(string(out)))
}

func pushProg(t *testing.T, hub *registry.Registry, repo, tag string) {
	t.Helper()
	if _, err := hub.Push(repo, tag, progImage(t)); err != nil {
		t.Fatal(err)
	}
}

// removeImage removes every image of a repository from the engine.
func removeImage(t *testing.T, repo string) {
	t.Helper()
	out, err := exec.Command("docker", "images", "-q", "--no-trunc", repo).Output()
	if err != nil {
		t.Errorf("docker images: %v", err)
	}
	for _, id := range strings.Fields(string(out)) {
		if out, err := exec.Command("docker", "rmi", "-f", id).CombinedOutput(); err != nil {
			t.Errorf("docker rmi: %v %s", err, out)
		}
	}
}
