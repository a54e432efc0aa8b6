package integration

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"ecs/proto/api"
)

// v1Body is a task of one of the two versions.
func v1Body(version, image string, cmd ...string) map[string]any {
	if version == "/v1.0" {
		name, tag, _ := strings.Cut(image, ":")
		return map[string]any{"docker_image": name, "tag": tag, "cmd": cmd}
	}
	return map[string]any{"docker_image": image, "cmd": cmd}
}

// TestV1EndsAsTheContractSays runs what ends otherwise than with an exit, at every
// path that an old client may use.
func TestV1EndsAsTheContractSays(t *testing.T) {
	c := sharedCluster(t)
	for i, path := range []string{"/v1.1/tasks", "/v1.1/tasks/", "/v1.0/tasks", "/v1.0/tasks/"} {
		version := path[:5]
		status, header, body := c.call(i, http.MethodPost, path, v1Body(version, busybox, "no-such-program"), api.HeaderCID, "old-client-1")
		if p := problem(t, header, body); status != http.StatusUnprocessableEntity || p.Code != api.Code(api.OutcomeStartFailed) || header.Get(api.HeaderCID) != "old-client-1" {
			t.Errorf("%s: got %d %s of %q, want 422 start_failed", path, status, p.Code, header.Get(api.HeaderCID))
		}
		status, header, body = c.call(i, http.MethodPost, path, v1Body(version, "ecs-test/no-such-image:1", "true"))
		if p := problem(t, header, body); status != http.StatusNotFound && status != http.StatusBadGateway {
			t.Errorf("%s: got %d %s for an image that nobody has", path, status, p.Code)
		}
		for text, want := range map[string]int{
			`{"docker_image":"ecs-test/busybox:1","tag":"1","cmd":["true"],"colour":"red"}`: http.StatusBadRequest,
			`{"docker_image":"ecs-test/busybox","tag":"1"}`:                                 http.StatusBadRequest,
			`{"docker_image":"ecs-test/busybox","tag":"1","cmd":[]}`:                        http.StatusBadRequest,
			`{"docker_image":"ecs-test/busybox","cmd":["true"]}`:                            http.StatusBadRequest, // no tag
			`[]`: http.StatusBadRequest,
			``:   http.StatusBadRequest,
			`{"docker_image":"` + strings.Repeat("x", 5<<10) + `"}`: http.StatusRequestEntityTooLarge,
		} {
			if status, header, body := c.call(i, http.MethodPost, path, text); status != want || problem(t, header, body).CID == "" {
				t.Errorf("%s %.60s: got %d %s, want %d", path, text, status, body, want)
			}
		}
		if status, header, _ := c.call(i, http.MethodGet, path, nil); status != http.StatusMethodNotAllowed || !strings.Contains(header.Get("Allow"), http.MethodPost) {
			t.Errorf("GET %s: got %d, Allow %q", path, status, header.Get("Allow"))
		}
	}
}

// TestV1TaskThatIsCancelledIsAConflict cancels what an old client waits for, as an
// operator would.
func TestV1TaskThatIsCancelledIsAConflict(t *testing.T) {
	c := sharedCluster(t)
	const cid = "v1-to-cancel"
	type ended struct {
		status int
		header http.Header
		body   []byte
	}
	waited := make(chan ended, 1)
	go func() {
		var e ended
		e.status, e.header, e.body = c.call(0, http.MethodPost, "/v1.1/tasks", v1Body("/v1.1", busybox, "sleep", "300"), api.HeaderCID, cid)
		waited <- e
	}()
	var id string
	within(t, 30*time.Second, "the task runs", func() bool {
		var list api.TaskList
		_, _, body := c.get(1, "/v2/tasks?state=running")
		if json.Unmarshal(body, &list) != nil {
			return false
		}
		for _, task := range list.Tasks {
			if task.CID == cid {
				id = task.ID
			}
		}
		return id != ""
	})
	if status, _, body := c.call(1, http.MethodPost, "/v2/tasks/"+id+"/cancel", nil); status >= 300 {
		t.Fatalf("cancel: got %d %s", status, body)
	}
	e := <-waited
	if p := problem(t, e.header, e.body); e.status != http.StatusConflict || p.Code != api.Code(api.OutcomeCancelled) || p.Task != id {
		t.Errorf("got %d %s of task %s, want 409 cancelled of %s", e.status, p.Code, p.Task, id)
	}
}

func TestV1ProgramThatRunsOutOfMemoryExitsWith137(t *testing.T) {
	c := sharedCluster(t)
	got := c.v1(t, 0, busybox, "sh", "-c", "x=$(head -c 700000000 /dev/zero | tr '\\0' x); y=$x$x; echo $y | wc -c")
	if got.ExitCode != 137 {
		t.Errorf("got exit %d with %s, want 137", got.ExitCode, got.Stderr)
	}
}

func TestV1HealthSaysWhatItLookedAt(t *testing.T) {
	c := sharedCluster(t)
	for _, version := range []string{"/v1.0", "/v1.1"} {
		for _, form := range []string{"", "?quick=true", "?quick=false"} {
			status, header, body := c.get(0, version+"/_health"+form)
			got := decodeJSON[api.HealthV1](t, body)
			if status != http.StatusOK || got.Status != "green" || !strings.HasSuffix(got.Links.Self.Href, version+"/_health") || header.Get("Content-Type") != "application/json" {
				t.Errorf("%s%s: got %d %s", version, form, status, body)
			}
			if long := form == "?quick=false"; long != (len(got.Details) > 0) {
				t.Errorf("%s%s: got %d details", version, form, len(got.Details))
			}
			for _, part := range []string{"docker remote api", "raft", "gossip", "disk"} {
				if form == "?quick=false" && got.Details[part].Status != "green" {
					t.Errorf("%s%s: %s is %q in %s", version, form, part, got.Details[part].Status, body)
				}
			}
			if form == "?quick=false" && got.Details["docker remote api"].Details["api version"] != "green" {
				t.Errorf("%s%s: got %s, want the engines' version", version, form, body)
			}
		}
		for _, bad := range []string{"?quick=", "?quick=1", "?quick=TRUE"} {
			if status, _, body := c.get(0, version+"/_health"+bad); status != http.StatusBadRequest {
				t.Errorf("%s%s: got %d %s, want 400", version, bad, status, body)
			}
		}
		status, _, body := c.get(0, version+"/_version")
		if v := decodeJSON[api.VersionV1](t, body); status != http.StatusOK || v.Version == "" || !strings.HasSuffix(v.Links.Self.Href, version+"/_version") {
			t.Errorf("%s/_version: got %d %s", version, status, body)
		}
	}
}
