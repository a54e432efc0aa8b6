package docker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

// fullID is an image's whole id. The engine also takes any unique beginning of
// one, down to a single digit, which could name another caller's image.
var fullID = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// Create implements runtime.Runtime. The engine is asked once, unless the
// order wants network, its name is taken or its image is a new one.
func (r *Runtime) Create(ctx context.Context, o runtime.Order) (runtime.Container, error) {
	if !fullID.MatchString(o.Image.ID) {
		return nil, fmt.Errorf("create container: image %q is not a full id", o.Image.ID)
	}
	if f := refuse(o); f != nil {
		return nil, f
	}
	order, err := r.initOrder(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("create container: %w", err)
	}
	shape := o.Spec.Shape()
	shape.Image = o.Image.ID
	c, err := r.build(ctx, o.Token, shape)
	if err != nil {
		return nil, err
	}
	c.assign(o, order)
	return c, nil
}

// build makes the container that a token names, and its directory.
func (r *Runtime) build(ctx context.Context, t task.Token, s task.Shape) (*attempt, error) {
	engine, err := r.info(ctx)
	if err != nil {
		return nil, fmt.Errorf("create container: %w", err)
	}
	offline, err := r.homes.offline()
	if err != nil {
		return nil, fmt.Errorf("create container: %w", err)
	}
	h, err := r.move(t)
	if err != nil {
		return nil, fmt.Errorf("create container: %w", err)
	}
	nonce := rand.Text()
	name := containerName(t)
	make := func(ctx context.Context) (string, error) {
		network, err := r.network(ctx, s.Network)
		if err != nil {
			return "", err
		}
		return r.create(ctx, name, r.containerConfig(t, s, nonce), hostConfig(s, network, mounted{home: h.path, offline: offline}, engine))
	}
	id, err := make(ctx)
	if r.egress != nil && networkGone(err) {
		if err = r.egress.forget(ctx); err == nil {
			id, err = make(ctx)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create container %s: %w", name, err), h.remove())
	}
	c := newAttempt(r, id, h)
	c.nonce = nonce
	if s.Network == task.NetworkEgress {
		c.remake = make
	}
	return c, nil
}

// move makes the directory, in place of what an earlier Create left.
func (r *Runtime) move(t task.Token) (home, error) {
	binary, err := r.homes.install()
	if err != nil {
		return home{}, err
	}
	return r.homes.build(t, binary)
}

// network gives the engine's name of what the task asked for.
func (r *Runtime) network(ctx context.Context, want task.Network) (string, error) {
	if want != task.NetworkEgress {
		return "none", nil
	}
	if r.egress == nil {
		return "", fmt.Errorf("this node offers no network to tasks")
	}
	return r.egress.ensure(ctx)
}

// create asks the engine and replaces what an earlier create of the same
// attempt left behind when its answer was lost. After an error nothing of that
// name is left, as far as the engine still answers; the rest is Reap's.
func (r *Runtime) create(ctx context.Context, name string, c *container.Config, h *container.HostConfig) (string, error) {
	id, err := r.createOnce(ctx, name, c, h)
	if errdefs.IsConflict(err) {
		if err := r.discard(ctx, name); err != nil {
			return "", fmt.Errorf("replace the one that is there: %w", err)
		}
		id, err = r.createOnce(ctx, name, c, h)
	}
	if err == nil {
		return id, nil
	}
	if !answered(err) {
		// The engine may have made it all the same.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), shortCall)
		defer cancel()
		if left := r.discard(undo, name); left != nil {
			r.log.Warn("container may be left behind", "container", name, "err", left)
		}
	}
	err = createError(err)
	if errors.Is(err, runtime.ErrNoImage) {
		r.lookups.forget() // before the engine says so
	}
	return "", err
}

func (r *Runtime) createOnce(ctx context.Context, name string, c *container.Config, h *container.HostConfig) (string, error) {
	var made container.CreateResponse
	err := r.call(ctx, "create", longCall, func(ctx context.Context) (err error) {
		made, err = r.client.ContainerCreate(ctx, c, h, nil, nil, name)
		return err
	})
	return made.ID, err
}

// discard removes the container of that name if it is this agent's. One that
// is not there is no error; somebody else's is.
func (r *Runtime) discard(ctx context.Context, name string) error {
	found, err := r.inspect(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if found.Config == nil || !r.mine(found.Config.Labels) {
		return fmt.Errorf("container %s belongs to somebody else", name)
	}
	return r.remove(ctx, found.ID)
}

func (r *Runtime) inspect(ctx context.Context, id string) (container.InspectResponse, error) {
	var found container.InspectResponse
	err := r.call(ctx, "inspect", shortCall, func(ctx context.Context) (err error) {
		found, err = r.client.ContainerInspect(ctx, id)
		return err
	})
	return found, err
}
