package docker_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"

	"ecs/agent/runtime"
	"ecs/agent/runtime/docker"
	"ecs/agent/runtime/runtimetest"
	"ecs/internal/fence"
	"ecs/internal/task"
	"ecs/internal/telemetry"
	"ecs/test/images"
)

// initBinary is the program under test inside the containers, outer the fence
// around them.
var (
	initBinary string
	outer      *fence.Client
)

func TestMain(m *testing.M) { os.Exit(setUp(m)) }

func setUp(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ecs-docker-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	initBinary = filepath.Join(dir, "ecs-init")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", initBinary, "ecs/cmd/ecs-init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build ecs-init: %v: %s", err, text))
	}
	ctx, cancel := context.WithCancel(context.Background())
	log := slog.New(slog.DiscardHandler)
	outer = fence.New(filepath.Join(dir, "fence"), log)
	server := fence.NewServer(fence.ServerConfig{Socket: filepath.Join(dir, "fence"), StateDir: filepath.Join(dir, "entries"), Log: log})
	var both sync.WaitGroup
	for _, run := range []func(context.Context) error{server.Run, outer.Run} {
		both.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, "fence:", err)
			}
		})
	}
	code := m.Run()
	cancel()
	both.Wait()
	return code
}

// engine gives a client of this machine's engine, with the test images on it.
// A machine without one fails the test, unless it says that it has none.
func engine(t testing.TB) *client.Client {
	t.Helper()
	if os.Getenv("ECS_TEST_NO_ENGINE") == "1" {
		t.Skip("ECS_TEST_NO_ENGINE=1: tests that need a Docker Engine are left out")
	}
	c, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if _, err := c.Ping(ctx); err != nil {
		t.Fatalf("no Docker Engine answers (%v); run: apt-get install -y docker.io && service docker start (or set ECS_TEST_NO_ENGINE=1)", err)
	}
	if err := images.Ensure(ctx, c); err != nil {
		t.Fatal(err)
	}
	return c
}

var clusters atomic.Int64

// newCluster names a cluster of this test's own and sees to it that nothing of
// it is left.
func newCluster(t testing.TB, c *client.Client) string {
	cluster := fmt.Sprintf("%x%d", time.Now().UnixMilli()%0xffffff, clusters.Add(1))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := docker.Cleanup(ctx, c, cluster); err != nil {
			t.Error(err)
		}
	})
	return cluster
}

func newRuntime(t testing.TB, c *client.Client, cluster, node string, egress bool) *docker.Runtime {
	return runtimeWith(t, docker.Config{Client: c, Cluster: cluster, Node: node, Egress: egress, EgressDeny: []string{denied},
		StateDir: stateDir(t)})
}

// runtimeWith makes a runtime that ends with the test.
func runtimeWith(t testing.TB, cfg docker.Config) *docker.Runtime {
	cfg.InitBinary, cfg.Fence = initBinary, outer
	if cfg.Metrics == nil {
		cfg.Metrics = telemetry.Discard()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	r := docker.New(cfg)
	t.Cleanup(func() { r.Close(context.Background()) })
	return r
}

// stateDir is a directory that has to be empty at the end: nothing of an attempt
// is left.
func stateDir(t testing.TB) string {
	dir := filepath.Join(t.TempDir(), "containers")
	t.Cleanup(func() {
		left, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		for _, e := range left {
			if !strings.HasPrefix(e.Name(), "init-") && e.Name() != "offline" { // the agent's, for all
				t.Errorf("left in the state directory: %s", e.Name())
			}
		}
	})
	return dir
}

// imageOf gives a test image as Create wants it.
func imageOf(t testing.TB, c *client.Client, name string) runtime.Image {
	t.Helper()
	found, err := c.ImageInspect(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return runtime.Image{ID: found.ID, Digest: found.ID}
}

func of(cluster, node string) filters.Args {
	return filters.NewArgs(filters.Arg("label", "ecs.cluster="+cluster), filters.Arg("label", "ecs.node="+node))
}

func clusterLabel(cluster string) filters.Args {
	return filters.NewArgs(filters.Arg("label", "ecs.cluster="+cluster))
}

func boottime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		panic(err)
	}
	return time.Duration(now.Nano())
}

func nameOf(tok task.Token) string { return fmt.Sprintf("ecs-%s-%d", tok.Task, tok.Attempt) }

// leave is the shell script that leaves files.
func leave(sleep string, files []runtimetest.File) string {
	var script strings.Builder
	for _, f := range files {
		switch dir := filepath.Dir(f.Path); {
		case f.Link != "":
			fmt.Fprintf(&script, "mkdir -p %s; ln -s %s %s\n", dir, f.Link, f.Path)
		case f.Content != "":
			fmt.Fprintf(&script, "mkdir -p %s; printf %%s '%s' >%s\n", dir, f.Content, f.Path)
		default:
			fmt.Fprintf(&script, "mkdir -p %s\n", f.Path)
		}
	}
	d, err := time.ParseDuration(sleep)
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(&script, "printf left; sleep %d", int(d.Seconds()))
	return script.String()
}

func TestConformance(t *testing.T) {
	c := engine(t)
	runtimetest.Run(t, func(t *testing.T) runtimetest.Harness {
		cluster := newCluster(t, c)
		dir := stateDir(t)
		one := runtimeWith(t, docker.Config{Client: c, Cluster: cluster, Node: "n1", StateDir: dir})
		return runtimetest.Harness{
			Runtime: one,
			Restart: func(t *testing.T) runtime.Runtime {
				if err := one.Close(t.Context()); err != nil {
					t.Error(err)
				}
				one = runtimeWith(t, docker.Config{Client: c, Cluster: cluster, Node: "n1", StateDir: dir})
				return one
			},
			Now:     boottime,
			Other:   newRuntime(t, c, cluster, "n2", false),
			Image:   imageOf(t, c, images.Prog),
			Program: func(script ...string) []string { return append([]string{"prog"}, script...) },
			Leave: func(sleep string, files ...runtimetest.File) (runtime.Image, []string) {
				return imageOf(t, c, images.Busybox), []string{"sh", "-ec", leave(sleep, files)}
			},
			Missing: []string{"/no/such/command", "--flag"},
			Strike: func(t *testing.T, tok task.Token, how runtimetest.Strike) {
				t.Helper()
				var err error
				switch how {
				case runtimetest.KillIt:
					err = c.ContainerKill(t.Context(), nameOf(tok), "KILL")
				case runtimetest.RemoveIt:
					err = c.ContainerRemove(t.Context(), nameOf(tok), container.RemoveOptions{Force: true})
				}
				if err != nil {
					t.Fatalf("%s: %v", how, err)
				}
			},
			StrikeParked: func(t *testing.T) {
				t.Helper()
				parked := of(cluster, "n1")
				parked.Add("label", "ecs.parked=true")
				found, err := c.ContainerList(t.Context(), container.ListOptions{Filters: parked})
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range found {
					if err := c.ContainerKill(t.Context(), f.ID, "KILL"); err != nil {
						t.Fatal(err)
					}
				}
			},
			Count: func(t *testing.T) int {
				list, err := c.ContainerList(t.Context(), container.ListOptions{All: true, Filters: of(cluster, "n1")})
				if err != nil {
					t.Fatal(err)
				}
				return len(list)
			},
		}
	})
}
