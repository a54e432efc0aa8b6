package images

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"ecs/agent/runtime"
	"ecs/internal/task"
	"ecs/test/registry"
)

// bubble runs do with a registry that is reached without a real network, so
// that time is the bubble's.
func bubble(t *testing.T, do func(t *testing.T, b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{reg: registry.New(), host: "registry.test", store: newStore(), log: &bytes.Buffer{}}
		b.reg.AddUser("alice", secret)
		l := bufconn.Listen(1 << 16)
		server := &http.Server{Handler: b.reg, ErrorLog: log.New(io.Discard, "", 0)}
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		b.close = sync.OnceFunc(func() { _ = server.Close(); <-served })
		b.Images = b.images(t, func(c *Config) { c.Insecure = []string{"registry.test"} })
		b.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := l.DialContext(ctx)
			if err != nil {
				return nil, &net.OpError{Op: "dial", Err: err}
			}
			return conn, nil
		}
		b.transport.http.DialContext = b.dial
		do(t, b)
		b.Images.Close()
		b.close()
		synctest.Wait()
	})
}

func TestPermissionIsAskedForAgainAfterAMinute(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		first := b.push(t, "team/app", "1")
		ref := b.host + "/team/app:1"
		b.mustEnsure(t, "o", ref, nil, first)
		second, err := b.reg.Push("team/app", "1", registry.Image{Files: map[string][]byte{"/new": {1}}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(Fresh - time.Second)
		b.mustEnsure(t, "o", ref, nil, first)
		if n := b.reg.Count("HEAD "); n != 1 {
			t.Errorf("got %d checks within a minute, want 1", n)
		}
		time.Sleep(2 * time.Second)
		b.mustEnsure(t, "o", ref, nil, second)
	})
}

func TestPermissionThatIsTakenBackEnds(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.reg.RequireTokens(401)
		b.push(t, "team/app", "1")
		b.reg.Private("team/app", "alice")
		ref := b.host + "/team/app:1"
		if _, err := b.ensure(t, "o", ref, alice); err != nil {
			t.Fatal(err)
		}
		b.reg.Private("team/app")
		time.Sleep(Fresh + time.Second)
		_, err := b.ensure(t, "o", ref, alice)
		wantFailure(t, err, task.ImageDenied)
		// And no outage brings it back.
		b.close()
		_, err = b.ensure(t, "o", ref, alice)
		wantFailure(t, err, task.ImageUnavailable)
	})
}

func TestAnOutageIsBridgedForAnHourAndForTheSameCallerOnly(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		digest := b.push(t, "team/app", "1")
		ref := b.host + "/team/app:1"
		b.mustEnsure(t, "o", ref, nil, digest)
		b.reg.Fail("", registry.Broken, 0)
		time.Sleep(Stale - time.Minute)
		b.mustEnsure(t, "o", ref, nil, digest)
		_, err := b.ensure(t, "other", ref, nil)
		wantFailure(t, err, task.ImageUnavailable)

		// For a while the registry is not asked at every task.
		before := len(b.reg.Requests())
		began := time.Now()
		b.mustEnsure(t, "o", ref, nil, digest)
		if n := len(b.reg.Requests()) - before; n != 0 || time.Since(began) > 0 {
			t.Errorf("got %d requests and %s for the next task, want none", n, time.Since(began))
		}
		// An image that is gone from the engine can't be bridged.
		b.store.mu.Lock()
		kept := b.store.images
		b.store.images = map[string]runtime.StoredImage{}
		b.store.mu.Unlock()
		time.Sleep(staleStep)
		_, err = b.ensure(t, "o", ref, nil)
		wantFailure(t, err, task.ImageUnavailable)
		b.store.mu.Lock()
		b.store.images = kept
		b.store.mu.Unlock()

		time.Sleep(time.Minute)
		_, err = b.ensure(t, "o", ref, nil)
		wantFailure(t, err, task.ImageUnavailable)
		b.reg.Fail("", registry.None, 0)
		b.mustEnsure(t, "o", ref, nil, digest)
	})
}

func TestAPullWithoutBytesIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.push(t, "team/app", "1")
		b.store.onPull = func(ctx context.Context, _ string, _ *task.RegistryAuth, progress func()) error {
			for range 5 { // slow, but alive
				time.Sleep(50 * time.Second)
				progress()
			}
			<-ctx.Done()
			return ctx.Err()
		}
		began := time.Now()
		_, err := b.ensure(t, "o", b.host+"/team/app:1", nil)
		wantFailure(t, err, task.ImageUnavailable, "no byte for 1m0s")
		if took := time.Since(began); took != 310*time.Second {
			t.Errorf("got given up after %s, want 5m10s", took)
		}
		if b.store.pulled() != 1 {
			t.Errorf("got %d pulls, want 1", b.store.pulled())
		}
	})
}

func TestAPullLivesAsLongAsSomebodyWaits(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		digest := b.push(t, "team/app", "1")
		ref := b.host + "/team/app:1"
		var ended error
		b.store.onPull = func(ctx context.Context, _ string, _ *task.RegistryAuth, _ func()) error {
			select {
			case <-time.After(30 * time.Second):
			case <-ctx.Done():
				ended = ctx.Err()
			}
			return ended
		}
		wait := func(limit time.Duration) (chan error, context.CancelFunc) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			done := make(chan error, 1)
			go func() {
				_, err := b.Ensure(ctx, Request{Ref: ref, Owner: "o"})
				done <- err
			}()
			return done, cancel
		}
		first, cancelFirst := wait(time.Hour)
		synctest.Wait()
		second, cancelSecond := wait(10 * time.Second)
		defer cancelSecond()
		third, cancelThird := wait(time.Hour)
		defer cancelThird()
		time.Sleep(5 * time.Second)
		cancelFirst() // who began it leaves
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v for the one who left, want his cancellation", err)
		}
		wantFailure(t, <-second, task.PullTimedOut)
		if err := <-third; err != nil || ended != nil {
			t.Errorf("got %v and the pull ended by %v, want the image", err, ended)
		}
		if b.store.pulled() != 1 {
			t.Errorf("got %d pulls, want 1", b.store.pulled())
		}

		// When all leave, the pull ends before they do.
		b.store.mu.Lock()
		delete(b.store.images, b.host+"/team/app@"+digest)
		b.store.mu.Unlock()
		last, cancelLast := wait(10 * time.Second)
		defer cancelLast()
		wantFailure(t, <-last, task.PullTimedOut)
		if !errors.Is(ended, context.Canceled) {
			t.Errorf("got the pull ended by %v, want its context", ended)
		}
	})
}

func TestARegistryWithoutTLSMustBeAllowed(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		digest := b.push(t, "team/app", "1")
		strict := b.images(t, nil)
		strict.transport.http.DialContext = b.dial
		_, err := strict.Ensure(t.Context(), Request{Ref: b.host + "/team/app:1", Auth: alice})
		wantFailure(t, err, task.ImageUnavailable, "does not speak TLS")
		if n := len(b.reg.Requests()); n != 0 {
			t.Errorf("got %d requests in the clear, want none", n)
		}
		b.mustEnsure(t, "o", b.host+"/team/app:1", nil, digest)
	})
}

func TestCredentialsNeverLeaveInTheClear(t *testing.T) {
	tr := newTransport(Config{}.withDefaults())
	for _, url := range []string{"http://10.0.0.1/v2/", "http://registry.test:80/v2/"} {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tr.RoundTrip(req); !errors.Is(err, errPlain) {
			t.Errorf("%s: got %v, want errPlain", url, err)
		}
	}
}

func TestLinkLocalAddressesAreRefused(t *testing.T) {
	for address, want := range map[string]error{
		"169.254.169.254:80": errLinkLocal, "[fe80::1]:443": errLinkLocal, "[::ffff:169.254.169.254]:80": errLinkLocal,
		"10.0.0.1:443": nil, "127.0.0.1:5000": nil, "[2001:db8::1]:443": nil,
	} {
		if err := refuseLinkLocal(t.Context(), "tcp", address, nil); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", address, err, want)
		}
	}
}
