package docker_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"ecs/agent/runtime"
	"ecs/internal/task"
	"ecs/test/images"
	"ecs/test/registry"
)

// standIn serves a registry that only this machine sees.
func standIn(t *testing.T) (reg *registry.Registry, host string) {
	t.Helper()
	reg = registry.New()
	server, err := reg.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return reg, server.Host()
}

// push makes an image that no engine has yet, and removes it from the engine
// at the end.
func push(t *testing.T, c *client.Client, reg *registry.Registry, host, repo string, img registry.Image) (ref string) {
	t.Helper()
	img.Files = map[string][]byte{"/hello": fmt.Appendf(nil, "%s %d", repo, time.Now().UnixNano())}
	img.Cmd = []string{"/hello"}
	digest, err := reg.Push(repo, "1", img)
	if err != nil {
		t.Fatal(err)
	}
	ref = host + "/" + repo + "@" + digest
	t.Cleanup(func() {
		_, _ = c.ImageRemove(context.Background(), ref, image.RemoveOptions{Force: true, PruneChildren: true})
	})
	return ref
}

func TestPullBringsTheImageAndTellsItsProgress(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	reg, host := standIn(t)
	ref := push(t, c, reg, host, "team/app", registry.Image{})
	if _, err := r.Inspect(t.Context(), ref); !errors.Is(err, runtime.ErrNoImage) {
		t.Errorf("before: got %v, want ErrNoImage", err)
	}
	var steps atomic.Int32
	if err := r.Pull(t.Context(), ref, nil, func() { steps.Add(1) }); err != nil {
		t.Fatal(err)
	}
	if steps.Load() == 0 {
		t.Error("progress: got none, want some")
	}
	found, err := r.Inspect(t.Context(), ref)
	if err != nil || !strings.HasPrefix(found.ID, "sha256:") || !slices.Equal(found.RepoDigests, []string{ref}) || found.Platform != "linux/amd64" {
		t.Errorf("got %+v, %v; want the image with digest %s", found, err, ref)
	}
	// Neither its id nor a beginning of it names it.
	id := strings.TrimPrefix(found.ID, "sha256:")
	for _, name := range []string{id, found.ID, id[:1], id[:12]} {
		if got, err := r.Inspect(t.Context(), name); err == nil {
			t.Errorf("inspect %q: got %s, want none", name, got.ID)
		}
	}
}

func TestListNamesWhatIsTagged(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	names, err := r.List(t.Context())
	if err != nil || !slices.Contains(names, images.Prog) || slices.Contains(names, "<none>:<none>") {
		t.Errorf("got %v, %v; want %s among them and nothing nameless", names, err, images.Prog)
	}
	local, err := r.Inspect(t.Context(), images.Prog)
	if err != nil || len(local.RepoDigests) != 0 {
		t.Errorf("an image built here: got %+v, %v; want no registry's digest", local, err)
	}
}

func TestPullsThatFailSayWhy(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	reg, host := standIn(t)
	reg.RequireTokens(401)
	reg.AddUser("alice", "pw")
	reg.AddUser("bob", "pw")
	private := push(t, c, reg, host, "team/private", registry.Image{})
	reg.Private("team/private", "alice")
	broken := func(repo string, kind registry.Fault) string {
		ref := push(t, c, reg, host, repo, registry.Image{})
		reg.Fail(repo, kind, 1000)
		return ref
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	zero := "@sha256:" + strings.Repeat("0", 64)
	alice, bob := &task.RegistryAuth{Username: "alice", Password: "pw"}, &task.RegistryAuth{Username: "bob", Password: "pw"}
	for _, tt := range []struct {
		name, ref string
		auth      *task.RegistryAuth
		want      task.Outcome
	}{
		{"no such digest", host + "/team/app" + zero, nil, task.ImageNotFound},
		{"private, nobody", private, nil, task.ImageNotFound},
		{"private, somebody else", private, bob, task.ImageDenied},
		{"private, wrong password", private, &task.RegistryAuth{Username: "alice", Password: "no"}, task.ImageDenied},
		{"private, its owner", private, alice, ""},
		{"limits", broken("team/many", registry.TooMany), nil, task.ImageUnavailable},
		{"in trouble", broken("team/broken", registry.Broken), nil, task.ImageUnavailable},
		{"corrupt", broken("team/corrupt", registry.Corrupt), nil, task.ImageInvalid},
		{"hangs up", broken("team/hangup", registry.HangUp), nil, task.ImageUnavailable},
		{"nobody listens", closed.Addr().String() + "/team/app" + zero, nil, task.ImageUnavailable},
		{"no such host", "registry.invalid/team/app" + zero, nil, task.ImageUnavailable},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
		err := r.Pull(ctx, tt.ref, tt.auth, func() {})
		cancel()
		var f *runtime.Failure
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: got %v, want the image", tt.name, err)
		case tt.want != "" && (!errors.As(err, &f) || f.Outcome != tt.want):
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: %v: tells the password", tt.name, err)
		}
	}
}

func TestPullEndsWithItsContext(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	reg, host := standIn(t)
	ref := push(t, c, reg, host, "team/stalled", registry.Image{})
	reg.Fail("team/stalled", registry.StallBlob, 1000)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	began := time.Now()
	err := r.Pull(ctx, ref, nil, func() {})
	var f *runtime.Failure
	if !errors.As(err, &f) || f.Outcome != task.PullTimedOut {
		t.Errorf("got %v, want pull_timed_out", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %s, want about a second", took)
	}
	ctx, stop := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, stop)
	if err := r.Pull(ctx, ref, nil, func() {}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v, want the context's error", err)
	}
}
