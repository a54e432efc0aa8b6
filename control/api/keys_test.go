package api

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"ecs/internal/access"
	"ecs/proto/api"
)

func TestAKeyIsMadeListedUsedAndRevoked(t *testing.T) {
	w := newWorld(t)
	a := w.do(http.MethodPost, "/v2/keys", `{"name":"crawler","role":"run","rate":7,"quota":0}`)
	if a.status != http.StatusCreated {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	k := decodeAs[api.Key](t, a)
	if len(k.ID) != 32 || len(k.Secret) != 32 || k.Role != "run" || *k.Rate != 7 || *k.Quota != 0 || k.Concurrency != nil || k.CreatedBy != root {
		t.Errorf("got %+v", k)
	}
	kept := w.store.Snapshot().Key(k.ID)
	if kept.Limits != (access.Limits{Rate: 7, Quota: access.NoLimit}) || bcrypt.CompareHashAndPassword([]byte(kept.Hash), []byte(k.Secret)) != nil {
		t.Errorf("got %+v in the record", kept)
	}
	ring := NewKeyring(nil, access.Run, w)
	if !rightAs(ring, k.ID, k.Secret, access.Run) {
		t.Error("the new key opens nothing")
	}
	list := w.do(http.MethodGet, "/v2/keys", "")
	if bytes.Contains(list.body, []byte(k.Secret)) || bytes.Contains(list.body, []byte(kept.Hash)) || !bytes.Contains(list.body, []byte(k.ID)) {
		t.Errorf("got %s", list.body)
	}
	for range 2 {
		if a := w.do(http.MethodDelete, "/v2/keys/"+k.ID, ""); a.status != http.StatusOK || decodeAs[api.Key](t, a).RevokedBy != root {
			t.Errorf("got %d %s", a.status, a.body)
		}
	}
	if rightAs(ring, k.ID, k.Secret, access.Run) {
		t.Error("a revoked key opens the door")
	}
	w.problem(w.do(http.MethodDelete, "/v2/keys/nobody", ""), http.StatusNotFound, api.CodeNotFound)
	only := decodeAs[api.Key](t, w.do(http.MethodPost, "/v2/keys", `{"role":"admin"}`))
	w.problem(w.do(http.MethodDelete, "/v2/keys/"+only.ID, ""), http.StatusConflict, api.CodeLastAdmin)
}

func rightAs(k *Keyring, key, secret string, role access.Role) bool {
	who, err := k.Authenticate(context.Background(), Attempt{key, secret, ""})
	return err == nil && who.Owner == key && who.Role == role
}

func TestEveryFaultOfANewKeyIsNamed(t *testing.T) {
	w := newWorld(t)
	p := w.problem(w.do(http.MethodPost, "/v2/keys", `{"name":"a\u0007","role":"root","rate":-1,"concurrency":"x","quota":1000001,"color":1}`),
		http.StatusBadRequest, api.CodeInvalidTask)
	var named []string
	for _, f := range p.Errors {
		named = append(named, f.Pointer)
	}
	for _, want := range []string{"/name", "/role", "/rate", "/concurrency", "/quota", "/color"} {
		if !strings.Contains(strings.Join(named, " "), want) {
			t.Errorf("%s is not named in %v", want, named)
		}
	}
	w.problem(w.do(http.MethodPost, "/v2/keys", `{}`), http.StatusBadRequest, api.CodeInvalidTask)
	w.problem(w.do(http.MethodPost, "/v2/keys", `[`), http.StatusBadRequest, api.CodeBadRequest)
}

// TestRolesOpenWhatTheyAreFor asks every route with every role.
func TestRolesOpenWhatTheyAreFor(t *testing.T) {
	w := newWorld(t)
	secrets := map[access.Role]string{access.Run: basic(alice, "a-secret"), access.Operate: basic(olga, "o-secret"), access.Admin: basic(root, "r-secret")}
	for path, need := range map[string]access.Role{
		"GET /v2/tasks": access.Run, "GET /v1.1/_noop": access.Run, "GET /v2/nodes": access.Operate, "GET /v2/nodes/a1": access.Operate,
		"POST /v2/nodes/a1/drain": access.Operate, "GET /v2/cluster": access.Operate, "GET /metrics": access.Operate,
		"GET /v2/logs?cid=c": access.Run, "GET /v2/images": access.Operate, "POST /v2/images/warm": access.Operate,
		"POST /v2/nodes/a1/leave": access.Admin, "POST /v2/join/tokens": access.Admin, "GET /v2/revocations": access.Admin, "POST /v2/revocations": access.Admin,
		"POST /v2/cluster/snapshot": access.Admin, "GET /v2/keys": access.Admin, "POST /v2/keys": access.Admin, "DELETE /v2/keys/x": access.Admin,
	} {
		method, path, _ := strings.Cut(path, " ")
		for _, role := range access.Roles() {
			a := w.do(method, path, "", "Authorization", secrets[role])
			if got, want := a.status != http.StatusForbidden, role.May(need); got != want {
				t.Errorf("%s %s as %s: got %d", method, path, role, a.status)
			}
			if a.status == http.StatusForbidden {
				w.problem(a, http.StatusForbidden, api.CodeForbidden)
			}
		}
	}
	if got := roleFor(route{method: "GET", path: "/v2/later"}); got != access.Admin {
		t.Errorf("a route that nobody named takes %s", got)
	}
}

func TestOperatorsSeeAndStopTheTasksOfOthers(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(hello)
	path := "/v2/tasks/" + string(id)
	asBob, asOlga := []string{"Authorization", basic(bob, "b-secret")}, []string{"Authorization", basic(olga, "o-secret")}
	w.problem(w.do(http.MethodGet, path, "", asBob...), http.StatusNotFound, api.CodeNotFound)
	w.problem(w.do(http.MethodPost, path+"/cancel", "", asBob...), http.StatusNotFound, api.CodeNotFound)
	w.problem(w.do(http.MethodGet, "/v2/tasks?owner="+alice, "", asBob...), http.StatusForbidden, api.CodeForbidden)
	w.problem(w.do(http.MethodGet, "/v2/tasks?owner=*", "", asBob...), http.StatusForbidden, api.CodeForbidden)
	if a := w.do(http.MethodGet, "/v2/tasks?owner="+bob, "", asBob...); a.status != http.StatusOK {
		t.Errorf("got %d for one's own", a.status)
	}
	if got := w.task(w.do(http.MethodGet, path, "", asOlga...)); got.Owner != alice {
		t.Errorf("got owner %q, want %s", got.Owner, alice)
	}
	for query, want := range map[string]int{"": 0, "?owner=*": 1, "?owner=" + alice: 1, "?owner=" + bob: 0} {
		if got := decodeAs[api.TaskList](t, w.do(http.MethodGet, "/v2/tasks"+query, "", asOlga...)); len(got.Tasks) != want {
			t.Errorf("%q: got %d tasks, want %d", query, len(got.Tasks), want)
		}
	}
	w.problem(w.do(http.MethodGet, path+"/attach", "", asOlga...), http.StatusNotFound, api.CodeNotFound)
	if got := w.task(w.do(http.MethodPost, path+"/cancel", "", asOlga...)); got.Reason != "cancelled by an operator" {
		t.Errorf("got reason %q", got.Reason)
	}
}

// FuzzParseKey: whatever the bytes are, the key is refused or within its bounds.
func FuzzParseKey(f *testing.F) {
	for _, seed := range []string{`{"role":"run"}`, `{"name":"x","role":"admin","rate":1,"concurrency":0,"quota":5}`, `{"role":1}`, `[]`, "{\"role\":\"run\",\"rate\":1e3}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		k, err := parseKey(body)
		if err != nil {
			return
		}
		if !k.Role.May(access.Run) || len(k.Name) > maxKeyName || k.ID != "" || k.Hash != "" {
			t.Errorf("got %+v", k)
		}
		for _, n := range []int{k.Limits.Rate, k.Limits.Concurrency, k.Limits.Quota} {
			if n < access.NoLimit || n > access.MaxLimit {
				t.Errorf("got %+v", k.Limits)
			}
		}
	})
}
