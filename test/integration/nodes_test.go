package integration

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// containersOf are the containers of a task, running or not: those that were
// made for it, and those that had been parked, which its agent's records tell.
func (c *cluster) containersOf(t *testing.T, id string) []string {
	t.Helper()
	out, err := exec.Command("docker", "ps", "-aq", "--no-trunc", "--filter", "label=ecs.task="+id).Output()
	if err != nil {
		t.Fatalf("docker ps: %v", err)
	}
	found := strings.Fields(string(out))
	for _, container := range c.recorded(t, id) {
		if !slices.Contains(found, container) {
			found = append(found, container)
		}
	}
	return found
}

// recorded are the containers of tasks whose id begins so, by the agents'
// records.
func (c *cluster) recorded(t *testing.T, id string) (found []string) {
	t.Helper()
	records, err := filepath.Glob(filepath.Join(c.Dir, "*", "data", "containers", id+"*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range records {
		var record struct{ Container string }
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just ended
		}
		if err == nil {
			err = json.Unmarshal(text, &record)
		}
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, record.Container)
	}
	return found
}

// inUse counts the containers on the engine that are not just parked.
func (c *cluster) inUse(t *testing.T) int {
	t.Helper()
	name, err := c.name()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("docker", "ps", "-a", "--filter", "label=ecs.cluster="+name, "--format", `{{.Label "ecs.parked"}}x`).Output()
	if err != nil {
		t.Fatalf("docker ps: %v", err)
	}
	return strings.Count("\n"+string(out), "\nx") + len(c.recorded(t, ""))
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
