package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ecs/internal/clusterfiles"
	"ecs/internal/pki"
	"ecs/proto/api"
)

// ctl runs one command against a service and gives what it printed.
func (s *service) ctl(args ...string) (out, errOut string, status int) {
	var stdout, stderr bytes.Buffer
	env := map[string]string{"ECS_ENDPOINT": s.URL, "ECS_KEY": "k", "ECS_SECRET": "s"}
	a := &app{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, env: func(name string) string { return env[name] },
		signals: make(chan os.Signal), unguard: func() {}}
	status = a.main(args)
	return stdout.String(), stderr.String(), status
}

func TestKeysAreMadeListedAndRevoked(t *testing.T) {
	s := newService(t)
	out, errOut, status := s.ctl("keys", "create", "--role", "operate", "--name", "x")
	if out != "key:secret\n" || status != 0 || !strings.Contains(errOut, "once") {
		t.Errorf("got %q %q %d", out, errOut, status)
	}
	out, _, _ = s.ctl("keys", "create", "--rate", "7", "--quota", "0", "--json")
	var k api.Key
	if err := json.Unmarshal([]byte(out), &k); err != nil || k.Role != api.RoleRun || k.Rate == nil || *k.Rate != 7 || k.Quota == nil || *k.Quota != 0 || k.Concurrency != nil {
		t.Errorf("got %s, want the limits that were given and no other", out)
	}
	if out, _, _ := s.ctl("keys", "ls"); !strings.Contains(out, "default") || !strings.Contains(out, "none") || strings.Contains(out, "\x1b") {
		t.Errorf("got %q", out)
	}
	if out, _, status := s.ctl("keys", "revoke", "key"); status != 0 || !strings.Contains(out, "key revoked") {
		t.Errorf("got %q %d", out, status)
	}
	if _, errOut, status := s.ctl("keys", "revoke"); status != exitUsage || !strings.Contains(errOut, "a key is needed") {
		t.Errorf("got %q %d", errOut, status)
	}
}

func TestJoinTokensAreListedAndWithdrawn(t *testing.T) {
	s := newService(t)
	out, _, status := s.ctl("ca", "tokens")
	if status != 0 || !strings.Contains(out, "0123456789ab ") || !strings.Contains(out, "used") || !strings.Contains(out, "n1") {
		t.Errorf("got %q %d", out, status)
	}
	if out, _, status := s.ctl("ca", "withdraw", "0123456789ab"); status != 0 || !strings.Contains(out, "withdrawn") {
		t.Errorf("got %q %d", out, status)
	}
	if _, errOut, status := s.ctl("ca", "withdraw"); status != exitUsage || !strings.Contains(errOut, "the id of a token is needed") {
		t.Errorf("got %q %d", errOut, status)
	}
}

func TestATokenGoesNowhereInTheClear(t *testing.T) {
	s := newService(t)
	token := api.JoinToken{}.String()
	for _, endpoint := range []string{"http://192.0.2.1:8448", "example.org", "https://example.org,http://example.org"} {
		_, errOut, status := s.ctl("ca", "request", "--endpoint", endpoint, "--token", token, t.TempDir())
		if status != exitUsage || !strings.Contains(errOut, "https://") || strings.Contains(errOut, token) {
			t.Errorf("%s: got %q %d", endpoint, errOut, status)
		}
	}
	if _, errOut, status := s.ctl("ca", "request", "--token", "rubbish", t.TempDir()); status != exitUsage || strings.Contains(errOut, "rubbish") {
		t.Errorf("got %q %d", errOut, status)
	}
}

func TestOnlyTheTokensAuthorityIsTrusted(t *testing.T) {
	ca, err := pki.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	request, key, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	id := pki.Identity{Cluster: "test", Role: pki.RoleAgent, ID: "a"}
	answer := func(by *pki.CA) *api.Admitted {
		cert, err := by.Sign(request, id, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return &api.Admitted{Cluster: "test", Node: "a", Certificate: string(cert), Authority: string(by.CertPEM()), GossipKey: "AAAA"}
	}
	var token api.JoinToken
	if token.Pin, err = pki.Pin(ca.CertPEM()); err != nil {
		t.Fatal(err)
	}
	files, err := admitted(token, answer(ca), key)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "node")
	if err := clusterfiles.WriteAdmission(clusterfiles.In(dir), files); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, clusterfiles.NodeKey)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info, err)
	}
	if err := clusterfiles.WriteAdmission(clusterfiles.In(dir), files); err == nil {
		t.Error("files of a node were written over")
	}
	if _, err := admitted(token, answer(other), key); err == nil || !strings.Contains(err.Error(), "another authority") {
		t.Errorf("got %v for an answer of another authority", err)
	}
	mixed := answer(other)
	mixed.Authority = string(ca.CertPEM())
	if _, err := admitted(token, mixed, key); err == nil {
		t.Error("a certificate of another authority is taken")
	}
	_, otherKey, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admitted(token, answer(ca), otherKey); err == nil {
		t.Error("a certificate for another key is taken")
	}
}
