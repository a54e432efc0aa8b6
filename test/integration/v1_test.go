package integration

import (
	"net/http"
	"strings"
	"testing"

	"ecs/proto/api"
)

func TestV1AnswersAsTheOldServiceDid(t *testing.T) {
	c := sharedCluster(t)
	for i := range c.Endpoints {
		got := c.v1(t, i, busybox, "sh", "-c", "echo out; echo err >&2; exit 7")
		if got.ExitCode != 7 || string(got.Stdout) != "out\n" || string(got.Stderr) != "err\n" {
			t.Errorf("endpoint %d: got %d %q %q", i, got.ExitCode, got.Stdout, got.Stderr)
		}
	}
	status, _, body := c.call(0, http.MethodPost, "/v1.0/tasks/", map[string]any{"docker_image": "ecs-test/busybox", "tag": "1", "cmd": []string{"echo", "v1.0"}})
	if status != http.StatusCreated {
		t.Fatalf("v1.0 with a slash at the end: got %d %s, want 201", status, body)
	}
	if got := decodeJSON[v1Answer](t, body); string(got.Stdout) != "v1.0\n" {
		t.Errorf("v1.0: got %q", got.Stdout)
	}

	for _, path := range []string{"/v1.1/_version", "/v1.1/_noop", "/v1.1/_health", "/v1.1/_health?quick=true", "/v1.1/_health?quick=false"} {
		status, _, body := c.get(1, path)
		if status != http.StatusOK {
			t.Errorf("%s: got %d %s, want 200", path, status, body)
			continue
		}
		self := decodeJSON[struct {
			Status string `json:"status"`
			Links  struct {
				Self struct {
					Href string `json:"href"`
				} `json:"self"`
			} `json:"links"`
		}](t, body)
		if strings.Contains(path, "_health") && self.Status != "green" {
			t.Errorf("%s: got status %q in %s, want green", path, self.Status, body)
		}
		if !strings.Contains(path, "_noop") && !strings.Contains(self.Links.Self.Href, strings.Split(path, "?")[0]) {
			t.Errorf("%s: got self link %q", path, self.Links.Self.Href)
		}
	}
	if status, _, body := c.get(0, "/v1.1/_health?quick=maybe"); status != http.StatusBadRequest {
		t.Errorf("quick=maybe: got %d %s, want 400", status, body)
	}
}

func TestV1TasksHaveAWayOutAndV2OnesDoNot(t *testing.T) {
	c := sharedCluster(t)
	got := c.v1(t, 0, busybox, "sh", "-c", "ls /sys/class/net | sort | tr '\\n' ' '")
	if !strings.Contains(string(got.Stdout), "eth0") {
		t.Errorf("v1: got interfaces %q, want eth0", got.Stdout)
	}
	v2 := c.run(t, 0, api.TaskRequest{Image: busybox, Command: sh("ls /sys/class/net | sort | tr '\\n' ' '; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status")})
	text := string(content(t, v2.Stdout))
	for _, want := range []string{"lo CapEff", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(text, want) {
			t.Errorf("v2: got %q, want %q in it", text, want)
		}
	}
}

func TestHostsAndMetadataAreOutOfReach(t *testing.T) {
	c := sharedCluster(t)
	got := c.run(t, 0, api.TaskRequest{Image: busybox, Network: "egress", Command: sh(
		`gw=$(ip route | awk '/default/{print $3}'); nc -w 2 $gw 22 </dev/null; echo host $?; nc -w 2 169.254.169.254 80 </dev/null; echo metadata $?`)})
	text := string(content(t, got.Stdout)) + string(content(t, got.Stderr))
	if !strings.Contains(text, "refused") && !strings.Contains(text, "unreachable") {
		t.Errorf("got %q, want both refused at once", text)
	}
	for _, want := range []string{"host 1", "metadata 1"} {
		if !strings.Contains(text, want) {
			t.Errorf("got %q, want %q", text, want)
		}
	}
}

func TestIdempotencyKeyIsOneTask(t *testing.T) {
	c := sharedCluster(t)
	body := map[string]any{"docker_image": busybox, "cmd": []string{"sh", "-c", "cat /proc/sys/kernel/random/uuid"}}
	var first string
	for i := range c.Endpoints {
		status, _, text := c.call(i, http.MethodPost, "/v1.1/tasks", body, api.HeaderIdempotencyKey, "v1-key")
		if status != http.StatusCreated {
			t.Fatalf("got %d %s", status, text)
		}
		if first == "" {
			first = string(text)
		}
		if string(text) != first {
			t.Errorf("endpoint %d: got %s, want the first answer %s", i, text, first)
		}
	}
	body["cmd"] = []string{"date"}
	if status, header, text := c.call(0, http.MethodPost, "/v1.1/tasks", body, api.HeaderIdempotencyKey, "v1-key"); status != http.StatusConflict {
		t.Errorf("another body: got %d %s, want 409", status, text)
	} else if p := problem(t, header, text); p.Code != api.CodeKeyConflict {
		t.Errorf("got code %s, want key_conflict", p.Code)
	}
}
