package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ecs/internal/clusterfiles"
	"ecs/internal/pki"
	"ecs/proto/api"
)

func TestUsageFaultsExitWithTwo(t *testing.T) {
	for _, args := range [][]string{
		{"frobnicate"}, {"tasks"}, {"tasks", "ls", "--nope"}, {"tasks", "show"}, {"tasks", "logs", "a", "b"}, {"nodes", "ls", "x"},
		{"creds", "none"}, {"creds", "0"}, {"tasks", "logs", "--stream", "third", "t1"}, {"ca", "issue", "--role", "king", "out"},
		{"dev", "up", "--agent-cpus", "many"}, {"tasks", "ls", "--endpoint", "::"},
	} {
		i := invoke(newService(t))
		if status := i.main(args); status != exitUsage || i.err.String() == "" {
			t.Errorf("%v: got status %d, %q, want %d and a reason", args, status, i.err, exitUsage)
		}
	}
}

func TestMissingKeyIsSaidBeforeAnythingIsSent(t *testing.T) {
	i := invoke(newService(t), "ECS_SECRET=")
	if status := i.main([]string{"nodes", "ls"}); status != exitUsage || !strings.Contains(i.err.String(), "ECS_SECRET") {
		t.Errorf("got status %d, %q, want %d and what to set", status, i.err, exitUsage)
	}
}

func TestFlagsWinOverTheEnvironment(t *testing.T) {
	s := newService(t)
	s.state = api.StateFinished
	i := invoke(s, "ECS_ENDPOINT=http://127.0.0.1:1", "ECS_KEY=wrong")
	if status := i.main([]string{"--endpoint", s.URL, "--api-key", "k", "tasks", "show", "t1"}); status != 0 {
		t.Errorf("got status %d: %s", status, i.err)
	}
}

func TestNextEndpointIsAskedWhenOneIsDown(t *testing.T) {
	s := newService(t)
	s.state = api.StateFinished
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	i := invoke(s, "ECS_ENDPOINT="+down.URL+", "+strings.TrimPrefix(s.URL, "http://"))
	if status := i.main([]string{"tasks", "show", "t1"}); status != 0 {
		t.Errorf("got status %d: %s", status, i.err)
	}
}

func TestWrongKeyGetsARemedy(t *testing.T) {
	i := invoke(newService(t), "ECS_KEY=wrong")
	if status := i.main([]string{"tasks", "show", "t1"}); status != exitFailed || !strings.Contains(i.err.String(), "ECS_KEY and ECS_SECRET") || !strings.Contains(i.err.String(), "ecsctl keys create") {
		t.Errorf("got status %d, %q, want %d and a remedy", status, i.err, exitFailed)
	}
}

func TestWrongNamesComeWithWhereTheNamesAre(t *testing.T) {
	for args, lists := range map[string]string{
		"tasks show none": "ecsctl tasks ls", "tasks logs none": "ecsctl tasks ls", "tasks logs -f none": "ecsctl tasks ls",
		"tasks cancel none none": "ecsctl tasks ls", "tasks cp none .": "ecsctl tasks ls", "attach none": "ecsctl tasks ls",
		"nodes show none": "ecsctl nodes ls", "nodes drain none": "ecsctl nodes ls", "images ls --node none": "ecsctl nodes ls",
		"leave --node none": "ecsctl cluster status", "keys revoke none": "ecsctl keys ls", "ca withdraw none": "ecsctl ca tokens",
		"ca revoke --node none": "ecsctl cluster status",
	} {
		i := invoke(newService(t))
		if status := i.main(strings.Fields(args)); status == exitOK || strings.Count(i.err.String(), lists) != 1 {
			t.Errorf("%s: got status %d, %q, want it to name %s", args, status, i.err, lists)
		}
	}
}

// TestEachOfSeveralFaultsHasItsRemedy: `nodes drain a b` may fail in two ways.
func TestEachOfSeveralFaultsHasItsRemedy(t *testing.T) {
	none := named(&api.Problem{Code: api.CodeNotFound}, listsNodes)
	err := errors.Join(fmt.Errorf("a: %w", none), fmt.Errorf("b: %w", syscall.ECONNREFUSED), fmt.Errorf("c: %w", none))
	got := remedy(err)
	if strings.Count(got, listsNodes) != 1 || !strings.Contains(got, "is the cluster up?") {
		t.Errorf("got %q, want both remedies, each once", got)
	}
}

