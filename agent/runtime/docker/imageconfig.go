package docker

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

// maxImages is how many images' settings are remembered.
const maxImages = 1024

// defaultPath is the engine's for images that have none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// imageConfig is what an image says about how to run it.
type imageConfig struct {
	entrypoint, cmd, env []string
	workdir, user        string
}

// imageConfigs are those of the images that were run last. An id names content,
// so what it stands for never changes.
type imageConfigs struct {
	mu    sync.Mutex
	known map[string]imageConfig
}

func (i *imageConfigs) get(id string) (imageConfig, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	c, ok := i.known[id]
	return c, ok
}

func (i *imageConfigs) put(id string, c imageConfig) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.known == nil || len(i.known) >= maxImages {
		i.known = make(map[string]imageConfig)
	}
	i.known[id] = c
}

// imageConfig asks the engine, once an image.
func (r *Runtime) imageConfig(ctx context.Context, id string) (imageConfig, error) {
	if c, ok := r.images.get(id); ok {
		return c, nil
	}
	var found image.InspectResponse
	err := r.call(ctx, "image_inspect", shortCall, func(ctx context.Context) (err error) {
		found, err = r.client.ImageInspect(ctx, id)
		return err
	})
	if errdefs.IsNotFound(err) {
		r.lookups.forget()
		return imageConfig{}, imageVanished()
	}
	if err != nil {
		return imageConfig{}, err
	}
	var c imageConfig
	if s := found.Config; s != nil {
		c = imageConfig{s.Entrypoint, s.Cmd, s.Env, s.WorkingDir, s.User}
	}
	r.images.put(id, c)
	return c, nil
}

// invocation is what is run in the end.
type invocation struct {
	argv, env     []string
	workdir, user string
}

// merge puts a spec over the image's settings, as the engine does.
func (i imageConfig) merge(s task.Spec, secretEnv []string) (invocation, *runtime.Failure) {
	entrypoint, cmd := s.Entrypoint, s.Command
	if len(entrypoint) == 0 {
		if len(cmd) == 0 {
			cmd = i.cmd
		}
		if entrypoint == nil {
			entrypoint = i.entrypoint
		}
	}
	if len(entrypoint) == 1 && entrypoint[0] == "" {
		entrypoint = nil
	}
	in := invocation{argv: slices.Concat(entrypoint, cmd), workdir: s.Workdir, user: s.User}
	if len(in.argv) == 0 {
		return in, startFailed("No command specified: neither the task nor its image has one", nil)
	}
	if in.workdir == "" {
		in.workdir = i.workdir
	}
	if in.workdir != "" && !path.IsAbs(in.workdir) {
		return in, startFailed(fmt.Sprintf("the working directory '%s' is invalid, it needs to be an absolute path", in.workdir), nil)
	}
	if in.workdir != "" {
		in.workdir = path.Clean(in.workdir)
	}
	if in.user == "" {
		in.user = i.user
	}
	for _, e := range slices.Concat(s.Env, secretEnv) {
		if e == "" || e[0] == '=' {
			return in, startFailed(fmt.Sprintf("invalid environment variable: %q", e), nil)
		}
	}
	in.env = environment(s.TTY, slices.Concat(s.Env, secretEnv), i.env)
	return in, nil
}

// environment puts the task's variables over the image's, and both over the
// engine's own. One without "=" takes the engine's away.
func environment(tty bool, tasks, images []string) []string {
	env := []string{"PATH=" + defaultPath, "HOSTNAME=" + hostname}
	if tty {
		env = append(env, "TERM=xterm")
	}
	own := len(env)
	at := func(list []string, e string) int {
		key, _, _ := strings.Cut(e, "=")
		return slices.IndexFunc(list, func(other string) bool {
			k, _, _ := strings.Cut(other, "=")
			return k == key
		})
	}
	over := slices.Clone(tasks)
	for _, e := range images {
		if at(tasks, e) < 0 {
			over = append(over, e)
		}
	}
	for _, e := range over {
		i := at(env[:own], e)
		switch {
		case !strings.Contains(e, "=") && i >= 0:
			env[i] = ""
		case !strings.Contains(e, "="):
		case i >= 0:
			env[i] = e
		default:
			env = append(env, e)
		}
	}
	return slices.DeleteFunc(env, func(e string) bool { return e == "" })
}
