// Package integration drives real processes with a real Docker Engine, as a
// user would: it builds the binaries, starts clusters with `ecsctl dev up`,
// speaks HTTP and the command line, and kills things.
package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/client"

	"ecs/test/images"
)

// Images that the tests run; test/images makes them here, without a registry.
const (
	busybox = "ecs-test/busybox:1"
	prog    = "ecs-test/prog:1"
)

var (
	binaries string // directory of the built binaries
	engine   *client.Client
	shared   struct {
		once sync.Once
		dir  string // holds the cluster's own
		c    *cluster
		err  error
	}
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv("ECS_TEST_NO_ENGINE") == "1" {
		fmt.Println("integration: ECS_TEST_NO_ENGINE=1, nothing of this package runs")
		return 0
	}
	dir, err := os.MkdirTemp("", "ecs-integration-")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries = dir
	build := exec.Command("go", "build", "-o", dir+"/", "ecs/cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Printf("build: %v\n%s", err, out)
		return 1
	}
	engine, err = client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer engine.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := images.Ensure(ctx, engine); err != nil {
		fmt.Printf("no engine or no test images: %v\nrun: ops/setup/engine.sh\n", err)
		return 1
	}
	code := m.Run()
	if err := endShared(); err != nil {
		fmt.Println(err)
		code = 1
	}
	return code
}

// endShared leaves nothing of the shared cluster. When it can't be ended its
// directory stays, for `ecsctl dev down` goes by what is in there.
func endShared() error {
	if shared.c != nil {
		if err := shared.c.down(); err != nil {
			return err
		}
	}
	if shared.dir == "" {
		return nil
	}
	return os.RemoveAll(shared.dir)
}

// cluster is a `dev` cluster of real processes.
type cluster struct {
	Dir       string   `json:"dir"`
	Key       string   `json:"key"`
	Secret    string   `json:"secret"`
	Endpoints []string `json:"endpoints"`
	Nodes     []node   `json:"nodes"`
}

type node struct {
	Name   string `json:"name"`
	Role   string `json:"role"`
	Zone   string `json:"zone"`
	PID    int    `json:"pid"`
	HTTP   string `json:"http"`
	Health string `json:"health"`
	Leader bool   `json:"leader"`
	// FencePID is the fence of an agent's.
	FencePID int `json:"fence_pid"`
	// group is the daemon's own, by which its network can be cut; 0: it has none.
	group uint32
}

// sharedCluster is one cluster of 3 and 3 for every test that breaks nothing.
func sharedCluster(t *testing.T) *cluster {
	t.Helper()
	shared.once.Do(func() {
		if shared.dir, shared.err = os.MkdirTemp("", "ecs-shared-"); shared.err != nil {
			return
		}
		shared.c, shared.err = devUp(filepath.Join(shared.dir, "dev"))
	})
	if shared.err != nil {
		t.Fatalf("shared cluster: %v", shared.err)
	}
	return shared.c
}

