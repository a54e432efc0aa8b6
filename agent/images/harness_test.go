package images

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
	"ecs/internal/telemetry"
	"ecs/test/registry"
)

// store is an engine's image store in memory.
type store struct {
	mu     sync.Mutex
	images map[string]runtime.StoredImage
	tags   []string
	pulls  []string
	asked  []string
	// onPull, when set, takes the place of a pull that works.
	onPull func(ctx context.Context, ref string, auth *task.RegistryAuth, progress func()) error
	broken error
}

func newStore() *store { return &store{images: map[string]runtime.StoredImage{}} }

func (s *store) Inspect(_ context.Context, ref string) (runtime.StoredImage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, ref)
	if s.broken != nil {
		return runtime.StoredImage{}, s.broken
	}
	img, ok := s.images[ref]
	if !ok {
		return runtime.StoredImage{}, runtime.ErrNoImage
	}
	return img, nil
}

func (s *store) Pull(ctx context.Context, ref string, auth *task.RegistryAuth, progress func()) error {
	s.mu.Lock()
	s.pulls = append(s.pulls, ref)
	onPull := s.onPull
	s.mu.Unlock()
	if onPull != nil {
		if err := onPull(ctx, ref, auth, progress); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images[ref] = runtime.StoredImage{ID: "sha256:id-of-" + ref, RepoDigests: []string{ref}, Platform: "linux/amd64"}
	return nil
}

func (s *store) List(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tags, s.broken
}

func (s *store) pulled() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pulls)
}

// bench is a registry, an engine's store and the Images between them.
type bench struct {
	reg   *registry.Registry
	host  string
	close func() // the registry goes away
	store *store
	log   *bytes.Buffer
	dial  func(context.Context, string, string) (net.Conn, error) // in a bubble
	*Images
}

const secret = "hunter2-s3cret"

var (
	alice = &task.RegistryAuth{Username: "alice", Password: secret}
	bob   = &task.RegistryAuth{Username: "bob", Password: "bobs-own"}
	wrong = &task.RegistryAuth{Username: "alice", Password: "wrong-" + secret}
)

// newBench starts a registry on a loopback port. change may alter the
// configuration.
func newBench(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	reg := registry.New()
	reg.AddUser("alice", secret)
	reg.AddUser("bob", "bobs-own")
	server, err := reg.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{reg: reg, host: server.Host(), store: newStore(), log: &bytes.Buffer{}}
	b.close = sync.OnceFunc(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(b.close)
	b.Images = b.images(t, change)
	return b
}

func (b *bench) images(t *testing.T, change func(*Config)) *Images {
	cfg := Config{
		Store: b.store, Platform: "linux/amd64", Metrics: telemetry.Discard(),
		Log: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	i := New(cfg)
	t.Cleanup(i.Close)
	return i
}

func (b *bench) push(t *testing.T, repo, tag string) (digest string) {
	t.Helper()
	digest, err := b.reg.Push(repo, tag, registry.Image{Files: map[string][]byte{"/hello": []byte(repo + tag)}})
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func (b *bench) ensure(t *testing.T, owner, ref string, auth *task.RegistryAuth) (runtime.Image, error) {
	t.Helper()
	return b.Ensure(t.Context(), Request{Ref: ref, Owner: owner, Auth: auth})
}

// mustEnsure wants the image behind digest.
func (b *bench) mustEnsure(t *testing.T, owner, ref string, auth *task.RegistryAuth, digest string) {
	t.Helper()
	img, err := b.ensure(t, owner, ref, auth)
	if err != nil {
		t.Errorf("%s for %s: %v", ref, owner, err)
	} else if img.Digest != digest || img.ID == "" {
		t.Errorf("got image %+v, want digest %s", img, digest)
	}
}

// wantFailure wants an error of the outcome that says every word and no
// password.
func wantFailure(t *testing.T, err error, want task.Outcome, says ...string) {
	t.Helper()
	var f *runtime.Failure
	if !errors.As(err, &f) || f.Outcome != want {
		t.Errorf("got error %v, want a failure %s", err, want)
		return
	}
	for _, word := range says {
		if !strings.Contains(f.Reason, word) {
			t.Errorf("got reason %q, want one that says %q", f.Reason, word)
		}
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("got the password in %q", err)
	}
}

// awaitChecks waits until the registry has been asked about n images.
func (b *bench) awaitChecks(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); b.reg.Count("HEAD ") < n; {
		if time.Now().After(deadline) {
			t.Errorf("got %d checks in 10 s, want %d", b.reg.Count("HEAD "), n)
			return
		}
		time.Sleep(time.Millisecond)
	}
}
