package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/docker/docker/client"

	"ecs/test/images"
)

// engine is a container engine that is one node's own, so that it may be killed:
// all it has is in its directory, it makes no network, and the machine's engine
// does not know of it.
type engine struct {
	n      *node
	dir    string
	group  string // the cgroup of its containers
	client *client.Client
}

// engineWithin is how long it may take to answer on a busy machine.
const engineWithin = 90 * second

func newEngine(n *node, tag string) (e *engine, err error) {
	e = &engine{n: n, dir: filepath.Join(n.dir, "engine"), group: tag}
	e.client, err = client.NewClientWithOpts(client.WithHost(e.host()), client.WithAPIVersionNegotiation())
	return e, err
}

func (e *engine) host() string { return "unix://" + filepath.Join(e.dir, "docker.sock") }

// prepare starts it for the first time, and gives it the images.
func (e *engine) prepare(ctx context.Context) error {
	if err := e.start(ctx); err != nil {
		return err
	}
	if err := images.Ensure(ctx, e.client); err != nil {
		return fmt.Errorf("give the engine of %s its images: %w", e.n.name, err)
	}
	return nil
}

// start starts it and waits until it answers.
func (e *engine) start(ctx context.Context) (err error) {
	in := func(name string) string { return filepath.Join(e.dir, name) }
	if err := errors.Join(os.MkdirAll(e.dir, 0o711), os.WriteFile(in("config.json"), []byte("{}"), 0o600)); err != nil { // not the machine's settings
		return err
	}
	e.n.daemon, e.n.daemonEnded, err = e.n.launch("engine.log", "dockerd", "--host", e.host(), "--data-root", in("data"), "--exec-root", in("run"),
		"--pidfile", in("pid"), "--config-file", in("config.json"), "--cgroup-parent", "/"+e.group, "--exec-opt", "native.cgroupdriver=cgroupfs",
		"--storage-driver", "overlay2", "--bridge", "none", "--iptables=false", "--ip-masq=false")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, engineWithin)
	defer cancel()
	err = until(ctx, "the engine of "+e.n.name+" answers", func() bool {
		_, err := e.client.Ping(ctx)
		return err == nil
	})
	if err != nil {
		return fmt.Errorf("start an engine, see engine.log of %s: %w", e.n.name, err)
	}
	return nil
}

// end ends it in good order; what it ran is removed before.
func (e *engine) end(ctx context.Context) error {
	if e.n.daemon == nil {
		return e.client.Close()
	}
	e.n.expect()
	_ = e.n.daemon.Process.Signal(syscall.SIGTERM)
	select {
	case <-e.n.daemonEnded:
		return e.client.Close()
	case <-ctx.Done():
		err := e.n.daemon.Process.Kill()
		<-e.n.daemonEnded
		return errors.Join(fmt.Errorf("the engine of %s does not end: %w", e.n.name, ctx.Err()), err, e.client.Close())
	}
}

// killEngine kills the node's engine, which takes its containers up again, or ends
// them, when it is started.
func killEngine(ctx context.Context, _ *cluster, n *node) (func() (string, error), error) {
	n.expect()
	if err := n.daemon.Process.Signal(syscall.SIGKILL); err != nil {
		return nil, err
	}
	select {
	case <-n.daemonEnded:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	state := n.daemon.ProcessState
	return func() (string, error) {
		bit := ""
		if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL {
			bit = "killed by SIGKILL"
		}
		n.mu.Lock()
		n.expected = false
		n.mu.Unlock()
		return bit, n.engine.start(context.WithoutCancel(ctx))
	}, nil
}
