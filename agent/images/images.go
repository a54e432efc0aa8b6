// Package images decides which image an attempt runs and whether its caller may
// have it, and pulls what is missing.
//
// Who may use what:
//
//   - An image in the engine's store without any registry digest was built or
//     imported there. It is the operator's gift to every caller, at the cost of
//     no registry call, unless Config.DenyLocal. (An engine that keeps its images
//     in containerd gives built images a registry digest too; to it there are no
//     gifts.)
//   - For anything else the registry is asked, with the caller's own credentials,
//     for the digest behind the reference. Its answer counts for that caller and
//     that reference only: for Fresh without asking again, and for Stale when the
//     registry can't be reached.
//   - What then runs is repository@digest, so that a tag that moves meanwhile
//     changes nothing, and an image that is here because somebody else may have it
//     is not reached without the same proof.
//
// Pulls are shared between callers, each only after its own check.
package images

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	goruntime "runtime"
	"slices"
	"time"

	"github.com/armon/go-metrics"
	lru "github.com/hashicorp/golang-lru/v2"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

const (
	// Fresh is how long a registry's permission holds without asking again.
	Fresh = time.Minute
	// Stale is how long it holds while the registry can't be reached.
	Stale = time.Hour
	// staleStep is how long a stale permission is used before the registry is
	// tried again.
	staleStep = 15 * time.Second

	permissions = 10_000 // records of permission that are kept, the latest used
	knownNames  = 1_000  // for placement, likewise
)

// Request asks for an image on behalf of a caller.
type Request struct {
	Ref   string // as in the task; a name without a registry is the default registry's
	Owner string // whose task it is
	Auth  *task.RegistryAuth
}

// Config is what New needs.
type Config struct {
	Store runtime.ImageStore
	// DefaultRegistry takes the place of Docker Hub for names without a
	// registry: "xubuntu:latest" is then <DefaultRegistry>/xubuntu:latest,
	// without the "library/" that only Docker Hub has. Empty: docker.io.
	DefaultRegistry string
	// Insecure are registries ("host" or "host:port") that may be spoken to
	// without TLS, beside those on loopback addresses. The engine needs the
	// same list as its insecure-registries.
	Insecure []string
	// DenyLocal runs only what a registry vouches for.
	DenyLocal bool
	// Platform is what images must be for. Default linux/ and this machine's.
	Platform string
	// Concurrency is how many pulls run at once. Default 2: more make each
	// slower and the engine's disk no faster.
	Concurrency int
	// MaxBytes is the most that an image's layers may have in sum, as the
	// registry sends them. Default 16 GiB; negative: no bound.
	MaxBytes int64
	// StallAfter is how long a pull may go without a byte. Default 60 s.
	StallAfter time.Duration
	// AnswerWithin is how long a registry may take to answer. Default 10 s.
	AnswerWithin time.Duration
	Log          *slog.Logger
	Metrics      *metrics.Metrics
}

func (c Config) withDefaults() Config {
	if c.DefaultRegistry == dockerHub {
		c.DefaultRegistry = ""
	}
	if c.Platform == "" {
		c.Platform = "linux/" + goruntime.GOARCH
	}
	if c.Concurrency <= 0 {
		c.Concurrency = 2
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 16 << 30
	}
	if c.StallAfter <= 0 {
		c.StallAfter = time.Minute
	}
	if c.AnswerWithin <= 0 {
		c.AnswerWithin = 10 * time.Second
	}
	return c
}

// Images is safe for concurrent use. It starts goroutines only inside Ensure,
// and each has ended when the last Ensure that shares it returns.
type Images struct {
	cfg       Config
	callers   callers
	transport *transport

	allowed *lru.Cache[permissionKey, permission]
	names   *lru.Cache[string, struct{}] // asked references whose image was here

	checks flights[permissionKey, permission]
	pulls  flights[string, pulled] // by repository@digest
	slots  chan struct{}
}

// New makes an Images that has seen nothing yet.
func New(cfg Config) *Images {
	cfg = cfg.withDefaults()
	return &Images{
		cfg:       cfg,
		callers:   newCallers(),
		transport: newTransport(cfg),
		allowed:   newLRU[permissionKey, permission](permissions),
		names:     newLRU[string, struct{}](knownNames),
		slots:     make(chan struct{}, cfg.Concurrency),
	}
}

