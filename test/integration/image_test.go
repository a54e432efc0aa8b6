package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"ecs/proto/api"
	"ecs/test/registry"
)

// seedExample is the old service's own example, to the letter.
const seedExample = `{"docker_image":"xubuntu","tag":"latest","cmd":["date"]}`

// TestSeedExample asks for an image that does not exist, of registries that say
// so and of ones that hide it.
func TestSeedExample(t *testing.T) {
	hub := registry.New()
	hub.AddUser("alice", "right")
	server := httptest.NewServer(hub)
	defer server.Close()
	addr := strings.TrimPrefix(server.URL, "http://")
	c := ownCluster(t, "--controls", "1", "--agents", "1", "--zones", "a", "--default-registry", addr)

	ask := func(name, body string, want int, code, detail string) {
		t.Helper()
		status, header, text := c.call(0, http.MethodPost, "/v1.0/tasks", body)
		if status != want {
			t.Errorf("%s: got %d %s, want %d", name, status, text, want)
			return
		}
		p := problem(t, header, text)
		if string(p.Code) != code || !strings.Contains(p.Detail, detail) {
			t.Errorf("%s: got code %s detail %q, want %s with %q", name, p.Code, p.Detail, code, detail)
		}
	}
	ask("a registry that says so", seedExample, 404, api.OutcomeImageNotFound, "xubuntu")
	hub.RequireTokens(http.StatusUnauthorized)
	ask("hidden behind 401", seedExample, 404, api.OutcomeImageNotFound, "creds")
	hub.RequireTokens(http.StatusForbidden)
	ask("hidden behind 403", seedExample, 404, api.OutcomeImageNotFound, "creds")
	creds := func(password string) string {
		return fmt.Sprintf(`{"docker_image":"xubuntu","tag":"latest","cmd":["date"],"creds":{"email":"a@example.org","username":"alice","password":%q}}`, password)
	}
	hub.RequireTokens(http.StatusUnauthorized)
	ask("wrong credentials", creds("wrong"), 403, api.OutcomeImageDenied, "")
	if got := fmt.Sprint(c.task(0, "")); strings.Contains(got, "wrong") {
		t.Error("a password came back")
	}
	server.Close()
	ask("no registry", seedExample, 502, api.OutcomeImageUnavailable, addr)
}

// TestPrivateImageServesOnlyWhoMayPull runs a private image for its owner and
// refuses it to another caller on the very node that has it cached.
func TestPrivateImageServesOnlyWhoMayPull(t *testing.T) {
	hub := registry.New()
	hub.AddUser("alice", "right")
	hub.Private("team/app", "alice")
	hub.RequireTokens(http.StatusUnauthorized)
	server := httptest.NewServer(hub)
	defer server.Close()
	addr := strings.TrimPrefix(server.URL, "http://")
	pushProg(t, hub, "team/app", "1")
	c := ownCluster(t, "--controls", "1", "--agents", "1", "--zones", "a")
	image := addr + "/team/app:1"
	t.Cleanup(func() { removeImage(t, addr+"/team/app") })

	req := api.TaskRequest{Image: image, Command: []string{"/prog", "print", "mine"}, RegistryAuth: &api.RegistryAuth{Username: "alice", Password: "right"}}
	mine := c.run(t, 0, req)
	if got := string(content(t, mine.Stdout)); mine.Outcome != api.OutcomeExited || got != "mine" {
		t.Fatalf("got %s %q (%s), want exited mine", mine.Outcome, got, mine.Reason)
	}
	if !strings.HasPrefix(mine.ImageDigest, "sha256:") {
		t.Errorf("got digest %q, want the registry's", mine.ImageDigest)
	}
	req.RegistryAuth = nil
	if other := c.run(t, 0, req); other.Outcome != api.OutcomeImageNotFound {
		t.Errorf("without credentials: got %s, want image_not_found", other.Outcome)
	}
	req.RegistryAuth = &api.RegistryAuth{Username: "alice", Password: "guess"}
	if other := c.run(t, 0, req); other.Outcome != api.OutcomeImageDenied {
		t.Errorf("with wrong credentials: got %s, want image_denied", other.Outcome)
	}
}
