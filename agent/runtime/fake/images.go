package fake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"ecs/agent/images"
	"ecs/agent/runtime"
	"ecs/internal/task"
)

// slowPull is how long the image "slow" takes.
const slowPull = time.Minute

// Images is every registry and every image. What an image does its name says,
// the part after the last "/" and before ":" or "@":
//
//	missing      image_not_found
//	denied       image_denied, and image_not_found without credentials
//	unavailable  image_unavailable
//	invalid      image_invalid
//	slow         takes a minute the first time
//	hang         never comes
//
// Any other is there at once. It is safe for concurrent use.
type Images struct {
	mu      sync.Mutex
	present map[string]bool
}

func newImages() *Images { return &Images{present: map[string]bool{}} }

// Add makes images present, as if pulled before.
func (i *Images) Add(refs ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, r := range refs {
		i.present[r] = true
	}
}

// Ensure gives an image as package images does.
func (i *Images) Ensure(ctx context.Context, q images.Request) (runtime.Image, error) {
	if err := ctx.Err(); err != nil {
		return runtime.Image{}, err
	}
	base, _, _ := strings.Cut(path.Base(q.Ref), "@")
	base, _, _ = strings.Cut(base, ":")
	switch base {
	case "missing":
		return runtime.Image{}, failure(task.ImageNotFound, "no image %s", q.Ref)
	case "denied":
		if q.Auth == nil {
			return runtime.Image{}, failure(task.ImageNotFound, "image %s is missing or private", q.Ref)
		}
		return runtime.Image{}, failure(task.ImageDenied, "image %s is refused", q.Ref)
	case "unavailable":
		return runtime.Image{}, failure(task.ImageUnavailable, "the registry of %s can't be reached", q.Ref)
	case "invalid":
		return runtime.Image{}, failure(task.ImageInvalid, "image %s is corrupt", q.Ref)
	case "hang":
		<-ctx.Done()
		return runtime.Image{}, i.late(ctx, q.Ref)
	case "slow":
		if !i.has(q.Ref) && sleep(ctx, slowPull) != nil {
			return runtime.Image{}, i.late(ctx, q.Ref)
		}
	}
	i.Add(q.Ref)
	sum := sha256.Sum256([]byte(q.Ref))
	id := "sha256:" + hex.EncodeToString(sum[:])
	return runtime.Image{ID: id, Digest: id}, nil
}

// Present names what was asked for and came.
func (i *Images) Present(context.Context) []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Sorted(maps.Keys(i.present))
}

func (i *Images) has(ref string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.present[ref]
}

// late is what a pull that ctx ended comes to.
func (i *Images) late(ctx context.Context, ref string) error {
	if ctx.Err() == context.DeadlineExceeded {
		return failure(task.PullTimedOut, "image %s was not there in time", ref)
	}
	return ctx.Err()
}

func failure(outcome task.Outcome, format, ref string) *runtime.Failure {
	return &runtime.Failure{Outcome: outcome, Reason: fmt.Sprintf(format, ref)}
}
