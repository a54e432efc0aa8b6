package images

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

func TestAGiftNeedsNoRegistry(t *testing.T) {
	b := newBench(t, nil)
	b.store.images["docker.io/library/mine:1"] = runtime.StoredImage{ID: "sha256:abc", Platform: "linux/amd64"}
	for _, ref := range []string{"mine:1", "docker.io/library/mine:1", "library/mine:1"} {
		b.mustEnsure(t, "anybody", ref, nil, "sha256:abc")
	}
	if n := len(b.reg.Requests()); n != 0 {
		t.Errorf("got %d registry requests, want none", n)
	}
	if n := len(b.store.asked); n != 3 {
		t.Errorf("got %d engine calls for three tasks, want one each", n)
	}
}

func TestAGiftThatIsGoneIsNoticedAtOnce(t *testing.T) {
	b := newBench(t, nil)
	ref := b.host + "/mine:1"
	b.store.images[ref] = runtime.StoredImage{ID: "sha256:abc"}
	b.mustEnsure(t, "o", ref, nil, "sha256:abc")
	delete(b.store.images, ref)
	_, err := b.ensure(t, "o", ref, nil)
	wantFailure(t, err, task.ImageNotFound)
}

func TestDenyLocalRefusesGifts(t *testing.T) {
	b := newBench(t, func(c *Config) { c.DenyLocal = true })
	ref := b.host + "/mine:1"
	b.store.images[ref] = runtime.StoredImage{ID: "sha256:abc"}
	_, err := b.ensure(t, "o", ref, nil)
	wantFailure(t, err, task.ImageNotFound, ref, b.host)
}

// An image that was pulled by somebody, under its own tag, is no gift.
func TestAnImageWithARegistryDigestIsCheckedForEveryCaller(t *testing.T) {
	b := newBench(t, nil)
	b.reg.RequireTokens(401)
	digest := b.push(t, "team/app", "1")
	b.reg.Private("team/app", "alice")
	ref := b.host + "/team/app:1"
	b.store.images[ref] = runtime.StoredImage{ID: "sha256:abc", RepoDigests: []string{b.host + "/team/app@" + digest}}
	_, err := b.ensure(t, "o", ref, nil)
	wantFailure(t, err, task.ImageNotFound)
	b.mustEnsure(t, "a", ref, alice, digest)
}

func TestAPublicImageIsPulledOnceByDigest(t *testing.T) {
	b := newBench(t, nil)
	digest := b.push(t, "team/app", "1")
	ref := b.host + "/team/app:1"
	b.mustEnsure(t, "o", ref, nil, digest)
	before := len(b.reg.Requests())
	b.mustEnsure(t, "o", ref, nil, digest)
	if got := b.reg.Requests()[before:]; len(got) != 0 {
		t.Errorf("got requests %v for the second task, want none", got)
	}
	if want := []string{b.host + "/team/app@" + digest}; !slices.Equal(b.store.pulls, want) {
		t.Errorf("got pulls %v, want %v", b.store.pulls, want)
	}
}

