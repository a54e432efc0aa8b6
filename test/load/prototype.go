package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"

	"ecs/test/images"
)

// prototype runs the command without the engine: a root file system of the
// engine's own layers, and runc with the very configuration that the engine
// gives it. It shows what the engine itself costs; see docs/runtime-prototype.md.
type prototype struct {
	dir    string // bundles and runc's state
	spec   map[string]any
	layers string
	made   atomic.Int64
	gone   sync.WaitGroup
}

// bundles is where engines keep the configuration of what runs.
var bundles = []string{
	"/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby",
	"/run/containerd/io.containerd.runtime.v2.task/moby",
}

// newPrototype learns the configuration from a container that the engine runs.
func newPrototype(ctx context.Context, engine *client.Client, dir string) (*prototype, error) {
	if _, err := exec.LookPath("runc"); err != nil {
		return nil, err
	}
	made, err := engine.ContainerCreate(ctx, &container.Config{Image: images.Busybox, Cmd: []string{"sleep", "600"}}, rawHost(), nil, nil, "")
	if err != nil {
		return nil, fmt.Errorf("create the container to learn from: %w", err)
	}
	defer func() {
		_ = engine.ContainerRemove(context.WithoutCancel(ctx), made.ID, container.RemoveOptions{Force: true})
	}()
	if err := engine.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		return nil, fmt.Errorf("start the container to learn from: %w", err)
	}
	image, err := engine.ImageInspect(ctx, images.Busybox)
	if err != nil {
		return nil, err
	}
	if image.GraphDriver.Name != "overlay2" {
		return nil, fmt.Errorf("the engine keeps images with %s, not overlay2", image.GraphDriver.Name)
	}
	layers := []string{image.GraphDriver.Data["UpperDir"]}
	if lower := image.GraphDriver.Data["LowerDir"]; lower != "" {
		layers = append(layers, lower)
	}
	p := &prototype{dir: dir, layers: strings.Join(layers, ":")}
	for _, at := range bundles {
		text, err := os.ReadFile(filepath.Join(at, made.ID, "config.json"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return p, p.learn(text)
	}
	return nil, errors.New("the engine's runtime configuration was not found")
}

// learn takes what is not tied to that one container.
func (p *prototype) learn(text []byte) error {
	if err := json.Unmarshal(text, &p.spec); err != nil {
		return err
	}
	process, ok := p.spec["process"].(map[string]any)
	if !ok {
		return errors.New("a runtime configuration without a process")
	}
	process["args"], process["terminal"] = []string{"echo", "hi"}, false
	delete(p.spec, "hooks") // they tell the engine's network, and there is none
	mounts, _ := p.spec["mounts"].([]any)
	kept := mounts[:0]
	for _, m := range mounts {
		if source, _ := m.(map[string]any)["source"].(string); !strings.HasPrefix(source, "/") {
			kept = append(kept, m) // not the engine's files for that container
		}
	}
	p.spec["mounts"] = kept
	return nil
}

func (p *prototype) way() way {
	return way{name: "runc on the engine's layers", do: p.run, wait: p.gone.Wait}
}

// run does what the engine would: a root file system, the process, its output
// and exit. What is left is removed after the answer.
func (p *prototype) run(ctx context.Context) error {
	name := fmt.Sprintf("ecs-prototype-%d-%d", os.Getpid(), p.made.Add(1))
	bundle := filepath.Join(p.dir, name)
	root := filepath.Join(bundle, "root")
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(bundle, d), 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", p.layers, filepath.Join(bundle, "upper"), filepath.Join(bundle, "work"))
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount the root file system: %w", err)
	}
	defer p.gone.Go(func() { _ = errors.Join(unix.Unmount(root, unix.MNT_DETACH), os.RemoveAll(bundle)) })
	spec := make(map[string]any, len(p.spec))
	for k, v := range p.spec {
		spec[k] = v
	}
	linux := make(map[string]any)
	for k, v := range p.spec["linux"].(map[string]any) {
		linux[k] = v
	}
	linux["cgroupsPath"] = "/" + name
	spec["root"], spec["linux"] = map[string]any{"path": root}, linux
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o600); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "runc", "--root", filepath.Join(p.dir, "state"), "run", "--bundle", bundle, name).CombinedOutput()
	if err != nil || string(out) != "hi\n" {
		return fmt.Errorf("runc: %q: %w", out, err)
	}
	return nil
}
