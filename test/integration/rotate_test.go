package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ecs/internal/admin"
	"ecs/proto/api"
)

// newcomer is an agent as on a fresh machine: it has settings and nothing else.
type newcomer struct {
	t    *testing.T
	dir  string
	proc *exec.Cmd
	log  bytes.Buffer // once it has ended
}

func newNewcomer(t *testing.T) *newcomer {
	n := &newcomer{t: t, dir: t.TempDir()}
	n.start()
	t.Cleanup(n.stop)
	return n
}

func (n *newcomer) in(name string) string { return filepath.Join(n.dir, name) }

func (n *newcomer) start() {
	n.t.Helper()
	n.proc = exec.Command(filepath.Join(binaries, "ecs-agent"), "--await-join", "--name", "fresh", "--zone", "z", "--data-dir", n.in("data"),
		"--ca", n.in("etc/ca.crt"), "--cert", n.in("etc/node.crt"), "--key", n.in("etc/node.key"), "--gossip-key", n.in("etc/gossip.key"),
		"--gossip-addr", "127.0.0.1:0", "--output-addr", "127.0.0.1:0", "--health-addr", "", "--fence-socket", "", "--egress=false",
		"--cpus", "0.5", "--memory", "512MiB", "--grace", "1s")
	n.proc.Stdout, n.proc.Stderr = &n.log, &n.log
	if err := n.proc.Start(); err != nil {
		n.t.Fatal(err)
	}
	within(n.t, 20*time.Second, "the daemon's admin socket", func() bool {
		_, err := admin.NewClient(n.in("data")).About(n.t.Context())
		return err == nil
	})
}

func (n *newcomer) stop() {
	if n.proc == nil {
		return
	}
	_ = n.proc.Process.Signal(syscall.SIGTERM)
	if err := n.proc.Wait(); err != nil {
		n.t.Errorf("the new agent: %v", err)
	}
	if n.t.Failed() {
		n.t.Logf("the new agent's log:\n%s", n.log.String())
	}
	n.proc = nil
}

// kill ends the process at once.
func (n *newcomer) kill() {
	_ = n.proc.Process.Kill()
	_ = n.proc.Wait() // says that it was killed
	n.proc = nil
}

func (c *cluster) joinToken(t *testing.T) string {
	t.Helper()
	out, stderr, code := c.ecsctl("ca", "token", "--role", "agent")
	if code != 0 {
		t.Fatalf("token: got %d %s", code, stderr)
	}
	return strings.TrimSpace(out)
}

func (c *cluster) gossipKey() (k api.GossipKey) {
	status, _, body := c.get(0, "/v2/cluster")
	var info api.Cluster
	if status == http.StatusOK && json.Unmarshal(body, &info) == nil {
		k = info.GossipKey
	}
	return k
}

// members counts who gossips, as every control node sees it.
func (c *cluster) members(want int) bool {
	for i := range c.Endpoints {
		status, _, body := c.get(i, "/v2/cluster")
		var info api.Cluster
		if status != http.StatusOK || json.Unmarshal(body, &info) != nil || len(info.Members) != want {
			return false
		}
	}
	return true
}

func (c *cluster) readyNodes(t *testing.T) (ready int) {
	for _, n := range c.nodes(t) {
		if n.Status == "ready" {
			ready++
		}
	}
	return ready
}

// From a token to a node that works, in one command; then the gossip key rotates while
// that node is down, and it finds its way back.
func TestANewNodeJoinsWithATokenAndComesBackAfterARotation(t *testing.T) {
	c := ownCluster(t, "--controls", "3", "--agents", "1")
	n := newNewcomer(t)
	token := c.joinToken(t)
	if _, stderr, code := c.ecsctl("join", "--data-dir", n.in("data"), "127.0.0.1:1"); code == 0 || !strings.Contains(stderr, "ecsctl ca token") {
		t.Errorf("join without a token: got %d %s, want told what to do", code, stderr)
	}
	out, stderr, code := c.ecsctl("join", "--data-dir", n.in("data"), "--token", token)
	if code != 0 || !strings.Contains(out, "registered") || !strings.Contains(out, "joined") {
		t.Fatalf("join: got %d %s%s", code, out, stderr)
	}
	within(t, 10*time.Second, "two agents take tasks", func() bool { return c.readyNodes(t) == 2 })
	if info, err := os.Stat(n.in("etc/node.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want the key for its owner alone", info, err)
	}
	if _, stderr, code := c.ecsctl("join", "--data-dir", n.in("data"), "--token", token); code == 0 || !strings.Contains(stderr, "has a certificate") {
		t.Errorf("with a token again: got %d %s", code, stderr)
	}
	late := newNewcomer(t)
	if _, stderr, code := c.ecsctl("join", "--data-dir", late.in("data"), "--token", token); code == 0 || !strings.Contains(stderr, "ecsctl ca token --role agent") {
		t.Errorf("a used token: got %d %s, want it refused and told what to do", code, stderr)
	}
	late.stop()

	stop := c.keepBusy(t)
	old := c.gossipKey()
	out, stderr, code = c.ecsctl("cluster", "rotate-gossip-key")
	if code != 0 || !strings.Contains(out, "step 1 of 3") && !strings.Contains(out, "rotated: key") {
		t.Fatalf("rotate: got %d %s%s", code, out, stderr)
	}
	first := c.gossipKey()
	if first.ID == old.ID || first.Step != "" || first.Version != 3 {
		t.Errorf("got %+v after %+v", first, old)
	}
	n.kill()
	within(t, time.Minute, "gossip and lease say that it is gone", func() bool { return c.members(4) && c.readyNodes(t) == 1 })
	out, stderr, code = c.ecsctl("cluster", "rotate-gossip-key")
	if code != 0 || !strings.Contains(out, "fresh") || !strings.Contains(out, "it gets the key when it is back") {
		t.Errorf("rotate with a node away: got %d %s%s", code, out, stderr)
	}
	second := c.gossipKey()
	if second.ID == first.ID || len(second.Skipped) != 1 {
		t.Errorf("got %+v after %+v", second, first)
	}
	n.start()
	within(t, time.Minute, "it is back in gossip and takes tasks", func() bool { return c.members(5) && c.readyNodes(t) == 2 })
	if text, err := os.ReadFile(n.in("data/gossip-ring.json")); err != nil || !strings.Contains(string(text), fmt.Sprint(`"version":`, second.Version)) {
		t.Errorf("got %s, %v on its disk, want version %d", text, err, second.Version)
	}
	c.wantAll(t, stop())
	if out, _, _ := c.ecsctl("cluster", "status"); !strings.Contains(out, second.ID) {
		t.Errorf("the status lacks the key %s:\n%s", second.ID, out)
	}
	if _, stderr, code := c.ecsctl("leave", "--data-dir", n.in("data")); code != 0 {
		t.Errorf("leave: got %d %s", code, stderr)
	}
	_ = n.proc.Wait()
	n.proc = nil
}