func TestMissingAndHiddenImages(t *testing.T) {
	const private = "missing or private; pass registry credentials (creds / registry_auth)"
	for _, c := range []struct {
		name   string
		hideAs int
		tokens bool
		ref    string
		auth   *task.RegistryAuth
		want   task.Outcome
		says   string
	}{
		{"says so", 0, false, "xubuntu:latest", nil, task.ImageNotFound, "has no image"},
		{"says so to anybody", 0, true, "xubuntu:latest", nil, task.ImageNotFound, "has no image"},
		{"says so of a tag", 0, false, "team/app:2", nil, task.ImageNotFound, "has no image"},
		{"says so of a digest", 0, false, "team/app@sha256:" + strings.Repeat("0", 64), nil, task.ImageNotFound, "has no image"},
		{"hides behind 401", 401, true, "xubuntu:latest", nil, task.ImageNotFound, private},
		{"hides behind 403", 403, true, "xubuntu:latest", nil, task.ImageNotFound, private},
		{"hides what is private behind 401", 401, true, "team/secret:1", nil, task.ImageNotFound, private},
		{"hides what is private behind 403", 403, true, "team/secret:1", nil, task.ImageNotFound, private},
		{"missing tag of a public image", 401, true, "team/app:2", nil, task.ImageNotFound, "has no image"},
		{"wrong password", 401, true, "team/secret:1", wrong, task.ImageDenied, "registry_auth"},
		{"wrong password for a missing image", 403, true, "xubuntu:latest", wrong, task.ImageDenied, "registry_auth"},
		{"another's password, 401", 401, true, "team/secret:1", bob, task.ImageDenied, "registry_auth"},
		{"another's password, 403", 403, true, "team/secret:1", bob, task.ImageDenied, "registry_auth"},
		{"a name without a password", 401, true, "team/secret:1", &task.RegistryAuth{Username: "alice"}, task.ImageNotFound, private},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, nil)
			if c.tokens {
				b.reg.RequireTokens(c.hideAs)
			}
			b.push(t, "team/app", "1")
			b.push(t, "team/secret", "1")
			b.reg.Private("team/secret", "alice")
			ref := b.host + "/" + c.ref
			_, err := b.ensure(t, "o", ref, c.auth)
			wantFailure(t, err, c.want, c.says, ref, b.host)
			if b.store.pulled() != 0 {
				t.Error("got a pull without permission")
			}
			if strings.Contains(b.log.String(), secret) {
				t.Error("got the password in the log")
			}
		})
	}
}

func TestAPrivateImageOfOneCallerIsNotAnothers(t *testing.T) {
	b := newBench(t, nil)
	b.reg.RequireTokens(401)
	digest := b.push(t, "team/secret", "1")
	b.reg.Private("team/secret", "alice")
	tag, byDigest := b.host+"/team/secret:1", b.host+"/team/secret@"+digest
	b.mustEnsure(t, "a", tag, alice, digest)
	b.mustEnsure(t, "a", byDigest, alice, digest)
	for _, ref := range []string{tag, byDigest} {
		_, err := b.ensure(t, "b", ref, nil)
		wantFailure(t, err, task.ImageNotFound, "missing or private")
		_, err = b.ensure(t, "b", ref, bob)
		wantFailure(t, err, task.ImageDenied)
		_, err = b.ensure(t, "a", ref, wrong)
		wantFailure(t, err, task.ImageDenied)
		_, err = b.ensure(t, "a", ref, nil) // the same owner, without a password
		wantFailure(t, err, task.ImageNotFound)
	}
	// Another owner with alice's password is checked for himself.
	before := b.reg.Count("HEAD /v2/team/secret/manifests/")
	b.mustEnsure(t, "c", tag, alice, digest)
	if got := b.reg.Count("HEAD /v2/team/secret/manifests/") - before; got != 1 {
		t.Errorf("got %d checks for another owner, want 1", got)
	}
	if b.store.pulled() != 1 {
		t.Errorf("got %d pulls, want 1", b.store.pulled())
	}
}

func TestTasksAtOnceShareCheckAndPull(t *testing.T) {
	b := newBench(t, nil)
	digest := b.push(t, "team/app", "1")
	ref := b.host + "/team/app:1"
	held := make(chan struct{})
	b.store.onPull = func(context.Context, string, *task.RegistryAuth, func()) error { <-held; return nil }
	const owners, each = 5, 100
	var all sync.WaitGroup
	for n := range owners * each {
		all.Go(func() { b.mustEnsure(t, fmt.Sprint("owner", n%owners), ref, nil, digest) })
	}
	b.awaitChecks(t, owners)
	close(held)
	all.Wait()
	if got := b.reg.Count("HEAD "); got != owners {
		t.Errorf("got %d checks, want one for each of %d owners", got, owners)
	}
	if b.store.pulled() != 1 {
		t.Errorf("got %d pulls, want 1", b.store.pulled())
	}
}

