package docker_test

import (
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/armon/go-metrics"
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
// reports the medians of both and their difference, and those of what is ours
// alone: from the engine's answer to the start until the program runs, and from
// its end until its exit is known.
func BenchmarkOverhead(b *testing.B) {
	c := engine(b)
	answered := &answers{}
	measured, err := metrics.New(&metrics.Config{FilterDefault: true}, answered)
	if err != nil {
		b.Fatal(err)
	}
	r := runtimeWith(b, docker.Config{Client: c, Cluster: newCluster(b, c), Node: "n1", StateDir: stateDir(b), Metrics: measured})
	img := imageOf(b, c, images.Busybox)
	var raw, ours, started, known []time.Duration
	for b.Loop() {
		raw = append(raw, rawOnce(b, c, img.ID))
		took, toStarted, toKnown := once(b, r, img, answered)
		ours, started, known = append(ours, took), append(started, toStarted), append(known, toKnown)
	}
	p50 := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2]) / 1e6
	}
	b.ReportMetric(p50(raw), "raw-p50-ms")
	b.ReportMetric(p50(ours), "ours-p50-ms")
	b.ReportMetric(p50(ours)-p50(raw), "added-p50-ms")
	b.ReportMetric(p50(started), "answer-to-started-p50-ms")
	b.ReportMetric(p50(known), "end-to-known-p50-ms")
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

// once gives the whole way from Create to Wait's return, and two parts of it:
// how long after the engine's answer the program was running, and after its end
// its exit was there.
func once(b *testing.B, r *docker.Runtime, img runtime.Image, answered *answers) (took, toStarted, toKnown time.Duration) {
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
	exit, err := made.Wait(ctx)
	if err != nil {
		b.Fatal(err)
	}
	known := time.Now()
	if err := made.Remove(ctx); err != nil {
		b.Fatal(err)
	}
	return known.Sub(began), exit.StartedAt.Sub(answered.at()), known.Sub(exit.StartedAt.Add(exit.Run))
}

// answers notes when the engine has answered a start.
type answers struct {
	metrics.BlackholeSink
	last atomic.Int64
}

func (a *answers) AddSampleWithLabels(_ []string, _ float32, labels []metrics.Label) {
	if slices.Contains(labels, metrics.Label{Name: "call", Value: "start"}) {
		a.last.Store(time.Now().UnixNano())
	}
}

func (a *answers) at() time.Time { return time.Unix(0, a.last.Load()) }
