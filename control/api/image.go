package api

import (
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
)

// The engine runs an image by any unique prefix of its id, so that "6" may be
// somebody else's private image. Whatever it could take for an id is refused
// here, whether such an image exists or not.
var errImageID = errors.New("could be an image id or a prefix of one; name the image by repository and tag or digest")

// parseImage checks an image reference and gives it with the tag "latest" when
// it has neither tag nor digest. The registry stays as the caller wrote it: an
// agent may be set up with a default registry of its own.
func parseImage(s string) (string, error) {
	ref, err := parseReference(s)
	if err != nil {
		return "", err
	}
	if reference.IsNameOnly(ref) {
		return s + ":latest", nil
	}
	return s, nil
}

// parseTagged is parseImage for v1.1, whose callers always name a tag.
func parseTagged(s string) (string, error) {
	ref, err := parseReference(s)
	if err != nil {
		return "", err
	}
	if reference.IsNameOnly(ref) {
		return "", fmt.Errorf(`needs a tag, such as "%s:latest"`, s)
	}
	return s, nil
}

// parseRepository checks a name that must have no tag and no digest, as v1.0's
// docker_image.
func parseRepository(s string) error {
	_, err := parseReference(s + ":tag")
	if err == nil {
		return nil
	}
	if _, asIs := parseReference(s); asIs == nil {
		return errors.New("must have no tag and no digest; the tag goes into the member tag")
	}
	return err
}

func parseReference(s string) (reference.Named, error) {
	if couldBeID(s) {
		return nil, errImageID
	}
	name, _, _ := strings.Cut(s, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	if strings.ToLower(name) != name {
		return nil, errors.New("must be lower case")
	}
	ref, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, fmt.Errorf(`is not an image reference such as "alpine:3" or "registry.example.com/team/app:1.2": %w`, err)
	}
	return ref, nil
}

// couldBeID reports whether the engine could take s for an image id: hex digits
// alone, or behind the name of a hash.
func couldBeID(s string) bool {
	if hash, rest, ok := strings.Cut(s, ":"); ok && strings.HasPrefix(hash, "sha") && isHex(hash[3:]) {
		s = rest
	}
	return isHex(s)
}

func isHex(s string) bool {
	return s != "" && strings.Trim(strings.ToLower(s), "0123456789abcdef") == ""
}