func TestLogsGoWhereTheyCameFrom(t *testing.T) {
	s := newService(t)
	s.output = map[string]string{api.Stdout: "out", api.Stderr: "err"}
	i := invoke(s)
	if status := i.main([]string{"tasks", "logs", "t1"}); status != 0 || i.out.String() != "out" || i.err.String() != "err" {
		t.Errorf("got status %d, %q and %q, want out and err", status, i.out, i.err)
	}
	only := invoke(s)
	only.main([]string{"tasks", "logs", "--stream", "stderr", "t1"})
	if only.out.String() != "" || only.err.String() != "err" {
		t.Errorf("got %q and %q, want err alone", only.out, only.err)
	}
	s.events = []api.Event{outputEvent(1, api.Stdout, 0, "a"), outputEvent(1, api.Stderr, 0, "b"), outputEvent(1, api.Stdout, 1, "c")}
	follow := invoke(s)
	if status := follow.main([]string{"tasks", "logs", "-f", "t1"}); status != 0 || follow.out.String() != "ac" || follow.err.String() != "b" {
		t.Errorf("got status %d, %q and %q, want ac and b", status, follow.out, follow.err)
	}
}

func TestCtrlCEndsOtherCommands(t *testing.T) {
	s := newService(t)
	s.hold = make(chan struct{})
	i := invoke(s)
	ended := make(chan int)
	go func() { ended <- i.main([]string{"tasks", "logs", "-f", "t1"}) }()
	i.signals <- os.Interrupt
	if status := <-ended; status != exitCancelled {
		t.Errorf("got status %d, want %d", status, exitCancelled)
	}
}

func TestCredsPrintsWhatItsHashesAreOf(t *testing.T) {
	t.Chdir(t.TempDir())
	for n, args := range map[int][]string{5: {"creds"}, 2: {"creds", "2"}} {
		i := invoke(nil)
		if status := i.main(args); status != 0 {
			t.Fatalf("%v: got status %d: %s", args, status, i.err)
		}
		if got := strings.Count(i.out.String(), "\n"); got != n {
			t.Errorf("%v: got %d lines, want %d", args, got, n)
		}
		text, err := os.ReadFile(".htpasswd")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(i.out.String()) {
			key, secret, _ := strings.Cut(strings.TrimSpace(line), ":")
			if !strings.Contains(string(text), key+":$2") || strings.Contains(string(text), secret) {
				t.Errorf("key %s: want its hash, and not its secret, in .htpasswd", key)
			}
		}
	}
}

func TestCAMakesWhatNodesNeed(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, args := range [][]string{{"ca", "init", "prod"}, {"ca", "issue", "--role", "agent", "--id", "n1", "node"}} {
		if i := invoke(nil); i.main(args) != 0 {
			t.Fatalf("%v: %s", args, i.err)
		}
	}
	node, err := pki.LoadNode(filepath.Join("ecs-ca", clusterfiles.CACert), filepath.Join("node", clusterfiles.NodeCert), filepath.Join("node", clusterfiles.NodeKey))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := node.Identity(), (pki.Identity{Cluster: "prod", Role: pki.RoleAgent, ID: "n1"}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if i := invoke(nil); i.main([]string{"ca", "init", "prod"}) != exitFailed {
		t.Error("a second init: want it to refuse")
	}
}

func TestDevStatusWithoutAClusterSaysHowToGetOne(t *testing.T) {
	i := invoke(nil)
	dir := filepath.Join(t.TempDir(), "dev")
	if status := i.main([]string{"dev", "status", "--dir", dir}); status != exitFailed || !strings.Contains(i.err.String(), "ecsctl dev up --dir "+dir) {
		t.Errorf("got status %d, %q", status, i.err)
	}
	if i := invoke(nil); i.main([]string{"dev", "down", "--dir", dir}) != 0 {
		t.Errorf("down of nothing: got %q, want it to be fine", i.err)
	}
}
