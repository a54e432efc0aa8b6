package docker_test

import (
	"io"
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"

	"ecs/agent/runtime"
	"ecs/agent/runtime/docker"
	"ecs/internal/task"
	"ecs/test/images"
)

// BenchmarkOverhead takes turns between the engine's bare sequence (create,
// attach, start, wait) and this package's way from Create to Wait's return, and
// reports the medians of both and their difference.
func BenchmarkOverhead(b *testing.B) {
	c := engine(b)
	r := newRuntime(b, c, newCluster(b, c), "n1", false)
	img := imageOf(b, c, images.Busybox)
	var raw, ours []time.Duration
	for b.Loop() {
		raw = append(raw, rawOnce(b, c, img.ID))
		ours = append(ours, once(b, r, img))
	}
	p50 := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2]) / 1e6
	}
	b.ReportMetric(p50(raw), "raw-p50-ms")
	b.ReportMetric(p50(ours), "ours-p50-ms")
	b.ReportMetric(p50(ours)-p50(raw), "added-p50-ms")
	b.ReportMetric(0, "ns/op")
}

func rawOnce(b *testing.B, c *client.Client, image string) time.Duration {
	ctx := b.Context()
	began := time.Now()
	made, err := c.ContainerCreate(ctx, &container.Config{Image: image, Cmd: []string{"true"}, AttachStdout: true, AttachStderr: true},
		&container.HostConfig{NetworkMode: "none", LogConfig: container.LogConfig{Type: "none"}}, nil, nil, "")
	if err != nil {
		b.Fatal(err)
	}
	stream, err := c.ContainerAttach(ctx, made.ID, container.AttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		b.Fatal(err)
	}
	exits, errs := c.ContainerWait(ctx, made.ID, container.WaitConditionNextExit)
	if err := c.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		b.Fatal(err)
	}
	if _, err := stdcopy.StdCopy(io.Discard, io.Discard, stream.Reader); err != nil {
		b.Fatal(err)
	}
	select {
	case <-exits:
	case err := <-errs:
		b.Fatal(err)
	}
	took := time.Since(began)
	stream.Close()
	if err := c.ContainerRemove(ctx, made.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
		b.Fatal(err)
	}
	return took
}

func once(b *testing.B, r *docker.Runtime, img runtime.Image) time.Duration {
	ctx := b.Context()
	o := orderOf(img, task.Spec{Command: []string{"true"}})
	o.Output = runtime.Sink{Stdout: io.Discard, Stderr: io.Discard}
	began := time.Now()
	made, err := r.Create(ctx, o)
	if err != nil {
		b.Fatal(err)
	}
	if err := made.Start(ctx); err != nil {
		b.Fatal(err)
	}
	if _, err := made.Wait(ctx); err != nil {
		b.Fatal(err)
	}
	took := time.Since(began)
	if err := made.Remove(ctx); err != nil {
		b.Fatal(err)
	}
	return took
}
