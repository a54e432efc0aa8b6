package integration

import (
	"net/http"
	"strings"
	"testing"

	"ecs/proto/api"
)

// TestBadInputCreatesNothing sends a sample of the bad input whose every row
// control/api's tests cover, to a real node, and wants no task and no
// container of it.
func TestBadInputCreatesNothing(t *testing.T) {
	c := sharedCluster(t)
	before := len(c.list(t))
	long := strings.Repeat("x", 131_072)
	for _, tc := range []struct {
		name, path, body string
		status           int
		pointer          string
	}{
		{"image id", "/v2/tasks", `{"image":"6"}`, 400, "/image"},
		{"image digest alone", "/v2/tasks", `{"image":"sha256:69f0"}`, 400, "/image"},
		{"upper case image", "/v2/tasks", `{"image":"Busybox"}`, 400, "/image"},
		{"NUL in an argument", "/v2/tasks", `{"image":"busybox:1","command":["a\u0000b"]}`, 400, "/command/0"},
		{"argument too long", "/v2/tasks", `{"image":"busybox:1","command":["` + long + `"]}`, 413, "/command/0"},
		{"env without =", "/v2/tasks", `{"image":"busybox:1","env":["x"]}`, 400, "/env/0"},
		{"relative workdir", "/v2/tasks", `{"image":"busybox:1","workdir":"a/b"}`, 400, "/workdir"},
		{"memory too small", "/v2/tasks", `{"image":"busybox:1","resources":{"memory":"1MiB"}}`, 400, "/resources/memory"},
		{"memory beyond every node", "/v2/tasks", `{"image":"busybox:1","resources":{"memory":"900GiB"}}`, 422, ""},
		{"unlimited pids", "/v2/tasks", `{"image":"busybox:1","resources":{"pids":-1}}`, 400, "/resources/pids"},
		{"bind mounts", "/v2/tasks", `{"image":"busybox:1","binds":["/:/host"]}`, 400, "/binds"},
		{"privileged", "/v2/tasks", `{"image":"busybox:1","privileged":true}`, 400, "/privileged"},
		{"a member twice", "/v2/tasks", `{"image":"busybox:1","image":"busybox:2"}`, 400, "/image"},
		{"member in other case", "/v2/tasks", `{"Image":"busybox:1"}`, 400, "/Image"},
		{"more after the body", "/v2/tasks", `{"image":"busybox:1"} {}`, 400, ""},
		{"v1 without a tag", "/v1.1/tasks", `{"docker_image":"busybox","cmd":["true"]}`, 400, "/docker_image"},
		{"v1 empty cmd", "/v1.1/tasks", `{"docker_image":"busybox:1","cmd":[]}`, 400, "/cmd"},
		{"v1 body too large", "/v1.1/tasks", `{"docker_image":"busybox:1","cmd":["` + strings.Repeat("x", 6000) + `"]}`, 413, ""},
	} {
		status, header, body := c.call(1, http.MethodPost, tc.path, tc.body)
		if status != tc.status {
			t.Errorf("%s: got %d %s, want %d", tc.name, status, body, tc.status)
			continue
		}
		p := problem(t, header, body)
		found := tc.pointer == ""
		for _, e := range p.Errors {
			found = found || e.Pointer == tc.pointer
		}
		if !found {
			t.Errorf("%s: got faults %+v, want one at %s", tc.name, p.Errors, tc.pointer)
		}
		if header.Get(api.HeaderCID) == "" || p.CID != header.Get(api.HeaderCID) {
			t.Errorf("%s: got correlation id %q in the header and %q in the body", tc.name, header.Get(api.HeaderCID), p.CID)
		}
	}
	if after := len(c.list(t)); after != before {
		t.Errorf("%d tasks after bad input, want %d as before", after, before)
	}
}

func TestEveryFaultOfABodyIsListed(t *testing.T) {
	c := sharedCluster(t)
	status, header, body := c.call(0, http.MethodPost, "/v2/tasks",
		`{"image":"UP","command":[""],"env":["=x"],"workdir":"rel","nonsense":1,"resources":{"pids":0}}`)
	if status != http.StatusBadRequest {
		t.Fatalf("got %d %s, want 400", status, body)
	}
	if p := problem(t, header, body); len(p.Errors) < 6 {
		t.Errorf("got %d faults %+v, want all 6", len(p.Errors), p.Errors)
	}
}

func TestStrangersStayOutside(t *testing.T) {
	c := sharedCluster(t)
	for _, secret := range []string{"", "wrong", c.Secret + "x"} {
		req, _ := http.NewRequest(http.MethodGet, c.Endpoints[0]+"/v2/tasks", nil)
		if secret != "" {
			req.SetBasicAuth(c.Key, secret)
		}
		resp, err := httpClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("Content-Type") != api.ProblemType {
			t.Errorf("secret %q: got %d %s, want 401 as a problem", secret, resp.StatusCode, resp.Header.Get("Content-Type"))
		}
	}
}

func (c *cluster) list(t *testing.T) []api.Task {
	t.Helper()
	var all []api.Task
	for cursor := ""; ; {
		status, _, body := c.get(1, "/v2/tasks?limit=1000&cursor="+cursor)
		if status != http.StatusOK {
			t.Fatalf("list: got %d %s", status, body)
		}
		page := decodeJSON[api.TaskList](t, body)
		all = append(all, page.Tasks...)
		if cursor = page.Next; cursor == "" {
			return all
		}
	}
}
