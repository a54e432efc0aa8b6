package images_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"golang.org/x/crypto/bcrypt"

	"ecs/agent/images"
	"ecs/agent/runtime"
	"ecs/agent/runtime/docker"
	"ecs/internal/task"
	"ecs/internal/telemetry"
	"ecs/test/registry"
)

// engine gives the real engine, and removes afterwards what images it was made
// to hold.
type engine struct {
	*docker.Runtime
	client *client.Client
}

func newEngine(t *testing.T) engine {
	t.Helper()
	if os.Getenv("ECS_TEST_NO_ENGINE") == "1" {
		t.Skip("ECS_TEST_NO_ENGINE=1")
	}
	c, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Ping(t.Context()); err != nil {
		t.Fatalf("no container engine answers: start one, or set ECS_TEST_NO_ENGINE=1 to go without: %v", err)
	}
	e := engine{client: c, Runtime: docker.New(docker.Config{
		Client: c, Cluster: "images-test", Node: "n1", Log: slog.New(slog.DiscardHandler), Metrics: telemetry.Discard(),
	})}
	t.Cleanup(func() { _ = c.Close() })
	return e
}

func (e engine) removeLater(t *testing.T, ref string) {
	t.Cleanup(func() {
		_, err := e.client.ImageRemove(context.Background(), ref, image.RemoveOptions{Force: true, PruneChildren: true})
		if err != nil {
			t.Logf("remove %s: %v", ref, err)
		}
	})
}

func (e engine) images(change func(*images.Config)) *images.Images {
	cfg := images.Config{Store: e, Log: slog.New(slog.DiscardHandler), Metrics: telemetry.Discard()}
	if change != nil {
		change(&cfg)
	}
	return images.New(cfg)
}

func standIn(t *testing.T) (*registry.Registry, string) {
	t.Helper()
	reg := registry.New()
	server, err := reg.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return reg, server.Host()
}

func ask(t *testing.T, i *images.Images, ref string, auth *task.RegistryAuth) (runtime.Image, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	owner := "anybody"
	if auth != nil {
		owner = auth.Username
	}
	return i.Ensure(ctx, images.Request{Ref: ref, Owner: owner, Auth: auth})
}

func wantOutcome(t *testing.T, what string, err error, want task.Outcome) {
	t.Helper()
	var f *runtime.Failure
	if !errors.As(err, &f) || f.Outcome != want {
		t.Errorf("%s: got %v, want %s", what, err, want)
	}
}

func unique(text string) registry.Image {
	return registry.Image{
		Files: map[string][]byte{"/hello": fmt.Appendf(nil, "%s %d", text, time.Now().UnixNano())},
		Cmd:   []string{"/hello"},
	}
}

func TestTheEnginePullsWhatTheRegistryAllows(t *testing.T) {
	e := newEngine(t)
	reg, host := standIn(t)
	reg.RequireTokens(401)
	reg.AddUser("alice", "pw")
	reg.AddUser("bob", "pw")
	digest, err := reg.Push("team/private", "1", unique("private"))
	if err != nil {
		t.Fatal(err)
	}
	reg.Private("team/private", "alice")
	index, err := reg.PushIndex("team/public", "1", unique("amd"), registry.Image{Platform: "linux/s390x", Files: map[string][]byte{"/x": {1}}})
	if err != nil {
		t.Fatal(err)
	}
	e.removeLater(t, host+"/team/private@"+digest)
	e.removeLater(t, host+"/team/public@"+index)
	i := e.images(func(c *images.Config) { c.Platform = "linux/amd64" })
	defer i.Close()
	alice := &task.RegistryAuth{Username: "alice", Password: "pw"}

	_, err = ask(t, i, host+"/team/private:1", nil)
	wantOutcome(t, "private, without credentials", err, task.ImageNotFound)
	_, err = ask(t, i, host+"/team/missing:1", nil)
	wantOutcome(t, "missing", err, task.ImageNotFound)
	img, err := ask(t, i, host+"/team/private:1", alice)
	if err != nil || img.Digest != digest || !strings.HasPrefix(img.ID, "sha256:") {
		t.Fatalf("got %+v, %v, want digest %s", img, err, digest)
	}
	for _, ref := range []string{host + "/team/private:1", host + "/team/private@" + digest} {
		_, err = ask(t, i, ref, nil)
		wantOutcome(t, ref+" on a node that holds it", err, task.ImageNotFound)
		_, err = ask(t, i, ref, &task.RegistryAuth{Username: "bob", Password: "pw"})
		wantOutcome(t, ref+" on a node that holds it, for bob", err, task.ImageDenied)
		_, err = ask(t, i, ref, &task.RegistryAuth{Username: "alice", Password: "no"})
		wantOutcome(t, ref+" with a wrong password", err, task.ImageDenied)
	}
	if img, err = ask(t, i, host+"/team/public:1", nil); err != nil || img.Digest != index {
		t.Errorf("got %+v, %v, want the index's digest %s", img, err, index)
	}
}

