package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"ecs/internal/telemetry"
	"ecs/proto/api"
)

// records is an audit stream that tests read.
type records struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

// all gives every record once there are n of them.
func (r *records) all(t *testing.T, n int) []map[string]any {
	t.Helper()
	var list []map[string]any
	eventually(t, "audit records", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		list = nil
		for line := range strings.Lines(r.buf.String()) {
			var m map[string]any
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatalf("record %q: %v", line, err)
			}
			list = append(list, m)
		}
		return len(list) >= n
	})
	return list
}

func auditedWorld(t *testing.T, argv bool) (*world, *records) {
	var kept records
	return newWorld(t, func(c *Config) { c.Audit, c.AuditArgv = telemetry.NewAudit(&kept), argv }), &kept
}

func TestAuditSaysWhoDidWhatWithWhichOutcome(t *testing.T) {
	w, kept := auditedWorld(t, false)
	id := w.submitted(`{"image":"busybox:1","command":["login","--password","hunter2"]}`)
	w.do(http.MethodGet, "/v2/tasks", "") // only looks
	w.do(http.MethodPost, "/v2/tasks/"+string(id)+"/cancel", "", "Authorization", basic(bob, "b-secret"))
	w.do(http.MethodGet, "/v2/nodes", "", "Authorization", basic(alice, "wrong-secret"))
	list := kept.all(t, 3)
	if len(list) != 3 {
		t.Fatalf("got %d records %v, want 3", len(list), list)
	}
	made, refused, stranger := list[0], list[1], list[2]
	if made["who"] != alice || made["from"] != "127.0.0.1" || made["action"] != "/v2/tasks" || made["method"] != "POST" ||
		made["status"] != 202.0 || made["task"] != string(id) || made["cid"] == nil || !strings.HasSuffix(made["image"].(string), "busybox:1") {
		t.Errorf("got %v, want who asked for what", made)
	}
	if refused["who"] != bob || refused["status"] != 404.0 || refused["code"] != "not_found" || refused["path"] != "/v2/tasks/"+string(id)+"/cancel" {
		t.Errorf("got %v, want bob refused", refused)
	}
	if stranger["who"] != "" || stranger["status"] != 401.0 || stranger["code"] != "unauthorized" {
		t.Errorf("got %v, want a stranger refused", stranger)
	}
	for _, secret := range []string{"hunter2", "secret"} {
		if strings.Contains(kept.buf.String(), secret) {
			t.Errorf("the stream holds %q: %s", secret, &kept.buf)
		}
	}
}

func TestAuditSaysWhoLetsWhomIn(t *testing.T) {
	w, kept := auditedWorld(t, false)
	k := decodeAs[api.Key](t, w.do(http.MethodPost, "/v2/keys", `{"role":"operate"}`))
	w.do(http.MethodPost, "/v2/keys", `{"role":"admin"}`, "Authorization", basic(alice, "a-secret"))
	w.do(http.MethodPost, "/v2/join/tokens", `{"role":"agent"}`)
	w.do(http.MethodPost, "/v2/revocations", `{"node":"a1"}`)
	list := kept.all(t, 4)
	for i, want := range []map[string]any{
		{"who": root, "status": 201.0, "action": "/v2/keys", "key": k.ID, "role": "operate"},
		{"who": alice, "status": 403.0, "action": "/v2/keys", "code": "forbidden"},
		{"who": root, "status": 201.0, "action": "/v2/join/tokens", "role": "agent"},
		{"who": root, "status": 201.0, "action": "/v2/revocations", "node": "a1"},
	} {
		for name, value := range want {
			if list[i][name] != value {
				t.Errorf("record %d: got %v, want %s %v", i, list[i], name, value)
			}
		}
	}
	kept.mu.Lock()
	defer kept.mu.Unlock()
	for _, secret := range []string{k.Secret, "ecsjoin1"} {
		if strings.Contains(kept.buf.String(), secret) {
			t.Errorf("the stream holds %q: %s", secret, &kept.buf)
		}
	}
}

func TestAuditTellsTheSameCommandByItsHash(t *testing.T) {
	w, kept := auditedWorld(t, false)
	w.submitted(`{"image":"busybox:1","command":["a","b"]}`)
	w.submitted(`{"image":"busybox:2","command":["a","b"]}`)
	w.submitted(`{"image":"busybox:1","command":["a b"]}`)
	list := kept.all(t, 3)
	first, again, other := list[0]["argv_hash"], list[1]["argv_hash"], list[2]["argv_hash"]
	if first == nil || first != again || first == other || list[0]["argv"] != nil {
		t.Errorf("got hashes %v %v %v, want the first two the same", first, again, other)
	}
	w, kept = auditedWorld(t, true)
	w.submitted(`{"image":"busybox:1","command":["a","b"]}`)
	if got := kept.all(t, 1)[0]; got["argv_hash"] != nil || len(got["argv"].([]any)) != 2 {
		t.Errorf("got %v, want the command line", got)
	}
}

func TestStrangersDoNotFillTheAuditStream(t *testing.T) {
	w, kept := auditedWorld(t, false)
	for range 3 * strangersBurst {
		w.do(http.MethodGet, "/v2/nodes", "", "Authorization", "")
	}
	w.submitted(`{"image":"busybox:1","command":["a"]}`)
	eventually(t, "the last record", func() bool {
		list := kept.all(t, strangersBurst)
		return list[len(list)-1]["who"] == alice
	})
	if n := len(kept.all(t, strangersBurst)); n > 2*strangersBurst {
		t.Errorf("got %d records of %d strangers", n, 3*strangersBurst)
	}
}
