package main

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"

	"ecs/test/images"
)

// rawSequence does by hand what one task needs, with the limits a task gets:
// create, attach, start, wait for the end and the last byte. Removal comes
// after the answer on both sides, so it is not in the time of either; here it
// happens in the background of the next round as ECS's does.
func rawSequence(ctx context.Context, engine *client.Client) error {
	pids := int64(256)
	made, err := engine.ContainerCreate(ctx,
		&container.Config{Image: images.Busybox, Cmd: []string{"echo", "hi"}, AttachStdout: true, AttachStderr: true},
		&container.HostConfig{NetworkMode: "none", LogConfig: container.LogConfig{Type: "none"},
			CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges"},
			Resources: container.Resources{NanoCPUs: 1e9, Memory: 256 << 20, MemorySwap: 256 << 20, PidsLimit: &pids}},
		nil, nil, "")
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	defer func() {
		go func() {
			_ = engine.ContainerRemove(context.WithoutCancel(ctx), made.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
		}()
	}()
	stream, err := engine.ContainerAttach(ctx, made.ID, container.AttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	defer stream.Close()
	ended, failed := engine.ContainerWait(ctx, made.ID, container.WaitConditionNextExit)
	if err := engine.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
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
