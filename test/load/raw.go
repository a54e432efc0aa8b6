package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"sync"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"

	"ecs/test/images"
)

// raw drives the engine by hand. Removals go on beside the next run, as ECS's
// do, so many at once.
type raw struct {
	engine   *client.Client
	bare     bool // without the engine's network, as ECS starts tasks that ask for none
	removing sync.WaitGroup
	slots    chan struct{}
}

// removalsAtOnce is what an agent of ECS allows itself.
const removalsAtOnce = 4

func newRaw(engine *client.Client) *raw {
	return &raw{engine: engine, slots: make(chan struct{}, removalsAtOnce)}
}

func newBareRaw(engine *client.Client) *raw {
	r := newRaw(engine)
	r.bare = true
	return r
}

func (r *raw) way() way {
	w := way{name: rawName, do: r.run, wait: r.removing.Wait}
	if r.bare {
		w.name += ", NetworkDisabled"
	}
	return w
}

// run does by hand what one task needs, with the limits a task gets: create,
// attach, start, wait for the end and the last byte.
func (r *raw) run(ctx context.Context) error {
	made, err := r.engine.ContainerCreate(ctx,
		&container.Config{Image: images.Busybox, Cmd: []string{"echo", "hi"}, AttachStdout: true, AttachStderr: true,
			NetworkDisabled: r.bare},
		rawHost(), nil, nil, "")
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	defer r.remove(ctx, made.ID)
	stream, err := r.engine.ContainerAttach(ctx, made.ID, container.AttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	defer stream.Close()
	ended, failed := r.engine.ContainerWait(ctx, made.ID, container.WaitConditionNextExit)
	if err := r.engine.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	var stdout bytes.Buffer
	if _, err := stdcopy.StdCopy(&stdout, io.Discard, stream.Reader); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	select {
	case end := <-ended:
		if end.StatusCode != 0 || stdout.String() != "hi\n" {
			return fmt.Errorf("exit %d, output %q", end.StatusCode, stdout.String())
		}
		return nil
	case err := <-failed:
		return fmt.Errorf("wait: %w", err)
	}
}

// rawHost is how a container is kept apart, as ECS does by default.
func rawHost() *container.HostConfig {
	pids := int64(256)
	return &container.HostConfig{NetworkMode: "none", LogConfig: container.LogConfig{Type: "none"},
		CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges"},
		Resources: container.Resources{NanoCPUs: 1e9, Memory: 256 << 20, MemorySwap: 256 << 20, PidsLimit: &pids}}
}

func (r *raw) remove(ctx context.Context, id string) {
	r.removing.Go(func() {
		r.slots <- struct{}{}
		defer func() { <-r.slots }()
		_ = r.engine.ContainerRemove(context.WithoutCancel(ctx), id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	})
}

// dockerRun is what people type, removal included, for the client waits for it.
// It has the network that it has by default.
func dockerRun(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "docker", "run", "--rm", images.Busybox, "echo", "hi").Output()
	if err != nil || string(out) != "hi\n" {
		return fmt.Errorf("docker run: %q: %w", out, err)
	}
	return nil
}
