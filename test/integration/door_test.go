package integration

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"ecs/proto/api"
)

// status asks an endpoint something small with a key.
func statusWith(t *testing.T, endpoint, path, key, secret string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, endpoint+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(key, secret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestKeysCountAtEveryControlNode(t *testing.T) {
	c := sharedCluster(t)
	out, errOut, code := c.ecsctl("keys", "create", "--role", "run", "--name", "test", "--rate", "0", "--json")
	var k api.Key
	if err := json.Unmarshal([]byte(out), &k); err != nil || code != 0 || k.Secret == "" {
		t.Fatalf("got %q %q exit %d", out, errOut, code)
	}
	for _, e := range c.Endpoints {
		within(t, 5*time.Second, "the new key counts at "+e, func() bool { return statusWith(t, e, "/v2/tasks", k.ID, k.Secret) == http.StatusOK })
		if got := statusWith(t, e, "/v2/nodes", k.ID, k.Secret); got != http.StatusForbidden {
			t.Errorf("%s: got %d for what takes another role", e, got)
		}
	}
	if out, _, _ := c.ecsctl("keys", "ls"); !strings.Contains(out, k.ID) || strings.Contains(out, k.Secret) {
		t.Errorf("got %s", out)
	}
	if _, errOut, code := c.ecsctl("keys", "revoke", k.ID); code != 0 {
		t.Fatalf("got %q exit %d", errOut, code)
	}
	for _, e := range c.Endpoints {
		within(t, 5*time.Second, "the revoked key is refused at "+e, func() bool { return statusWith(t, e, "/v2/tasks", k.ID, k.Secret) == http.StatusUnauthorized })
	}
}
