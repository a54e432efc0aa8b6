package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Image is an image of one layer, to be pushed. Files and directories belong to
// root and are executable by all.
type Image struct {
	Files map[string][]byte // by absolute path
	Cmd   []string
	Env   []string
	// Platform is "os/architecture"; empty: linux/amd64.
	Platform string
}

// Push stores the image as repo:tag, past every lock and fault, and returns its
// digest.
func (r *Registry) Push(repo, tag string, img Image) (digest string, err error) {
	built, err := img.build()
	if err != nil {
		return "", fmt.Errorf("build the image for %s:%s: %w", repo, tag, err)
	}
	ref, err := reference(repo, tag)
	if err != nil {
		return "", err
	}
	if err := remote.Write(ref, built, remote.WithTransport(inProcess{r.store})); err != nil {
		return "", fmt.Errorf("push %s:%s: %w", repo, tag, err)
	}
	r.learn(repo)
	return digestOf(built)
}

// PushIndex stores a multi-platform image as repo:tag and returns the digest of
// the index.
func (r *Registry) PushIndex(repo, tag string, images ...Image) (digest string, err error) {
	var index v1.ImageIndex = empty.Index
	for _, img := range images {
		built, err := img.build()
		if err != nil {
			return "", fmt.Errorf("build the image for %s:%s: %w", repo, tag, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: built, Descriptor: v1.Descriptor{Platform: img.platform()},
		})
	}
	ref, err := reference(repo, tag)
	if err != nil {
		return "", err
	}
	if err := remote.WriteIndex(ref, index, remote.WithTransport(inProcess{r.store})); err != nil {
		return "", fmt.Errorf("push %s:%s: %w", repo, tag, err)
	}
	r.learn(repo)
	return digestOf(index)
}

// PushTo stores the image in another registry, as a user of it, and returns its
// digest. ref names that registry, a loopback one: "127.0.0.1:5000/team/app:1".
func PushTo(ctx context.Context, ref, user, password string, img Image) (digest string, err error) {
	built, err := img.build()
	if err != nil {
		return "", fmt.Errorf("build the image for %s: %w", ref, err)
	}
	to, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		return "", err
	}
	who := authn.FromConfig(authn.AuthConfig{Username: user, Password: password})
	if err := remote.Write(to, built, remote.WithContext(ctx), remote.WithAuth(who)); err != nil {
		return "", fmt.Errorf("push %s: %w", ref, err)
	}
	return digestOf(built)
}

func (r *Registry) learn(repo string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.repos[repo] = true
}

func reference(repo, tag string) (name.Reference, error) {
	return name.ParseReference("registry.test/"+repo+":"+tag, name.StrictValidation)
}

func digestOf(d interface{ Digest() (v1.Hash, error) }) (string, error) {
	h, err := d.Digest()
	return h.String(), err
}

func (img Image) platform() *v1.Platform {
	os, arch, ok := strings.Cut(img.Platform, "/")
	if !ok {
		os, arch = "linux", "amd64"
	}
	return &v1.Platform{OS: os, Architecture: arch}
}

func (img Image) build() (v1.Image, error) {
	archive, err := img.tar()
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive)), nil
	})
	if err != nil {
		return nil, err
	}
	built, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	p := img.platform()
	config, err := built.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = p.OS, p.Architecture
	config.Config.Cmd, config.Config.Env = img.Cmd, img.Env
	return mutate.ConfigFile(built, config)
}

// tar writes the layer, directories first, in the same order every time so that
// the same image has the same digest.
func (img Image) tar() ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	made := map[string]bool{"/": true, ".": true}
	for _, file := range slices.Sorted(maps.Keys(img.Files)) {
		var missing []string
		for dir := path.Dir(file); !made[dir]; dir = path.Dir(dir) {
			made[dir] = true
			missing = append(missing, dir)
		}
		for _, dir := range slices.Backward(missing) {
			header := &tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimPrefix(dir, "/") + "/", Mode: 0o755}
			if err := w.WriteHeader(header); err != nil {
				return nil, err
			}
		}
		content := img.Files[file]
		header := &tar.Header{Name: strings.TrimPrefix(file, "/"), Mode: 0o755, Size: int64(len(content))}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// inProcess carries requests to a handler without a network.
type inProcess struct{ handler http.Handler }

func (t inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	if req.Body == nil {
		req.Body = http.NoBody
	}
	t.handler.ServeHTTP(rec, req)
	resp := rec.Result()
	resp.Request = req
	return resp, nil
}