func TestTheEngineRunsNothingByItsID(t *testing.T) {
	e := newEngine(t)
	_, host := standIn(t)
	i := e.images(func(c *images.Config) { c.DefaultRegistry = host })
	defer i.Close()
	gift := fmt.Sprintf("ecs-images-test:%d", time.Now().UnixNano())
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "x", Mode: 0o644}), w.Close()); err != nil {
		t.Fatal(err)
	}
	answer, err := e.client.ImageImport(t.Context(), image.ImportSource{Source: &layer, SourceName: "-"}, gift, image.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Close()
	e.removeLater(t, gift)

	img, err := ask(t, i, gift, nil)
	if err != nil || img.Digest != img.ID {
		t.Fatalf("got %+v, %v, want the operator's gift", img, err)
	}
	hex := strings.TrimPrefix(img.ID, "sha256:")
	for _, ref := range []string{hex[:1], hex[:12], hex, "sha256:" + hex, "library/" + hex[:12], "sha256:" + hex[:12]} {
		if _, err := ask(t, i, ref, nil); err == nil {
			t.Errorf("got an image for %q, want none", ref)
		}
	}
}

func TestTheEnginesPullsThatGoWrong(t *testing.T) {
	e := newEngine(t)
	reg, host := standIn(t)
	for _, c := range []struct {
		repo  string
		fault registry.Fault
		want  task.Outcome
		says  string
	}{
		{"corrupt", registry.Corrupt, task.ImageInvalid, "corrupt"},
		{"stalls", registry.StallBlob, task.ImageUnavailable, "no byte for 2s"},
	} {
		t.Run(c.repo, func(t *testing.T) {
			if _, err := reg.Push(c.repo, "1", unique(c.repo)); err != nil {
				t.Fatal(err)
			}
			reg.Fail(c.repo, c.fault, 0)
			i := e.images(func(c *images.Config) { c.StallAfter = 2 * time.Second })
			defer i.Close()
			_, err := ask(t, i, host+"/"+c.repo+":1", nil)
			wantOutcome(t, c.repo, err, c.want)
			if err != nil && (!strings.Contains(err.Error(), host) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("got %q, want the registry and %q in it", err, c.says)
			}
		})
	}
}

// A second, independent implementation of the registry, with basic
// authentication instead of tokens.
func TestPrivateImagesOfDistribution(t *testing.T) {
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Fatal("docker-registry is not installed, run: apt-get install docker-registry")
	}
	host := startDistribution(t, bin, "carol", "pw")
	digest, err := registry.PushTo(t.Context(), host+"/team/app:1", "carol", "pw", unique("distribution"))
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine(t)
	e.removeLater(t, host+"/team/app@"+digest)
	i := e.images(nil)
	defer i.Close()
	carol := &task.RegistryAuth{Username: "carol", Password: "pw"}
	ref := host + "/team/app:1"
	img, err := ask(t, i, ref, carol)
	if err != nil || img.Digest != digest {
		t.Fatalf("got %+v, %v, want digest %s", img, err, digest)
	}
	_, err = ask(t, i, ref, nil)
	wantOutcome(t, "without credentials", err, task.ImageNotFound)
	_, err = ask(t, i, ref, &task.RegistryAuth{Username: "carol", Password: "no"})
	wantOutcome(t, "with a wrong password", err, task.ImageDenied)
	_, err = ask(t, i, host+"/team/app:2", carol)
	wantOutcome(t, "a missing tag", err, task.ImageNotFound)
	_, err = ask(t, i, host+"/team/other:1", carol)
	wantOutcome(t, "a missing repository", err, task.ImageNotFound)
}

// startDistribution runs a registry on a free port until the test ends.
func startDistribution(t *testing.T, bin, user, password string) (host string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host = l.Addr().String()
	dir := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: %q}}
http: {addr: %q}
auth: {htpasswd: {realm: test, path: %q}}
`, dir+"/data", host, dir+"/htpasswd")
	for name, content := range map[string]string{"htpasswd": user + ":" + string(hash) + "\n", "config.yml": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "serve", filepath.Join(dir, "config.yml"))
	var said bytes.Buffer
	cmd.Stderr, cmd.Stdout = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("tcp", host)
		if err == nil {
			_ = conn.Close()
			return host
		}
		if time.Now().After(deadline) {
			t.Fatalf("docker-registry does not listen: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
