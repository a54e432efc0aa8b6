package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ecs/internal/clusterfiles"
	"ecs/internal/pki"
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

// TestANewClusterLetsItsOperatorInOverTLS starts one control node as a deployment
// would, without an htpasswd file, and goes from its first admin key to the
// certificate of a new node.
func TestANewClusterLetsItsOperatorInOverTLS(t *testing.T) {
	dir := t.TempDir()
	ca, err := clusterfiles.Init(dir, "door", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	id := pki.Identity{Cluster: "door", Role: pki.RoleControl, ID: "c1"}
	if err := clusterfiles.IssueNode(ca, id, dir, []string{"127.0.0.1"}, time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	addrs := freeAddrs(t, 5)
	args := []string{"--zone", "a", "--bootstrap-expect", "1", "--data-dir", file("data"), "--htpasswd", "", "--drain", "0s",
		"--ca", file(clusterfiles.CACert), "--ca-key", file(clusterfiles.CAKey), "--cert", file(clusterfiles.NodeCert), "--key", file(clusterfiles.NodeKey),
		"--gossip-key", file(clusterfiles.GossipKey), "--seal-key", file(clusterfiles.SealKey),
		"--tls-cert", file(clusterfiles.NodeCert), "--tls-key", file(clusterfiles.NodeKey),
		"--http-addr", addrs[0], "--health-addr", addrs[1], "--rpc-addr", addrs[2], "--raft-addr", addrs[3], "--gossip-addr", addrs[4]}
	ctx, cancel := context.WithCancel(t.Context())
	var log bytes.Buffer
	node := exec.CommandContext(ctx, filepath.Join(binaries, "ecs-control"), args...)
	node.Stderr = &log
	node.Cancel = func() error { return node.Process.Signal(os.Interrupt) }
	node.WaitDelay = 20 * time.Second
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = node.Wait() }()
	var first []byte
	within(t, 30*time.Second, "the first admin key", func() bool {
		first, err = os.ReadFile(file("data/first-admin-key"))
		return err == nil && len(first) > 0
	})
	key, secret, _ := strings.Cut(strings.TrimSpace(string(first)), ":")
	ctl := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, filepath.Join(binaries, "ecsctl"), args...)
		cmd.Env = append(os.Environ(), "ECS_ENDPOINT=https://"+addrs[0], "ECS_CA_CERT="+file(clusterfiles.CACert), "ECS_KEY="+key, "ECS_SECRET="+secret)
		out, err := cmd.Output()
		return string(out), err
	}
	within(t, 20*time.Second, "the key opens the door", func() bool { _, err = ctl("keys", "ls"); return err == nil })
	token, err := ctl("ca", "token", "--role", "agent")
	if err != nil {
		t.Fatal(err)
	}
	token = strings.TrimSpace(token)
	if out, err := ctl("ca", "request", "--token", token, "--role", "control", file("wrong")); err == nil {
		t.Errorf("an agent's token made a control node: %s", out)
	}
	if out, err := ctl("ca", "request", "--token", token, "--role", "agent", file("agent")); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	joined, err := pki.LoadNode(file("agent/"+clusterfiles.CACert), file("agent/"+clusterfiles.NodeCert), file("agent/"+clusterfiles.NodeKey))
	if err != nil || joined.Identity().Role != pki.RoleAgent || time.Until(joined.Expires()) < 29*24*time.Hour {
		t.Fatalf("got %v, %v", joined, err)
	}
	if out, err := ctl("ca", "request", "--token", token, "--role", "agent", file("again")); err == nil {
		t.Errorf("a token worked twice: %s", out)
	}
	if out, err := ctl("ca", "revoke", "--node", joined.Identity().ID); err != nil {
		t.Errorf("%s: %v", out, err)
	}
	for _, secret := range []string{secret, token, token[len("ecsjoin1."):]} {
		if strings.Contains(log.String(), secret) {
			t.Error("a secret is in the log")
		}
	}
	if out, err := ctl("keys", "revoke", key); err == nil {
		t.Errorf("the last admin key was revoked: %s", out)
	}
}

// freeAddrs finds loopback addresses that nobody listens on.
func freeAddrs(t *testing.T, n int) []string {
	t.Helper()
	addrs := make([]string, n)
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addrs[i] = fmt.Sprint(l.Addr())
	}
	return addrs
}
