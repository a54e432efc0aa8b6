package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"ecs/internal/task"
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

// What takes long is in the stream once it is done, not once somebody has waited for
// its answer.
func TestWhatLastsIsAuditedWhenItBegins(t *testing.T) {
	w, kept := auditedWorld(t, false)
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = w.try(http.MethodPost, "/v2/tasks?wait=1m", `{"image":"busybox:1"}`)
		_, _ = w.try(http.MethodPost, "/v1.1/tasks", `{"docker_image":"busybox:1","cmd":["true"]}`)
	}()
	next := func() task.ID {
		var id task.ID
		eventually(t, "a task waits", func() bool {
			for t := range w.Snapshot().Pending() {
				id = t.ID
			}
			return id != ""
		})
		return id
	}
	for i, action := range []string{"/v2/tasks", "/v1.1/tasks"} {
		id := next()
		list := kept.all(t, 2*i+1)
		begun := list[2*i]
		if begun["msg"] != "begun" || begun["who"] != alice || begun["action"] != action || begun["task"] != string(id) || begun["image"] == nil || begun["status"] != nil {
			t.Errorf("got %v while it runs", begun)
		}
		w.finish(w.start(id), exited(0))
		if ended := kept.all(t, 2*i+2)[2*i+1]; ended["msg"] != "request" || ended["task"] != string(id) || ended["status"] == nil {
			t.Errorf("got %v at its end", ended)
		}
	}
	<-over
	id := w.submitted(`{"image":"busybox:1","open_stdin":true}`)
	c := w.attach(id, "")
	if list := kept.all(t, 6); list[5]["msg"] != "begun" || list[5]["action"] != "/v2/tasks/:id/attach" {
		t.Errorf("got %v while somebody is attached", list[5])
	}
	_ = c.conn.CloseNow()
	kept.all(t, 7)
}

// A flood of wrong secrets hides no refusal of a key that is known, and what is left
// out of it is counted, at the end too.
func TestStrangersHideNoKeysRefusals(t *testing.T) {
	w, kept := auditedWorld(t, false)
	const flood = 3 * refusedBurst
	for range flood {
		w.do(http.MethodGet, "/v2/nodes", "", "Authorization", "")
	}
	w.do(http.MethodPost, "/v2/keys", `{"role":"admin"}`, "Authorization", basic(alice, "a-secret"))
	var strangers, left, known int
	eventually(t, "every refusal is written or counted", func() bool {
		w.handler.Close()
		strangers, left, known = 0, 0, 0
		for _, m := range kept.all(t, 1) {
			n, _ := m["left_out"].(float64)
			left += int(n)
			switch {
			case m["who"] == "":
				strangers++
			case m["who"] == alice && m["status"] == 403.0:
				known++
			}
		}
		return strangers+left == flood && known == 1
	})
	if left == 0 {
		t.Errorf("all of %d were written", flood)
	}
}

func TestAuditSaysWhatWasAskedForAlsoWhereThatFails(t *testing.T) {
	w, kept := auditedWorld(t, false)
	w.do(http.MethodPost, "/v2/revocations", `{"node":"nobody"}`)
	w.unmade = &task.Error{Code: task.CodeTooMany, Message: "no room"}
	w.do(http.MethodPost, "/v2/keys", `{"role":"admin"}`)
	w.do(http.MethodPost, "/v2/join/tokens", `{"role":"control"}`)
	for i, want := range []map[string]any{
		{"status": 404.0, "node": "nobody"}, {"status": 409.0, "role": "admin"}, {"status": 409.0, "role": "control"},
	} {
		for name, value := range want {
			if got := kept.all(t, 3)[i]; got[name] != value {
				t.Errorf("record %d: got %v, want %s %v", i, got, name, value)
			}
		}
	}
}

func TestStrangersDoNotFillTheAuditStream(t *testing.T) {
	w, kept := auditedWorld(t, false)
	for range 3 * refusedBurst {
		w.do(http.MethodGet, "/v2/nodes", "", "Authorization", "")
	}
	w.submitted(`{"image":"busybox:1","command":["a"]}`)
	eventually(t, "the last record", func() bool {
		list := kept.all(t, refusedBurst)
		return list[len(list)-1]["who"] == alice
	})
	if n := len(kept.all(t, refusedBurst)); n > 2*refusedBurst {
		t.Errorf("got %d records of %d strangers", n, 3*refusedBurst)
	}
}