func newLRU[K comparable, V any](size int) *lru.Cache[K, V] {
	c, err := lru.New[K, V](size)
	if err != nil {
		panic(err) // only a size below 1
	}
	return c
}

// Ensure gives an image that is present on the engine and that the caller may
// run, pulling it if need be. What the store holds is asked of it every time, so an
// image that vanished before it could be run is pulled again by asking again.
//
// An error is a *runtime.Failure (image_not_found, image_denied,
// image_unavailable, image_invalid, or pull_timed_out at ctx's deadline) whose
// reason names image, registry and remedy. Any other error is ctx's, when it was
// cancelled, or the engine's.
func (i *Images) Ensure(ctx context.Context, q Request) (runtime.Image, error) {
	ref, err := i.cfg.parse(q.Ref)
	if err != nil {
		return runtime.Image{}, err
	}
	img, err := i.ensure(ctx, ref, q)
	if err != nil {
		return runtime.Image{}, i.explain(ctx, ref, q, err)
	}
	return img, nil
}

func (i *Images) ensure(ctx context.Context, ref reference, q Request) (runtime.Image, error) {
	key := permissionKey{ref: ref.remote.Name(), caller: i.callers.name(q)}
	p, ok := i.allowed.Get(key)
	if !ok || !p.fresh(time.Now()) {
		gift, found, err := i.gift(ctx, ref)
		if err != nil || found {
			return gift, err
		}
		if p, err = i.permit(ctx, ref, key, q.Auth); err != nil {
			return runtime.Image{}, err
		}
	}
	name := ref.at(p.digest)
	stored, err := i.cfg.Store.Inspect(ctx, name)
	if errors.Is(err, runtime.ErrNoImage) {
		i.names.Remove(ref.asked)
		stored, err = i.pull(ctx, ref, p.digest, key.caller, q.Auth)
	}
	if err != nil {
		return runtime.Image{}, err
	}
	if err := i.checkPlatform(ref, stored.Platform); err != nil {
		return runtime.Image{}, err
	}
	i.names.Add(ref.asked, struct{}{})
	return runtime.Image{ID: stored.ID, Digest: p.digest}, nil
}

// gift finds an image that only the engine's own store has.
func (i *Images) gift(ctx context.Context, ref reference) (runtime.Image, bool, error) {
	if i.cfg.DenyLocal || ref.digested() {
		return runtime.Image{}, false, nil
	}
	for _, name := range ref.local {
		stored, err := i.cfg.Store.Inspect(ctx, name)
		if errors.Is(err, runtime.ErrNoImage) {
			continue
		}
		if err != nil {
			return runtime.Image{}, false, err
		}
		if len(stored.RepoDigests) == 0 {
			return runtime.Image{ID: stored.ID, Digest: stored.ID}, true, nil
		}
	}
	return runtime.Image{}, false, nil
}

// Present names the references that need no pull on this node, as tasks may
// write them, sorted. It is a hint for placement: an image may have gone, and
// whether a caller may use it is not asked.
func (i *Images) Present(ctx context.Context) []string {
	tags, err := i.cfg.Store.List(ctx)
	if err != nil {
		i.cfg.Log.Debug("engine does not list its images", "err", err)
	}
	names := map[string]bool{}
	for _, tag := range tags {
		names[tag] = true
		if ref, err := i.cfg.parse(tag); err == nil {
			names[ref.local[0]] = true
		}
	}
	for _, asked := range i.names.Keys() {
		names[asked] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// explain gives an error of ensure its final form.
func (i *Images) explain(ctx context.Context, ref reference, q Request, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &runtime.Failure{
			Outcome: task.PullTimedOut,
			Reason: fmt.Sprintf("image %s was not there before the pull timeout; the registry %s or the network is slow: raise timeouts.pull or try again",
				ref.asked, ref.registry()),
			Err: ctx.Err(),
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("image %s: %w", ref.asked, context.Cause(ctx))
	}
	var f *runtime.Failure
	if errors.As(err, &f) {
		if f.Outcome == task.ImageDenied && anonymous(q.Auth) {
			return hidden(ref, f.Err)
		}
		return f
	}
	return fmt.Errorf("image %s: %w", ref.asked, err)
}
