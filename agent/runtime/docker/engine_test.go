package docker_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"ecs/agent/runtime"
	"ecs/agent/runtime/docker"
	"ecs/agent/runtime/runtimetest"
	"ecs/internal/task"
	"ecs/internal/telemetry"
	"ecs/test/images"
)

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
	return docker.New(docker.Config{Client: c, Cluster: cluster, Node: node, Egress: egress, EgressDeny: []string{denied},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Metrics: telemetry.Discard()})
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

func nameOf(tok task.Token) string { return fmt.Sprintf("ecs-%s-%d", tok.Task, tok.Attempt) }

func TestConformance(t *testing.T) {
	c := engine(t)
	runtimetest.Run(t, func(t *testing.T) runtimetest.Harness {
		cluster := newCluster(t, c)
		return runtimetest.Harness{
			Runtime: newRuntime(t, c, cluster, "n1", false),
			Other:   newRuntime(t, c, cluster, "n2", false),
			Image:   imageOf(t, c, images.Prog),
			Program: func(script ...string) []string { return append([]string{"prog"}, script...) },
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
