package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

// Inspect implements runtime.ImageStore. The engine, which takes milliseconds when
// it is busy, is asked when something may have happened to an image since.
func (r *Runtime) Inspect(ctx context.Context, ref string) (runtime.StoredImage, error) {
	name, err := canonical(ref)
	if err != nil {
		return runtime.StoredImage{}, fmt.Errorf("inspect image: %w", err)
	}
	r.watchImages()
	found, known, version := r.lookups.get(name.String())
	if known {
		return found, nil
	}
	if found, err = r.lookUp(ctx, name.String()); err == nil {
		r.lookups.put(name.String(), found, version)
	}
	return found, err
}

// lookUp asks the engine for an image by its canonical name.
func (r *Runtime) lookUp(ctx context.Context, name string) (runtime.StoredImage, error) {
	var found image.InspectResponse
	err := r.call(ctx, "image_inspect", shortCall, func(ctx context.Context) (err error) {
		found, err = r.client.ImageInspect(ctx, name)
		return err
	})
	if errdefs.IsNotFound(err) {
		return runtime.StoredImage{}, fmt.Errorf("inspect image %s: %w", name, runtime.ErrNoImage)
	}
	if err != nil {
		return runtime.StoredImage{}, fmt.Errorf("inspect image %s: %w", name, err)
	}
	s := runtime.StoredImage{ID: found.ID, Platform: found.Os + "/" + found.Architecture}
	if found.Variant != "" {
		s.Platform += "/" + found.Variant
	}
	for _, d := range found.RepoDigests {
		if full, err := reference.ParseNormalizedNamed(d); err == nil {
			s.RepoDigests = append(s.RepoDigests, full.String())
		}
	}
	return s, nil
}

// canonical writes a reference out in full. The engine would take "6" for any
// image whose id begins so; nothing with a registry's name is an id to it.
func canonical(ref string) (reference.Named, error) {
	name, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", ref, err)
	}
	return reference.TagNameOnly(name), nil
}

// List implements runtime.ImageStore. Names are as the engine writes them:
// without the default registry's.
func (r *Runtime) List(ctx context.Context) ([]string, error) {
	var found []image.Summary
	err := r.call(ctx, "image_list", shortCall, func(ctx context.Context) (err error) {
		found, err = r.client.ImageList(ctx, image.ListOptions{})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var names []string
	for _, i := range found {
		for _, tag := range i.RepoTags {
			if tag != "<none>:<none>" {
				names = append(names, tag)
			}
		}
	}
	return names, nil
}

// Pull implements runtime.ImageStore. It has no deadline of its own: the engine
// waits for a silent registry for ever, so the caller watches progress.
func (r *Runtime) Pull(ctx context.Context, ref string, auth *task.RegistryAuth, progress func()) error {
	name, err := canonical(ref)
	if err != nil {
		return fmt.Errorf("pull: %w", err)
	}
	credentials := ""
	if auth != nil {
		credentials, err = registry.EncodeAuthConfig(registry.AuthConfig{Username: auth.Username,
			Password: auth.Password, ServerAddress: reference.Domain(name)})
		if err != nil {
			return fmt.Errorf("pull %s: %w", name, err)
		}
	}
	stream, err := r.client.ImagePull(ctx, name.String(), image.PullOptions{RegistryAuth: credentials})
	if err == nil {
		err = follow(stream, progress)
		stream.Close()
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return &runtime.Failure{Outcome: task.PullTimedOut, Reason: fmt.Sprintf("image %s was not pulled in time", name), Err: ctx.Err()}
	case ctx.Err() != nil:
		return fmt.Errorf("pull %s: %w", name, context.Cause(ctx))
	}
	return pullError(name.String(), auth != nil, err)
}

// pullMessage is one message of a pull's stream. An error comes as a message
// too, long after the 200.
type pullMessage struct {
	Error       string `json:"error"`
	ErrorDetail struct {
		Message string `json:"message"`
	} `json:"errorDetail"`
}

// errStream: the engine ended a pull's stream with an error.
type errStream struct{ text string }

func (e errStream) Error() string { return e.text }

// follow reads a pull's stream to its end.
func follow(stream io.Reader, progress func()) error {
	for in := json.NewDecoder(stream); ; progress() {
		var m pullMessage
		err := in.Decode(&m)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the engine's progress: %w", err)
		}
		if text := m.ErrorDetail.Message; text != "" || m.Error != "" {
			if text == "" {
				text = m.Error
			}
			return errStream{text}
		}
	}
}

// pullRules are tried in order against what the engine says of a failed pull.
// Its status codes say nothing: a missing image is a 500 here and a 404 there.
var pullRules = []struct {
	outcome task.Outcome
	reason  string
	texts   []string
}{
	{"", "", []string{"no space left on device"}}, // the node's fault
	{task.ImageInvalid, "it has nothing for this platform", []string{
		"no matching manifest for", "cannot be used on this platform", "does not match the specified platform"}},
	{task.ImageInvalid, "what the registry sent is corrupt or no image", []string{
		"filesystem layer verification failed", "verification failed for digest", "image config verification failed",
		"manifest verification failed", "archive/tar", "gzip: invalid", "zlib: invalid", "invalid tar header",
		"failed to register layer", "unsupported manifest media type", "unsupported media type", "missing signature key",
		"invalid character", "image did not match", "does not match digest", "digest mismatch", "layers from manifest don't match",
		"mediaType in manifest", "application/vnd"}},
	{task.ImageUnavailable, "the registry limits how often images are pulled", []string{"toomanyrequests", "too many requests"}},
	{task.ImageDenied, "the registry refuses it", []string{"unauthorized", "authentication required", "no basic auth credentials",
		"denied", "access forbidden", "forbidden"}},
	{task.ImageNotFound, "the registry does not have it", []string{"manifest unknown", "name unknown", "repository name not known",
		"not found", "name_unknown", "manifest_unknown"}},
	{task.ImageUnavailable, "the registry can't be reached", []string{"no such host", "connection refused", "connection reset",
		"i/o timeout", "timeout exceeded", "timeout awaiting", "no route to host", "network is unreachable", "eof",
		"server gave http response to https client", "x509:", "tls:", "server misbehaving", "received unexpected http status",
		"request canceled", "temporary failure in name resolution", "blob upload unknown", "error parsing http"}},
}

// pullError classifies the failure of a pull.
func pullError(name string, withAuth bool, err error) error {
	var stream errStream
	if !answered(err) && !errors.As(err, &stream) {
		return fmt.Errorf("pull %s: %w", name, err) // the engine itself
	}
	text := said(err)
	low := strings.ToLower(text)
	for _, rule := range pullRules {
		for _, t := range rule.texts {
			if !strings.Contains(low, strings.ToLower(t)) {
				continue
			}
			if rule.outcome == "" {
				return fmt.Errorf("pull %s: %w", name, err)
			}
			if rule.outcome == task.ImageDenied && !withAuth {
				return &runtime.Failure{Outcome: task.ImageNotFound, Err: errors.New(text),
					Reason: fmt.Sprintf("image %s is missing or private; pass registry credentials", name)}
			}
			return &runtime.Failure{Outcome: rule.outcome, Err: errors.New(text),
				Reason: fmt.Sprintf("image %s: %s", name, rule.reason)}
		}
	}
	return fmt.Errorf("pull %s: %w", name, err)
}