// ownCluster is a cluster for one test, which may break it. Afterwards nothing
// of it may be left.
func ownCluster(t *testing.T, flags ...string) *cluster {
	t.Helper()
	c, err := devUp(filepath.Join(t.TempDir(), "dev"), flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.logTail(t, 3000)
		}
		if err := c.down(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// devUp starts a cluster, and once more when somebody took a port of it after it
// was found free.
func devUp(dir string, flags ...string) (*cluster, error) {
	c, err := tryDevUp(dir, flags...)
	if err != nil && strings.Contains(err.Error(), "in use") {
		c, err = tryDevUp(dir, flags...)
	}
	return c, err
}

func tryDevUp(dir string, flags ...string) (*cluster, error) {
	base, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	args := append([]string{"dev", "up", "--json", "--dir", dir, "--http-port", strconv.Itoa(base)}, flags...)
	cmd := exec.Command(filepath.Join(binaries, "ecsctl"), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	var c cluster
	if err := json.Unmarshal(stdout.Bytes(), &c); err != nil {
		return nil, fmt.Errorf("dev up answered %s: %w", stdout.String(), err)
	}
	c.Dir = dir
	return &c, nil
}

// freePorts finds n consecutive free ports, below those that the kernel gives to
// outgoing connections and those that a dev cluster takes for itself.
func freePorts(n int) (int, error) {
	const lowest, highest = 10000, 19999
	for range 50 {
		base := lowest + rand.IntN(highest-lowest-n+2)
		var held []net.Listener
		for i := range n {
			if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+i)); err == nil {
				held = append(held, l)
			}
		}
		for _, h := range held {
			h.Close()
		}
		if len(held) == n {
			return base, nil
		}
	}
	return 0, fmt.Errorf("no %d consecutive free ports from %d to %d", n, lowest, highest)
}

// down stops the cluster and wants nothing of it left: no process, container,
// network or file.
func (c *cluster) down() error {
	name, err := c.name()
	if err != nil {
		return err
	}
	out, err := exec.Command(filepath.Join(binaries, "ecsctl"), "dev", "down", "--dir", c.Dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("dev down: %w\n%s", err, out)
	}
	var left []string
	if _, err := os.Stat(c.Dir); err == nil {
		left = append(left, "directory "+c.Dir)
	}
	for _, n := range c.Nodes {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/cmdline", n.PID)); err == nil {
			if cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n.PID)); bytes.Contains(cmdline, []byte("ecs-")) {
				left = append(left, fmt.Sprintf("process %d (%s)", n.PID, n.Name))
			}
		}
	}
	ours, err := leftInEngine(name)
	if err != nil {
		return err
	}
	if left = append(left, ours...); len(left) > 0 {
		return fmt.Errorf("left behind after dev down: %s", strings.Join(left, ", "))
	}
	return nil
}

// name is the cluster's name, which labels everything it makes in the engine. It
// is read from the cluster's own record: any of the nodes may be dead.
func (c *cluster) name() (string, error) {
	text, err := os.ReadFile(filepath.Join(c.Dir, "cluster.json"))
	if err != nil {
		return "", fmt.Errorf("the cluster's name: %w", err)
	}
	var record struct {
		Cluster string `json:"cluster"`
	}
	if err := json.Unmarshal(text, &record); err != nil || record.Cluster == "" {
		return "", fmt.Errorf("no name in %s/cluster.json: %w", c.Dir, err)
	}
	return record.Cluster, nil
}

// leftInEngine lists containers and networks that carry the cluster's label.
func leftInEngine(cluster string) ([]string, error) {
	label := "label=ecs.cluster=" + cluster
	var left []string
	for _, args := range [][]string{{"ps", "-aq", "--filter", label}, {"network", "ls", "-q", "--filter", label}} {
		out, err := exec.Command("docker", args...).Output()
		if err != nil {
			return nil, fmt.Errorf("docker %s: %w", strings.Join(args, " "), err)
		}
		for _, id := range strings.Fields(string(out)) {
			left = append(left, args[0]+" "+id)
		}
	}
	return left, nil
}

func (c *cluster) logTail(t *testing.T, most int) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(c.Dir, "*", "*.log"))
	more, _ := filepath.Glob(filepath.Join(c.Dir, "*.log"))
	for _, f := range append(files, more...) {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		text = text[max(0, len(text)-most):]
		t.Logf("--- %s\n%s", f, text)
	}
}

// ecsctl runs the command line against the cluster.
func (c *cluster) ecsctl(args ...string) (stdout, stderr string, code int) {
	cmd := exec.Command(filepath.Join(binaries, "ecsctl"), args...)
	cmd.Env = append(os.Environ(), "ECS_ENDPOINT="+strings.Join(c.Endpoints, ","), "ECS_KEY="+c.Key, "ECS_SECRET="+c.Secret)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !asExit(err, &exit) {
		return out.String(), err.Error(), -1
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

func asExit(err error, to **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError)
	*to = e
	return ok
}

// within waits for a condition, looking every 50 ms.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
		<-tick.C
	}
}