func TestACallersPullFailureIsHisOwn(t *testing.T) {
	b := newBench(t, nil)
	digest := b.push(t, "team/app", "1")
	ref := b.host + "/team/app:1"
	entered, release := make(chan struct{}), make(chan struct{})
	b.store.onPull = func(_ context.Context, _ string, auth *task.RegistryAuth, _ func()) error {
		if auth.Username != "alice" {
			return nil
		}
		close(entered)
		<-release
		return &runtime.Failure{Outcome: task.ImageDenied, Reason: "alice owes money"}
	}
	var all sync.WaitGroup
	all.Go(func() {
		_, err := b.ensure(t, "a", ref, alice)
		wantFailure(t, err, task.ImageDenied, "registry_auth")
		if !strings.Contains(err.Error(), "alice owes money") {
			t.Errorf("got %v, want what the engine said in it", err)
		}
	})
	<-entered
	all.Go(func() { b.mustEnsure(t, "b", ref, bob, digest) })
	b.awaitChecks(t, 2)
	close(release)
	all.Wait()
}

func TestPullsAreFewAtOnce(t *testing.T) {
	b := newBench(t, nil)
	var mu sync.Mutex
	now, most := 0, 0
	two, release := make(chan struct{}), make(chan struct{})
	b.store.onPull = func(context.Context, string, *task.RegistryAuth, func()) error {
		mu.Lock()
		if now++; now == 2 && most < 2 {
			close(two)
		}
		most = max(most, now)
		mu.Unlock()
		<-release
		mu.Lock()
		now--
		mu.Unlock()
		return nil
	}
	var all sync.WaitGroup
	for n := range 10 {
		digest := b.push(t, fmt.Sprint("app", n), "1")
		all.Go(func() { b.mustEnsure(t, "o", fmt.Sprintf("%s/app%d:1", b.host, n), nil, digest) })
	}
	<-two
	b.awaitChecks(t, 10) // everybody wants to pull by now
	close(release)
	all.Wait()
	if most != 2 {
		t.Errorf("got %d pulls at once, want 2", most)
	}
}

func TestAnImageThatVanishesIsPulledAgain(t *testing.T) {
	b := newBench(t, nil)
	digest := b.push(t, "team/app", "1")
	ref := b.host + "/team/app:1"
	b.mustEnsure(t, "o", ref, nil, digest)
	delete(b.store.images, b.host+"/team/app@"+digest)
	b.mustEnsure(t, "o", ref, nil, digest)
	if b.store.pulled() != 2 {
		t.Errorf("got %d pulls, want 2", b.store.pulled())
	}
}

func TestShortNamesGoToTheDefaultRegistry(t *testing.T) {
	b := newBench(t, nil)
	b.Images = b.images(t, func(c *Config) { c.DefaultRegistry = b.host })
	plain, deep := b.push(t, "xubuntu", "latest"), b.push(t, "team/app", "1")
	b.mustEnsure(t, "o", "xubuntu:latest", nil, plain)
	b.mustEnsure(t, "o", "xubuntu", nil, plain)
	b.mustEnsure(t, "o", "xubuntu@"+plain, nil, plain)
	b.mustEnsure(t, "o", "team/app:1", nil, deep)
	_, err := b.ensure(t, "o", "missing:latest", nil)
	wantFailure(t, err, task.ImageNotFound, b.host, "missing:latest")
	// What was built on the machine under a short name is still a gift.
	b.store.images["docker.io/library/built:1"] = runtime.StoredImage{ID: "sha256:b"}
	b.mustEnsure(t, "o", "built:1", nil, "sha256:b")
}

func TestPresentNamesWhatTasksMayWrite(t *testing.T) {
	b := newBench(t, nil)
	digest := b.push(t, "team/app", "1")
	b.mustEnsure(t, "o", b.host+"/team/app:1", nil, digest)
	b.store.tags = []string{"mine:1", "<none>:<none>", "quay.io/x/y:2"}
	got := b.Present(t.Context())
	for _, want := range []string{"mine:1", "docker.io/library/mine:1", "quay.io/x/y:2", b.host + "/team/app:1"} {
		if !slices.Contains(got, want) {
			t.Errorf("got %v, want %s in it", got, want)
		}
	}
	if !slices.IsSorted(got) {
		t.Errorf("got %v, want it sorted", got)
	}
}
