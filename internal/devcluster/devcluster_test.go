package devcluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func options(t *testing.T) Options {
	return Options{Dir: filepath.Join(t.TempDir(), "dev"), HTTPPort: freeHTTP(t),
		DockerHost: startFakeEngine(t).host(), Binaries: binaries(t), Within: 20 * time.Second}
}

func mustUp(t *testing.T, o Options) *Status {
	t.Helper()
	s, err := Up(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Down(context.Background(), o.Dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

func wantGone(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		entries, _ := os.ReadDir(dir)
		t.Errorf("%s is still there, with %d entries", dir, len(entries))
	}
}

func TestUpStartsEveryNodeAndDownLeavesNothing(t *testing.T) {
	o := options(t)
	t.Setenv("ECS_CONTROL_NAME", "somebody else's")
	s := mustUp(t, o)
	if len(s.Nodes) != 6 || len(s.Endpoints) != 3 || len(s.Missing()) > 0 {
		t.Fatalf("got %d nodes, %d endpoints, %v missing; want 6, 3 and none", len(s.Nodes), len(s.Endpoints), s.Missing())
	}
	zones, leaders := map[string]int{}, 0
	for _, n := range s.Nodes {
		zones[n.Role+" "+n.Zone]++
		if n.Leader {
			leaders++
		}
		if text, err := os.ReadFile(filepath.Join(o.Dir, n.Name, pidFile)); err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(n.PID) {
			t.Errorf("pid file of %s: got %q, %v, want %d", n.Name, text, err, n.PID)
		}
	}
	if len(zones) != 6 || leaders != 1 {
		t.Errorf("got %v and %d leaders, want one of each role in each zone, and one leader", zones, leaders)
	}
	for i, e := range s.Endpoints {
		if want := "http://" + local(o.HTTPPort+i); e != want {
			t.Errorf("endpoint %d: got %s, want %s", i, e, want)
		}
	}
	if err := Down(context.Background(), o.Dir); err != nil {
		t.Fatal(err)
	}
	wantGone(t, o.Dir)
	for _, n := range s.Nodes {
		for _, pid := range []int{n.PID, n.FencePID} {
			if args, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); strings.Contains(string(args), o.Dir) {
				t.Errorf("%s still runs, or its fence", n.Name)
			}
		}
	}
	if err := Down(context.Background(), o.Dir); err != nil {
		t.Errorf("down once more: got %v, want it to be fine", err)
	}
}

func TestUpSaysThatNoAgentOffersNetwork(t *testing.T) {
	for with, want := range map[string]bool{"": true, "a2": false} {
		t.Run("network of "+with, func(t *testing.T) {
			o := options(t)
			o.Controls, o.Agents = 1, 2
			var said bytes.Buffer
			o.Progress = &said
			t.Setenv(fakeNetwork, with)
			mustUp(t, o)
			if got := strings.Contains(said.String(), "the agents offer no network to tasks: run as root\n"); got != want {
				t.Errorf("got %q, want a word of the missing network: %v", said.String(), want)
			}
		})
	}
}

func TestStatusHasTheShapeOthersRead(t *testing.T) {
	text, err := json.Marshal(Status{Dir: "d", Key: "k", Secret: "s", Endpoints: []string{"http://127.0.0.1:8448"},
		Nodes: []Node{{Name: "c1", Role: "control", Zone: "a", PID: 7, HTTP: "h", Health: "he", Leader: true}}})
	const want = `{"dir":"d","key":"k","secret":"s","endpoints":["http://127.0.0.1:8448"],"nodes":[{"name":"c1","role":"control","zone":"a","pid":7,"http":"h","health":"he","leader":true}]}`
	if err != nil || string(text) != want {
		t.Errorf("got %s, %v\nwant %s", text, err, want)
	}
}

func TestNodeThatDiesFailsUpWithItsLogAndLeavesNothing(t *testing.T) {
	o := options(t)
	t.Setenv(fakeWho, "a2")
	t.Setenv(fakeHow, dies)
	_, err := Up(context.Background(), o)
	if err == nil || !strings.Contains(err.Error(), "a2 ended by itself") || !strings.Contains(err.Error(), "the disk is on fire") {
		t.Errorf("got %v, want a2 named with the end of its log", err)
	}
	wantGone(t, o.Dir)
}

func TestEveryAgentOfRootsHasAFence(t *testing.T) {
	o := options(t)
	o.Controls, o.Agents = 1, 2
	var said bytes.Buffer
	o.Progress = &said
	s := mustUp(t, o)
	const warning = "the agents have no outer fence (ecs-fence): run as root\n"
	if os.Geteuid() != 0 {
		if !strings.Contains(said.String(), warning) || s.Nodes[1].FencePID != 0 || len(s.Missing()) > 0 {
			t.Errorf("got %q and process %d, want a warning and no fence", said.String(), s.Nodes[1].FencePID)
		}
		return
	}
	if strings.Contains(said.String(), warning) {
		t.Errorf("got %q, want no warning", said.String())
	}
	for _, n := range s.Nodes {
		if (n.FencePID != 0) != (n.Role == roleAgent) {
			t.Errorf("%s: got fence process %d, want one for each agent alone", n.Name, n.FencePID)
		}
	}
	agent, err := os.ReadFile(filepath.Join(o.Dir, "a1", configFile))
	fence, fenceErr := os.ReadFile(filepath.Join(o.Dir, "a1", fenceConfig))
	socket := "socket: " + filepath.Join(o.Dir, "a1", fenceSocket)
	if errors.Join(err, fenceErr) != nil || !strings.Contains(string(agent), "fence_"+socket) || !strings.Contains(string(fence), socket) {
		t.Errorf("got %s and %s, want %q in both", agent, fence, socket)
	}
	if err := syscall.Kill(s.Nodes[2].FencePID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; {
		s, err := ReadStatus(context.Background(), o.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if missing := s.Missing(); slices.Equal(missing, []string{"a2's fence"}) {
			break
		} else if time.Since(began) > 10*time.Second {
			t.Fatalf("got %v missing, want a2's fence", missing)
		}
	}
}

func TestClusterOfAnOrdinaryUserHasNoFences(t *testing.T) {
	c := &cluster{dir: t.TempDir(), Nodes: []node{{Name: "a1", Role: roleAgent}}}
	if err := os.Mkdir(c.path("a1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.writeSettings(c.Nodes[0], 1); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(c.path("a1", configFile))
	if err != nil || !strings.Contains(string(text), `fence_socket: ""`) || len(c.processes()) != 1 {
		t.Errorf("got %s, %v and %d processes, want no fence", text, err, len(c.processes()))
	}
}

func TestFenceThatDiesFailsUp(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("fences need root")
	}
	o := options(t)
	t.Setenv(fakeWho, "a2"+fenceSuffix)
	_, err := Up(context.Background(), o)
	if err == nil || !strings.Contains(err.Error(), "a2's fence ended by itself") || !strings.Contains(err.Error(), "the disk is on fire") {
		t.Errorf("got %v, want a2's fence named with the end of its log", err)
	}
	wantGone(t, o.Dir)
}

func TestNodeThatIsNeverReadyFailsUpInTime(t *testing.T) {
	o := options(t)
	o.Within = 5 * time.Second
	t.Setenv(fakeWho, "c3")
	t.Setenv(fakeHow, late)
	_, err := Up(context.Background(), o)
	if err == nil || !strings.Contains(err.Error(), "c3 is not ready: its health check says 503") {
		t.Errorf("got %v, want c3 named with the reason", err)
	}
	wantGone(t, o.Dir)
}

func TestInterruptedUpLeavesNothing(t *testing.T) {
	o := options(t)
	t.Setenv(fakeWho, "c3")
	t.Setenv(fakeHow, late)
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if _, err := Up(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
	wantGone(t, o.Dir)
}

func TestDownByAnotherSpelling(t *testing.T) {
	o := options(t)
	o.Controls, o.Agents = 1, 1
	s := mustUp(t, o)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Dir(o.Dir), link); err != nil {
		t.Fatal(err)
	}
	if err := Down(context.Background(), filepath.Join(link, filepath.Base(o.Dir))); err != nil {
		t.Fatal(err)
	}
	wantGone(t, o.Dir)
	for _, n := range s.Nodes {
		if args, _ := os.ReadFile("/proc/" + strconv.Itoa(n.PID) + "/cmdline"); strings.Contains(string(args), o.Dir) {
			t.Errorf("%s still runs", n.Name)
		}
	}
}

func TestDownEndsWhatDoesNotEndByItself(t *testing.T) {
	o := options(t)
	o.Controls, o.Agents = 1, 1
	t.Setenv(fakeWho, "c1")
	t.Setenv(fakeHow, stubborn)
	s := mustUp(t, o)
	c, err := open(o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	c.patience = 100 * time.Millisecond
	if err := c.down(context.Background()); err != nil {
		t.Fatal(err)
	}
	wantGone(t, o.Dir)
	if args, _ := os.ReadFile("/proc/" + strconv.Itoa(s.Nodes[0].PID) + "/cmdline"); strings.Contains(string(args), o.Dir) {
		t.Error("c1 still runs")
	}
}

func TestStatusAndDownWorkOverKilledProcesses(t *testing.T) {
	o := options(t)
	s := mustUp(t, o)
	for _, n := range s.Nodes[1:] {
		if err := syscall.Kill(n.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		s, err := ReadStatus(context.Background(), o.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if s.Nodes[0].PID != 0 && s.Nodes[5].PID == 0 && len(s.Missing()) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %+v, want only c1 running", s.Nodes)
		}
	}
	if err := Down(context.Background(), o.Dir); err != nil {
		t.Fatal(err)
	}
	wantGone(t, o.Dir)
}

func TestDownWithoutTheEngineSaysSoAndCanBeRepeated(t *testing.T) {
	o := options(t)
	engine := startFakeEngine(t)
	o.DockerHost = engine.host()
	mustUp(t, o)
	engine.server.Close()
	err := Down(context.Background(), o.Dir)
	if err == nil || !strings.Contains(err.Error(), "may be left") || !strings.Contains(err.Error(), "dev down --dir "+o.Dir) {
		t.Fatalf("got %v, want it to say what may be left and what to do", err)
	}
	if entries, _ := os.ReadDir(o.Dir); len(entries) != 1 {
		t.Errorf("got %d entries left, want the record alone", len(entries))
	}
	if err := Down(context.Background(), o.Dir); err == nil {
		t.Error("down again, still without the engine: got no error, want the same one")
	}
	engine.start(t)
	if err := Down(context.Background(), o.Dir); err != nil {
		t.Fatal(err)
	}
	wantGone(t, o.Dir)
}

func TestUpSaysWhatIsInTheWay(t *testing.T) {
	o := options(t)
	mustUp(t, o)
	want := func(o Options, words ...string) {
		t.Helper()
		_, err := Up(context.Background(), o)
		for _, w := range words {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("got %v, want %q in it", err, w)
			}
		}
	}
	processes := 6
	if os.Geteuid() == 0 {
		processes += 3 // fences
	}
	want(o, fmt.Sprintf("is up already (%d of %[1]d processes)", processes), "ecsctl dev down --dir "+o.Dir)

	same := o
	same.Dir = filepath.Join(t.TempDir(), "dev")
	want(same, "port "+strconv.Itoa(o.HTTPPort)+" is in use by the cluster in "+o.Dir, "--http-port")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	same.HTTPPort = l.Addr().(*net.TCPAddr).Port
	same.Controls = 1
	want(same, "port "+strconv.Itoa(same.HTTPPort)+" is in use by process "+strconv.Itoa(os.Getpid()))
	wantGone(t, same.Dir)

	full := o
	full.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(full.Dir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want(full, "is not empty", "--dir")
	if err := Down(context.Background(), full.Dir); err == nil || !strings.Contains(err.Error(), "nothing was removed") {
		t.Errorf("down of somebody's directory: got %v, want a refusal", err)
	}

	engineless := o
	engineless.Dir, engineless.HTTPPort, engineless.DockerHost = filepath.Join(t.TempDir(), "dev"), freeHTTP(t), "unix:///no/such/engine"
	want(engineless, "no container engine answers", "ops/setup/engine.sh")
	wantGone(t, engineless.Dir)
}

func TestDownKeepsADirectoryThatWasThereBefore(t *testing.T) {
	o := options(t)
	o.Controls, o.Agents = 1, NoAgents
	if err := os.Mkdir(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	mustUp(t, o)
	if err := Down(context.Background(), o.Dir); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(o.Dir); err != nil || len(entries) != 0 {
		t.Errorf("got %d entries, %v, want the directory, empty", len(entries), err)
	}
}

func TestEveryFaultOfTheOptionsIsNamed(t *testing.T) {
	o := Options{Controls: 2, Agents: 1000, HTTPPort: 70000, Binaries: t.TempDir(), Dir: filepath.Join(t.TempDir(), "dev")}
	_, err := Up(context.Background(), o)
	for _, want := range []string{"2 control nodes", "1000 agents", "HTTP port 70000", "ecs-control is not beside", "make build"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

func TestMachineIsSharedOutWithAtLeastOneCPUEach(t *testing.T) {
	o, err := Options{Agents: 64, Binaries: t.TempDir()}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if o.AgentCPUs < 1000 || o.AgentMemory < minAgentMemory {
		t.Errorf("got %s CPUs and %s each, want at least 1 and %s", o.AgentCPUs, o.AgentMemory, minAgentMemory)
	}
	given, err := Options{AgentCPUs: 250, AgentMemory: 1 << 30, Binaries: t.TempDir()}.withDefaults()
	if err != nil || given.AgentCPUs != 250 || given.AgentMemory != 1<<30 {
		t.Errorf("got %s and %s, %v, want what was given", given.AgentCPUs, given.AgentMemory, err)
	}
}

func TestFreePortsAreFreeAndDifferent(t *testing.T) {
	ports, err := freePorts(30)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range ports {
		if seen[p] {
			t.Errorf("port %d came twice", p)
		}
		seen[p] = true
		if err := checkPort(p); err != nil {
			t.Error(err)
		}
	}
}
