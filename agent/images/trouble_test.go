package images

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
	"ecs/test/registry"
)

func TestPassingTroubleIsRetried(t *testing.T) {
	for _, kind := range []registry.Fault{registry.TooMany, registry.Broken, registry.HangUp} {
		b := newBench(t, nil)
		digest := b.push(t, "team/app", "1")
		b.reg.Fail("team/app", kind, 2)
		b.mustEnsure(t, "o", b.host+"/team/app:1", nil, digest)
	}
}

func TestTroubleThatStaysIsUnavailable(t *testing.T) {
	for _, c := range []struct {
		kind registry.Fault
		says string
	}{{registry.TooMany, "429"}, {registry.Broken, "500"}, {registry.HangUp, "broke"}} {
		b := newBench(t, nil)
		b.push(t, "team/app", "1")
		b.reg.Fail("", c.kind, 0)
		began := time.Now()
		_, err := b.ensure(t, "o", b.host+"/team/app:1", nil)
		wantFailure(t, err, task.ImageUnavailable, c.says, b.host)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("got the answer after %s, want it within 5 s", took)
		}
	}
}

func TestAnUnreachableRegistryIsToldWithinSeconds(t *testing.T) {
	b := newBench(t, nil)
	b.close()
	for _, ref := range []string{b.host + "/team/app:1", "no-such-host.invalid/team/app:1", "169.254.169.254/latest/meta-data:1"} {
		began := time.Now()
		_, err := b.ensure(t, "o", ref, alice)
		wantFailure(t, err, task.ImageUnavailable, ref)
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("%s: got the answer after %s, want it within 6 s", ref, took)
		}
	}
}

func TestARegistryThatIsNoneIsNotAMissingImage(t *testing.T) {
	b := newBench(t, nil)
	b.push(t, "team/app", "1")
	b.reg.Fail("", registry.NotARegistry, 0)
	_, err := b.ensure(t, "o", b.host+"/team/app:1", nil)
	wantFailure(t, err, task.ImageUnavailable, "404")
	if strings.Contains(err.Error(), "internal page") {
		t.Errorf("got the page of some web server in %q", err)
	}
}

func TestARegistryWithoutHeadIsAskedByGet(t *testing.T) {
	b := newBench(t, nil)
	digest := b.push(t, "team/app", "1")
	b.reg.Fail("team/app", registry.NoHead, 0)
	b.mustEnsure(t, "o", b.host+"/team/app:1", nil, digest)
}

func TestASilentRegistryIsUnavailableOrTooLate(t *testing.T) {
	b := newBench(t, func(c *Config) { c.AnswerWithin = 50 * time.Millisecond })
	b.push(t, "team/app", "1")
	b.reg.Fail("", registry.Stall, 0)
	_, err := b.ensure(t, "o", b.host+"/team/app:1", nil)
	wantFailure(t, err, task.ImageUnavailable, "in time")

	slow := b.images(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = slow.Ensure(ctx, Request{Ref: b.host + "/team/app:1", Owner: "o"})
	wantFailure(t, err, task.PullTimedOut, "timeouts.pull", b.host)

	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err = slow.Ensure(ctx, Request{Ref: b.host + "/team/app:1", Owner: "o"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the cancellation", err)
	}
}

func TestImagesForOthersOrTooLargeAreRefusedBeforeThePull(t *testing.T) {
	b := newBench(t, func(c *Config) { c.MaxBytes = 100_000 })
	noise := make([]byte, 200_000) // does not compress
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	push := func(tag string, images ...registry.Image) string {
		digest, err := b.reg.PushIndex("team/app", tag, images...)
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	arm := registry.Image{Platform: "linux/arm64", Files: map[string][]byte{"/a": {1}}}
	amd := registry.Image{Platform: "linux/amd64", Files: map[string][]byte{"/a": {2}}}
	large := registry.Image{Platform: "linux/amd64", Files: map[string][]byte{"/a": noise}}
	push("arm", arm)
	digest := push("both", arm, amd)
	push("large", arm, large)

	_, err := b.ensure(t, "o", b.host+"/team/app:arm", nil)
	wantFailure(t, err, task.ImageInvalid, "linux/amd64", "linux/arm64")
	_, err = b.ensure(t, "o", b.host+"/team/app:large", nil)
	wantFailure(t, err, task.ImageInvalid, "larger")
	if b.store.pulled() != 0 {
		t.Errorf("got pulls %v, want none", b.store.pulls)
	}
	b.mustEnsure(t, "o", b.host+"/team/app:both", nil, digest)
}

func TestAPlainImageForOthersIsRefusedAfterThePull(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Platform = "linux/arm64/v8" })
	b.push(t, "team/app", "1") // the store says linux/amd64
	_, err := b.ensure(t, "o", b.host+"/team/app:1", nil)
	wantFailure(t, err, task.ImageInvalid, "linux/amd64", "linux/arm64")
}

func TestACorruptPullIsTriedTwice(t *testing.T) {
	b := newBench(t, nil)
	digest := b.push(t, "team/app", "1")
	bad := 1
	b.store.onPull = func(context.Context, string, *task.RegistryAuth, func()) error {
		if bad--; bad < 0 {
			return nil
		}
		return &runtime.Failure{Outcome: task.ImageInvalid, Reason: "bad bytes"}
	}
	b.mustEnsure(t, "o", b.host+"/team/app:1", nil, digest)
	bad = 5
	b.push(t, "team/app", "2")
	_, err := b.ensure(t, "o", b.host+"/team/app:2", nil)
	wantFailure(t, err, task.ImageInvalid, "bad bytes")
	if b.store.pulled() != 4 {
		t.Errorf("got %d pulls, want twice two", b.store.pulled())
	}
}

func TestTheEnginesOwnTroubleIsNotTheRegistrys(t *testing.T) {
	b := newBench(t, nil)
	b.push(t, "team/app", "1")
	b.store.broken = errors.New("engine is on fire")
	_, err := b.ensure(t, "o", b.host+"/team/app:1", nil)
	var f *runtime.Failure
	if !errors.Is(err, b.store.broken) || errors.As(err, &f) {
		t.Errorf("got %v, want the engine's error and no failure", err)
	}
}
