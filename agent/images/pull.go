package images

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

var errStalled = errors.New("no byte arrived")

// pulled is what a shared pull gave.
type pulled struct {
	image runtime.StoredImage
	by    string // the caller whose credentials it used
}

// pull has the engine fetch the image behind a digest that the caller may have.
// Callers who want the same one share a pull.
func (i *Images) pull(ctx context.Context, ref reference, digest, caller string, auth *task.RegistryAuth) (runtime.StoredImage, error) {
	for {
		p, err := i.pulls.do(ctx, ref.at(digest), func(ctx context.Context) (pulled, error) {
			stored, err := i.fetch(ctx, ref, digest, auth)
			return pulled{image: stored, by: caller}, err
		})
		// What another's pull failed of may be his account's limit, and is
		// nobody else's business; only bad bytes are bad for everybody.
		if err == nil || p.by == caller || ctx.Err() != nil || outcome(err) == task.ImageInvalid {
			return p.image, err
		}
	}
}

// fetch pulls and looks at what came.
func (i *Images) fetch(ctx context.Context, ref reference, digest string, auth *task.RegistryAuth) (runtime.StoredImage, error) {
	name := ref.at(digest)
	if stored, err := i.cfg.Store.Inspect(ctx, name); !errors.Is(err, runtime.ErrNoImage) {
		return stored, err // a pull that has just ended brought it
	}
	if err := i.preview(ctx, ref, digest, auth); err != nil {
		return runtime.StoredImage{}, err
	}
	select {
	case i.slots <- struct{}{}:
		defer func() { <-i.slots }()
	case <-ctx.Done():
		return runtime.StoredImage{}, ctx.Err()
	}
	began := time.Now()
	corrupt := 0
	err := persist(ctx, func() (again bool, err error) {
		err = i.pullOnce(ctx, ref, name, auth)
		switch outcome(err) {
		case task.ImageUnavailable:
			return !errors.Is(err, errStalled), err
		case task.ImageInvalid:
			corrupt++ // on the way, perhaps
			return corrupt == 1, err
		}
		return false, err
	})
	i.measure(metricPull, began, err)
	if err != nil {
		return runtime.StoredImage{}, err
	}
	i.cfg.Log.Info("image pulled", "image", ref.asked, "digest", digest, "took", time.Since(began).Round(time.Millisecond))
	stored, err := i.cfg.Store.Inspect(ctx, name)
	if err != nil {
		return runtime.StoredImage{}, fmt.Errorf("find %s after its pull: %w", name, err)
	}
	return stored, nil
}

// pullOnce gives up on an engine that waits for bytes too long: engines
// themselves wait for ever.
func (i *Images) pullOnce(ctx context.Context, ref reference, name string, auth *task.RegistryAuth) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(i.cfg.StallAfter, func() { cancel(errStalled) })
	defer watch.Stop()
	if anonymous(auth) {
		auth = nil
	}
	err := i.cfg.Store.Pull(ctx, name, auth, func() { watch.Reset(i.cfg.StallAfter) })
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		return unavailable(ref, fmt.Sprintf("it sent no byte for %s; try again later", i.cfg.StallAfter), errStalled)
	}
	var f *runtime.Failure
	if errors.As(err, &f) {
		return reword(ref, name, f)
	}
	return err
}
