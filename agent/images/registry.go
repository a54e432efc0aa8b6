package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	regtransport "github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

const (
	tries     = 3 // of whatever may go better the next time
	firstWait = 300 * time.Millisecond
	waitGrows = 3
)

// ask has the registry say, to this caller, which digest the reference means.
func (i *Images) ask(ctx context.Context, ref reference, auth *task.RegistryAuth) (digest string, err error) {
	err = i.insist(ctx, ref, func(ctx context.Context) error {
		desc, err := remote.Head(ref.remote, i.options(ctx, auth)...)
		if err == nil {
			digest = desc.Digest.String()
			return nil
		}
		if decided(err) {
			return err
		}
		// Some registries answer GET only, or HEAD without what matters.
		got, err := remote.Get(ref.remote, i.options(ctx, auth)...)
		if err == nil {
			digest = got.Digest.String()
		}
		return err
	})
	return digest, err
}

// decided reports whether asking with GET can't change the answer: the network
// failed, or the status says it all.
func decided(err error) bool {
	var answer *regtransport.Error
	if errors.As(err, &answer) {
		switch answer.StatusCode {
		case 401, 403, 404, 429:
			return true
		}
		return answer.StatusCode >= 500
	}
	var network *url.Error
	return errors.As(err, &network)
}

// preview reads the manifest behind digest before anything is pulled, for
// images that are too large or for other machines.
func (i *Images) preview(ctx context.Context, ref reference, digest string, auth *task.RegistryAuth) error {
	if i.cfg.MaxBytes < 0 {
		return nil
	}
	desc, err := i.manifest(ctx, ref, digest, auth)
	if err != nil {
		return err
	}
	if desc.MediaType.IsIndex() {
		child, err := i.choose(ref, desc.Manifest)
		if err != nil || child == "" {
			return err
		}
		if desc, err = i.manifest(ctx, ref, child, auth); err != nil {
			return err
		}
	}
	if !desc.MediaType.IsImage() {
		return nil // of an old form, say; the engine may know better
	}
	m, err := v1.ParseManifest(bytes.NewReader(desc.Manifest))
	if err != nil {
		return invalid(ref, "its manifest can't be read", err)
	}
	var sum int64
	for _, layer := range m.Layers {
		if layer.Size < 0 || layer.Size > i.cfg.MaxBytes || sum > i.cfg.MaxBytes-layer.Size {
			return invalid(ref, fmt.Sprintf("its layers are larger than the %d MiB that this node allows", i.cfg.MaxBytes>>20), nil)
		}
		sum += layer.Size
	}
	return nil
}

func (i *Images) manifest(ctx context.Context, ref reference, digest string, auth *task.RegistryAuth) (desc *remote.Descriptor, err error) {
	err = i.insist(ctx, ref, func(ctx context.Context) error {
		desc, err = remote.Get(ref.remote.Context().Digest(digest), i.options(ctx, auth)...)
		return err
	})
	return desc, err
}

// choose finds this node's platform in an index. It gives nothing when the
// index leaves open what its parts are for.
func (i *Images) choose(ref reference, index []byte) (digest string, err error) {
	m, err := v1.ParseIndexManifest(bytes.NewReader(index))
	if err != nil {
		return "", invalid(ref, "its index can't be read", err)
	}
	var others []string
	for _, part := range m.Manifests {
		if part.Platform == nil {
			return "", nil
		}
		platform := part.Platform.OS + "/" + part.Platform.Architecture
		if samePlatform(platform, i.cfg.Platform) {
			return part.Digest.String(), nil
		}
		if len(others) < 8 {
			others = append(others, clean(platform))
		}
	}
	return "", invalid(ref, fmt.Sprintf("it has no variant for %s, only for %s", i.cfg.Platform, strings.Join(others, ", ")), nil)
}

// checkPlatform refuses an image for other machines. An index was looked at
// before the pull; a plain image tells only when it is here.
func (i *Images) checkPlatform(ref reference, platform string) error {
	if platform == "" || samePlatform(platform, i.cfg.Platform) {
		return nil
	}
	return invalid(ref, fmt.Sprintf("it is for %s and this node is %s", clean(platform), i.cfg.Platform), nil)
}

// samePlatform compares os and architecture; variants are the engine's matter.
func samePlatform(a, b string) bool {
	short := func(p string) string {
		parts := strings.SplitN(p, "/", 3)
		return strings.Join(parts[:min(2, len(parts))], "/")
	}
	return short(a) == short(b)
}

// options make one request of the registry. The client's own retries are off:
// they would sleep past ctx's end.
func (i *Images) options(ctx context.Context, auth *task.RegistryAuth) []remote.Option {
	who := authn.Anonymous
	if !anonymous(auth) {
		who = authn.FromConfig(authn.AuthConfig{Username: auth.Username, Password: auth.Password})
	}
	return []remote.Option{
		remote.WithContext(ctx), remote.WithAuth(who), remote.WithTransport(i.transport),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
		remote.WithRetryPredicate(func(error) bool { return false }),
		remote.WithRetryStatusCodes(),
	}
}

// insist asks a registry until it answers, the answer can't change or ctx ends.
func (i *Images) insist(ctx context.Context, ref reference, ask func(context.Context) error) error {
	return persist(ctx, func() (again bool, err error) {
		// Twice: for the connection with its token, and for the answer.
		limited, cancel := context.WithTimeout(ctx, 2*i.cfg.AnswerWithin)
		defer cancel()
		if err := ask(limited); err != nil {
			var f *runtime.Failure
			f, again = classify(ref, err)
			return again, f
		}
		return false, nil
	})
}

// persist tries again, with growing waits, what may go better the next time.
func persist(ctx context.Context, try func() (again bool, err error)) error {
	wait := firstWait
	for n := 1; ; n++ {
		again, err := try()
		if err == nil || !again || n == tries || ctx.Err() != nil {
			return err
		}
		pause := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return err
		}
		wait *= waitGrows
	}
}
