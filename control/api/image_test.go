package api

import (
	"strings"
	"testing"

	"github.com/distribution/reference"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestOnlyReferencesNameImages(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"busybox", "busybox:latest"},
		{"busybox:1", "busybox:1"},
		{"team/app", "team/app:latest"},
		{"localhost:5000/team/app", "localhost:5000/team/app:latest"},
		{"localhost:5000/team/app:1.2", "localhost:5000/team/app:1.2"},
		{"busybox@" + digest, "busybox@" + digest},
		{"busybox:1@" + digest, "busybox:1@" + digest},
		{"cafe:1", "cafe:1"},
		{"docker.io/library/cafe", "docker.io/library/cafe:latest"},
	} {
		if got, err := parseImage(tc.text); err != nil || got != tc.want {
			t.Errorf("parseImage(%q): got %q, %v, want %q", tc.text, got, err, tc.want)
		}
	}
	for _, text := range []string{"", "6", "69f0", "cafe", "DEADBEEF", digest, "sha256:69f0", digest[7:], "Busybox", "team/App", "UPPER.example.com/app:1",
		"busy box", "busybox:", "busybox:a b", ":1", "busybox\n", "busybox@sha256:12", "../etc", "http://x/y", "-a", strings.Repeat("a/", 200) + "b"} {
		if got, err := parseImage(text); err == nil {
			t.Errorf("parseImage(%q): got %q, want it refused", text, got)
		}
	}
}

func TestV1ImagesHaveTheirTag(t *testing.T) {
	if _, err := parseTagged("busybox"); err == nil || !strings.Contains(err.Error(), "busybox:latest") {
		t.Errorf("got %v, want a word about the tag", err)
	}
	for _, text := range []string{"busybox:1", "localhost:5000/a:2", "busybox@" + digest} {
		if got, err := parseTagged(text); err != nil || got != text {
			t.Errorf("parseTagged(%q): got %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"busybox", "xubuntu", "localhost:5000/a", "6"} {
		if err := parseRepository(text); text != "6" && err != nil {
			t.Errorf("parseRepository(%q): got %v", text, err)
		}
	}
	for _, text := range []string{"busybox:1", "busybox@" + digest, "busybox:1@" + digest, "Busybox", "", "a b"} {
		if err := parseRepository(text); err == nil {
			t.Errorf("parseRepository(%q): got no error", text)
		}
	}
}

// FuzzImage holds that what is taken is a reference with tag or digest, that
// reading it again changes nothing, and that the engine can't take it for an id.
func FuzzImage(f *testing.F) {
	for _, s := range []string{"busybox", "6", "a.b:80/c/d:e@" + digest, "sha256:69f0", "A/b", "", "localhost/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseImage(text)
		if err != nil {
			return
		}
		ref, err := reference.ParseNormalizedNamed(got)
		if err != nil || reference.IsNameOnly(ref) {
			t.Errorf("parseImage(%q) = %q, which is no whole reference: %v", text, got, err)
		}
		if again, err := parseImage(got); err != nil || again != got {
			t.Errorf("parseImage(%q) = %q, and again %q, %v", text, got, again, err)
		}
		if couldBeID(text) || couldBeID(got) {
			t.Errorf("parseImage(%q) = %q could be an id", text, got)
		}
	})
}
