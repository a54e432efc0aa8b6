package images

import (
	"fmt"
	"net"
	"slices"
	"strings"

	refs "github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

// dockerHub is how references name it. Its registry is at another host.
const dockerHub = "docker.io"

// reference is one image reference in the forms that people, the engine and the
// registry want.
type reference struct {
	asked string
	// local are the names under which the engine may have it as a gift, fully
	// qualified, so that none can be taken for an image id.
	local  []string
	remote name.Reference
}

// parse understands a reference. An error is a *runtime.Failure.
func (c Config) parse(asked string) (reference, error) {
	named, err := refs.ParseNormalizedNamed(asked)
	if err != nil {
		return reference{}, &runtime.Failure{
			Outcome: task.ImageNotFound,
			Reason:  fmt.Sprintf("%q is not an image reference; write name:tag, registry/name:tag or registry/name@sha256:digest", asked),
			Err:     err,
		}
	}
	ref := reference{asked: asked}
	local := refs.TagNameOnly(named).String()
	remote := local
	if d, ok := named.(refs.Digested); ok {
		// With a digest the tag says nothing any more.
		remote = refs.TrimNamed(named).String() + "@" + d.Digest().String()
	}
	ref.local = []string{local}
	if c.DefaultRegistry != "" && short(named, asked) {
		_, rest, _ := strings.Cut(remote, "/")
		if !strings.HasPrefix(asked, "library/") {
			rest = strings.TrimPrefix(rest, "library/")
		}
		remote = c.DefaultRegistry + "/" + rest
		ref.local = append(ref.local, remote)
	}
	if ref.remote, err = c.remote(remote); err != nil {
		return reference{}, &runtime.Failure{
			Outcome: task.ImageNotFound,
			Reason:  fmt.Sprintf("%q is not an image reference that a registry can be asked for", asked),
			Err:     err,
		}
	}
	return ref, nil
}

// short reports whether the reference was written without a registry.
func short(named refs.Named, asked string) bool {
	if refs.Domain(named) != dockerHub {
		return false
	}
	first, _, _ := strings.Cut(asked, "/")
	return first == asked || !strings.Contains(first, ".")
}

func (c Config) remote(s string) (name.Reference, error) {
	host, _, _ := strings.Cut(s, "/")
	opts := []name.Option{name.WeakValidation}
	if c.plain(host) {
		opts = append(opts, name.Insecure)
	}
	return name.ParseReference(s, opts...)
}

// plain reports whether the registry at host may be spoken to without TLS.
func (c Config) plain(host string) bool {
	if slices.Contains(c.Insecure, host) {
		return true
	}
	bare := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		bare = h
	}
	if slices.Contains(c.Insecure, bare) || bare == "localhost" {
		return true
	}
	ip := net.ParseIP(strings.Trim(bare, "[]"))
	return ip != nil && ip.IsLoopback()
}

// at names the image behind a digest in the reference's repository, as the
// engine writes it.
func (r reference) at(digest string) string {
	repo := r.remote.Context()
	host := repo.RegistryStr()
	if host == name.DefaultRegistry {
		host = dockerHub
	}
	return host + "/" + repo.RepositoryStr() + "@" + digest
}

// registry is how people call the reference's registry.
func (r reference) registry() string {
	host, _, _ := strings.Cut(r.at(""), "/")
	return host
}

func (r reference) digested() bool {
	_, ok := r.remote.(name.Digest)
	return ok
}
