package images

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

func TestReferencesInTheirForms(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	for _, c := range []struct {
		asked, deflt  string
		local, remote string
		at            string
		plain         bool
	}{
		{"xubuntu", "", "docker.io/library/xubuntu:latest", "index.docker.io/library/xubuntu:latest", "docker.io/library/xubuntu@d", false},
		{"xubuntu:1", "", "docker.io/library/xubuntu:1", "index.docker.io/library/xubuntu:1", "docker.io/library/xubuntu@d", false},
		{"team/app:1", "", "docker.io/team/app:1", "index.docker.io/team/app:1", "docker.io/team/app@d", false},
		{"docker.io/xubuntu:1", "r.test", "docker.io/library/xubuntu:1", "index.docker.io/library/xubuntu:1", "docker.io/library/xubuntu@d", false},
		{"index.docker.io/team/app:1", "r.test", "docker.io/team/app:1", "index.docker.io/team/app:1", "docker.io/team/app@d", false},
		{"xubuntu:1", "r.test", "docker.io/library/xubuntu:1", "r.test/xubuntu:1", "r.test/xubuntu@d", false},
		{"library/xubuntu:1", "r.test", "docker.io/library/xubuntu:1", "r.test/library/xubuntu:1", "r.test/library/xubuntu@d", false},
		{"team/app:1", "r.test:5000", "docker.io/team/app:1", "r.test:5000/team/app:1", "r.test:5000/team/app@d", false},
		{"xubuntu:1", "docker.io", "docker.io/library/xubuntu:1", "index.docker.io/library/xubuntu:1", "docker.io/library/xubuntu@d", false},
		{"xubuntu:1@" + digest, "", "docker.io/library/xubuntu:1@" + digest, "index.docker.io/library/xubuntu@" + digest, "docker.io/library/xubuntu@d", false},
		{"localhost/app:1", "r.test", "localhost/app:1", "localhost/app:1", "localhost/app@d", true},
		{"127.0.0.1:5000/app:1", "", "127.0.0.1:5000/app:1", "127.0.0.1:5000/app:1", "127.0.0.1:5000/app@d", true},
		{"127.9.9.9/app:1", "", "127.9.9.9/app:1", "127.9.9.9/app:1", "127.9.9.9/app@d", true},
		{"10.0.0.1:5000/app:1", "", "10.0.0.1:5000/app:1", "10.0.0.1:5000/app:1", "10.0.0.1:5000/app@d", false},
		{"insecure.test/app:1", "", "insecure.test/app:1", "insecure.test/app:1", "insecure.test/app@d", true},
		{"insecure.test:99/app:1", "", "insecure.test:99/app:1", "insecure.test:99/app:1", "insecure.test:99/app@d", true},
		{"6:1", "", "docker.io/library/6:1", "index.docker.io/library/6:1", "docker.io/library/6@d", false},
		{"69f0aabb", "", "docker.io/library/69f0aabb:latest", "index.docker.io/library/69f0aabb:latest", "docker.io/library/69f0aabb@d", false},
	} {
		cfg := Config{DefaultRegistry: c.deflt, Insecure: []string{"insecure.test"}}.withDefaults()
		ref, err := cfg.parse(c.asked)
		if err != nil {
			t.Errorf("%s: %v", c.asked, err)
			continue
		}
		if ref.local[0] != c.local || ref.remote.Name() != c.remote || ref.at("d") != c.at {
			t.Errorf("%s with %q: got %s, %s, %s, want %s, %s, %s", c.asked, c.deflt,
				ref.local[0], ref.remote.Name(), ref.at("d"), c.local, c.remote, c.at)
		}
		if got := cfg.plain(ref.remote.Context().RegistryStr()); got != c.plain {
			t.Errorf("%s: got plain %v, want %v", c.asked, got, c.plain)
		}
	}
}

func TestWhatIsNoReferenceIsRefused(t *testing.T) {
	for _, asked := range []string{"", " ", "UPPER:1", "a b:1",
		strings.Repeat("a", 64), "app:", "app@sha256:12", "-x", "http://x/y:1", "x\n:1"} {
		_, err := Config{}.withDefaults().parse(asked)
		var f *runtime.Failure
		if !errors.As(err, &f) || f.Outcome != task.ImageNotFound {
			t.Errorf("%q: got %v, want a failure image_not_found", asked, err)
		}
	}
}

// Whatever is asked, the engine sees a name with a registry, a repository and a
// tag or digest: nothing that it could take for an image id.
func FuzzTheEngineNeverSeesAnID(f *testing.F) {
	for _, seed := range []string{"6", "69f0", "xubuntu:latest", "a.b/c@sha256:" + strings.Repeat("0", 64), "LOCALHOST/x"} {
		f.Add(seed, "")
		f.Add(seed, "r.test:5000")
	}
	full := regexp.MustCompile(`^[^/@]+(/[^:@/]+)+(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@[a-z0-9+._-]+:[0-9a-fA-F]+)?$`)
	f.Fuzz(func(t *testing.T, asked, deflt string) {
		if deflt != "" {
			deflt = "r.test:5000"
		}
		ref, err := Config{DefaultRegistry: deflt}.withDefaults().parse(asked)
		if err != nil {
			return
		}
		for _, name := range append(ref.local, ref.at("sha256:00")) {
			host, rest, _ := strings.Cut(name, "/")
			if !full.MatchString(name) || !strings.ContainsAny(rest, ":@") || !strings.ContainsAny(host, ".:lL") && host != "localhost" {
				t.Errorf("%q: got %q for the engine", asked, name)
			}
		}
	})
}
