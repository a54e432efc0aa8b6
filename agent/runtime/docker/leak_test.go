package docker_test

import (
	"context"
	"io"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
	"ecs/test/images"
)

// ours are the goroutines that run this package's or the client's code.
func ours() string {
	var all strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&all, 2)
	var found []string
	for g := range strings.SplitSeq(all.String(), "\n\n") {
		if strings.Contains(g, "ecs/agent/runtime/docker.") || strings.Contains(g, "docker/client.(*Client)") {
			found = append(found, g)
		}
	}
	return strings.Join(found, "\n\n")
}

func TestNoGoroutineOutlivesItsContainer(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	image := imageOf(t, c, images.Prog)
	ways := map[string]func(ctx context.Context, c runtime.Container) error{
		"only created":  func(context.Context, runtime.Container) error { return nil },
		"never waited":  func(ctx context.Context, c runtime.Container) error { return c.Start(ctx) },
		"start refused": func(ctx context.Context, c runtime.Container) error { _ = c.Start(ctx); return nil },
		"wait given up": func(ctx context.Context, c runtime.Container) error {
			err := c.Start(ctx)
			short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			_, _ = c.Wait(short)
			return err
		},
		"killed": func(ctx context.Context, c runtime.Container) error {
			_ = c.Start(ctx)
			return c.Kill(ctx)
		},
		"start given up": func(ctx context.Context, c runtime.Container) error {
			short, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			_ = c.Start(short)
			return nil
		},
	}
	for name, way := range ways {
		spec := task.Spec{Command: []string{"prog", "print", "up", ";", "sleep", "1m"}}
		if name == "start refused" {
			spec.User = "nosuch"
		}
		o := orderOf(image, spec)
		o.Output = runtime.Sink{Stdout: io.Discard, Stderr: io.Discard}
		made, err := r.Create(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := way(t.Context(), made); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := made.Remove(t.Context()); err != nil {
			t.Errorf("%s: remove: %v", name, err)
		}
	}
	var left string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if left = ours(); left == "" {
			return
		}
	}
	t.Errorf("left running:\n%s", left)
}
