package devcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.yaml.in/yaml/v3"

	"ecs/internal/admin"
	"ecs/internal/task"
	"ecs/proto/api"
)

// The daemons of these tests are this test binary under other names: they
// answer health checks and the calls that readiness is judged by.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case controlBinary, agentBinary:
		os.Exit(fakeDaemon(os.Args[2]))
	case fenceBinary:
		os.Exit(fakeFence(os.Args[2]))
	}
	os.Exit(m.Run())
}

// How a fake daemon named by fakeWho misbehaves.
const (
	fakeWho  = "DEVCLUSTER_FAKE_NODE"
	fakeHow  = "DEVCLUSTER_FAKE_FAULT"
	dies     = "dies"     // at once, with a word in its log
	late     = "late"     // is never ready
	stubborn = "stubborn" // does not end when asked
)

// fakeFence is called as its agent is, for a fault, and "'s fence".
func fakeFence(config string) int {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	if os.Getenv(fakeWho) == filepath.Base(filepath.Dir(config))+fenceSuffix {
		fmt.Println("the disk is on fire")
		return 1
	}
	<-end
	return 0
}

// fakeNetwork names the one agent that offers tasks a network.
const fakeNetwork = "DEVCLUSTER_FAKE_NETWORK"

func fakeDaemon(config string) int {
	text, err := os.ReadFile(config)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	var settings struct {
		Name   string `yaml:"name"`
		HTTP   string `yaml:"http_addr"`
		Health string `yaml:"health_addr"`
		Data   string `yaml:"data_dir"`
	}
	if err := yaml.Unmarshal(text, &settings); err != nil {
		fmt.Println(err)
		return 1
	}
	fault := ""
	if os.Getenv(fakeWho) == settings.Name {
		fault = os.Getenv(fakeHow)
	}
	if fault == dies {
		fmt.Println("the disk is on fire")
		return 1
	}
	end := make(chan os.Signal, 1)
	if fault == stubborn {
		signal.Ignore(syscall.SIGTERM)
	} else {
		signal.Notify(end, syscall.SIGTERM)
	}
	failed := make(chan error, 3)
	go func() { failed <- serveFakeDoor(settings.Data, fakeNode{fault: fault, end: end}) }()
	serve := func(addr string, h http.HandlerFunc) {
		go func() { failed <- http.ListenAndServe(addr, h) }()
	}
	serve(settings.Health, func(w http.ResponseWriter, _ *http.Request) {
		if fault == late {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	if settings.HTTP != "" {
		serve(settings.HTTP, func(w http.ResponseWriter, r *http.Request) { fakeAPI(w, r, filepath.Dir(filepath.Dir(config))) })
	}
	select {
	case <-end:
		return 0
	case err := <-failed:
		fmt.Println(err)
		return 1
	}
}

// fakeNode joins and leaves at once, unless it refuses.
type fakeNode struct {
	fault string
	end   chan<- os.Signal
}

// refuses, as a fault: it neither joins nor leaves.
const refuses = "refuses"

func serveFakeDoor(dir string, n fakeNode) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	l, err := admin.Listen(dir)
	if err != nil {
		return err
	}
	return admin.Serve(context.Background(), l, n)
}

func (n fakeNode) About() admin.About { return admin.About{} }

func (n fakeNode) Join(_ context.Context, addrs []string, say func(string)) error {
	if n.fault == refuses {
		return errors.New("nobody there")
	}
	say("joining through " + strings.Join(addrs, " "))
	return nil
}

func (n fakeNode) Leave(_ context.Context, force bool, say func(string)) error {
	if n.fault == refuses && !force {
		return errors.New("it is the last voter")
	}
	say("leaving")
	go func() { n.end <- syscall.SIGTERM }()
	return nil
}

func fakeAPI(w http.ResponseWriter, r *http.Request, dir string) {
	c, err := open(dir)
	if key, secret, _ := r.BasicAuth(); err != nil || key != c.Key || secret != c.Secret {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if id, ok := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/v2/nodes/"), "/leave"); ok {
		fakeSendAway(w, dir, id)
		return
	}
	switch r.URL.Path {
	case "/v2/nodes":
		var list api.NodeList
		for _, n := range c.Nodes {
			if n.Role == roleAgent {
				shown := api.Node{ID: n.ID, Status: "ready"}
				if os.Getenv(fakeNetwork) == n.Name {
					shown.Attributes = map[string]string{task.AttributeEgress: "true"}
				}
				list.Nodes = append(list.Nodes, shown)
			}
		}
		json.NewEncoder(w).Encode(list)
	case "/v2/cluster":
		json.NewEncoder(w).Encode(api.Cluster{Leader: c.Nodes[0].ID})
	}
}

// fakeKeep, set, has the leader need every node's vote.
const fakeKeep = "DEVCLUSTER_FAKE_KEEP"

// fakeSendAway takes a node out of the configuration, once, and remembers that.
func fakeSendAway(w http.ResponseWriter, dir, id string) {
	problem := func(status int, code api.Code) {
		w.Header().Set("Content-Type", api.ProblemType)
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(api.Problem{Status: status, Code: code, Detail: "says the leader"})
	}
	out := fakeOut(dir, id)
	if os.Getenv(fakeKeep) != "" {
		problem(http.StatusConflict, api.CodeMembership)
		return
	}
	if _, err := os.Stat(out); err == nil {
		problem(http.StatusNotFound, api.CodeNotFound)
		return
	}
	if err := os.WriteFile(out, nil, 0o600); err != nil {
		fmt.Println(err)
	}
	json.NewEncoder(w).Encode(api.Leaving{Node: id, Role: roleControl})
}

// fakeOut is a file that says that a node was taken out, beside the cluster's
// directory.
func fakeOut(dir, id string) string { return filepath.Join(filepath.Dir(dir), "out-"+id) }

// fakeEngine answers as an engine that has nothing.
type fakeEngine struct {
	path   string
	server *http.Server
}

func startFakeEngine(t *testing.T) *fakeEngine {
	t.Helper()
	// Not t.TempDir: a socket's path must be short.
	dir, err := os.MkdirTemp("", "ecs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	e := &fakeEngine{path: filepath.Join(dir, "engine")}
	e.start(t)
	t.Cleanup(func() { e.server.Close() })
	return e
}

func (e *fakeEngine) host() string { return "unix://" + e.path }

func (e *fakeEngine) start(t *testing.T) {
	t.Helper()
	l, err := net.Listen("unix", e.path)
	if err != nil {
		t.Fatal(err)
	}
	e.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("API-Version", "1.41")
		w.Header().Set("Content-Type", "application/json")
		if !strings.HasSuffix(r.URL.Path, "/_ping") {
			fmt.Fprintln(w, "[]")
		}
	})}
	go e.server.Serve(l)
}

// binaries makes a directory with the fake daemons in it.
func binaries(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{controlBinary, agentBinary, initBinary, fenceBinary} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// freeHTTP finds three free ports in a row, outside those freePorts gives.
func freeHTTP(t *testing.T) int {
	t.Helper()
	for port := 12000; port < 19000; port += 3 {
		if checkPort(port) == nil && checkPort(port+1) == nil && checkPort(port+2) == nil {
			return port
		}
	}
	t.Fatal("no three free ports")
	return 0
}
