package docker_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"ecs/agent/runtime"
	"ecs/agent/runtime/docker"
	"ecs/internal/task"
	"ecs/internal/telemetry"
	"ecs/test/images"
)

// gate stands between a runtime and the engine, to break what a test wants
// broken.
type gate struct {
	host string
	stop context.CancelFunc // as when the engine dies
	// fault, when set, sees every request first and reports whether it dealt
	// with it.
	fault atomic.Pointer[func(pass http.Handler, w http.ResponseWriter, r *http.Request) bool]
}

func newGate(t *testing.T, c *client.Client) *gate {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "e.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{host: "unix://" + socket}
	engine, err := client.ParseHostURL(c.DaemonHost())
	if err != nil {
		t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: client.DummyHost})
	pass.FlushInterval = -1
	pass.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	pass.Transport = &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, engine.Scheme, engine.Host+engine.Path)
		}}
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    pass.ErrorLog,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if f := g.fault.Load(); f != nil && (*f)(pass, w, r) {
				return
			}
			pass.ServeHTTP(w, r)
		}),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	g.stop = func() { cancel(); server.Close() }
	t.Cleanup(func() { g.stop(); <-served })
	return g
}

func (g *gate) spoil(f func(pass http.Handler, w http.ResponseWriter, r *http.Request) bool) {
	g.fault.Store(&f)
}

func (g *gate) runtime(t *testing.T, cluster string) *docker.Runtime {
	r := docker.New(docker.Config{Host: g.host, Cluster: cluster, Node: "n1",
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Metrics: telemetry.Discard()})
	t.Cleanup(func() { r.Close(context.Background()) })
	return r
}

// started runs a program that goes on until something ends it, and waits until
// it has written.
func started(t *testing.T, r *docker.Runtime, o runtime.Order) runtime.Container {
	t.Helper()
	up := make(chan struct{}, 1)
	o.Output = runtime.Sink{Stdout: writerFunc(func(b []byte) {
		select {
		case up <- struct{}{}:
		default:
		}
	}), Stderr: io.Discard}
	made, err := r.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-up
	return made
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

func sleeper(t *testing.T, c *client.Client) runtime.Order {
	return orderOf(imageOf(t, c, images.Prog), task.Spec{Command: []string{"prog", "print", "up", ";", "sleep", "2m"}})
}

// gone fails the test unless no process of the container is left.
func gone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("process %d still runs", pid)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestLostEngineInterruptsAndLeavesNothingRunning(t *testing.T) {
	c := engine(t)
	g := newGate(t, c)
	o := sleeper(t, c)
	made := started(t, g.runtime(t, newCluster(t, c)), o)
	pid := inspect(t, c, o.Token).State.Pid
	g.stop()
	exit, err := made.Wait(t.Context())
	if err != nil || exit.Interrupted == "" {
		t.Errorf("got %+v, %v; want interrupted", exit, err)
	}
	gone(t, pid)
}

func TestBrokenWaitIsTakenUpAgain(t *testing.T) {
	c := engine(t)
	g := newGate(t, c)
	var broken atomic.Int32
	cut := make(chan struct{})
	g.spoil(func(pass http.Handler, w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/wait") || broken.Add(1) > 1 {
			return false
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		go func() { <-cut; cancel() }()
		pass.ServeHTTP(w, r.WithContext(ctx))
		return true
	})
	o := orderOf(imageOf(t, c, images.Prog), task.Spec{Command: []string{"prog", "print", "up", ";", "sleep", "2s", ";", "exit", "9"}})
	made := started(t, g.runtime(t, newCluster(t, c)), o)
	close(cut)
	exit, err := made.Wait(t.Context())
	if err != nil || exit.Code != 9 || exit.Interrupted != "" {
		t.Errorf("got %+v, %v; want code 9", exit, err)
	}
	if n := broken.Load(); n != 2 {
		t.Errorf("waits: got %d, want 2", n)
	}
	if err := made.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestProgramThatOutlivesItsOutputStreamIsEnded(t *testing.T) {
	c := engine(t)
	g := newGate(t, c)
	cut := make(chan struct{})
	g.spoil(func(pass http.Handler, w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/attach") {
			return false
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		go func() { <-cut; cancel() }()
		pass.ServeHTTP(w, r.WithContext(ctx))
		return true
	})
	o := sleeper(t, c)
	made := started(t, g.runtime(t, newCluster(t, c)), o)
	pid := inspect(t, c, o.Token).State.Pid
	close(cut)
	exit, err := made.Wait(t.Context())
	if err != nil || !strings.Contains(exit.Interrupted, "output stream broke") {
		t.Errorf("got %+v, %v; want interrupted by its stream", exit, err)
	}
	gone(t, pid)
	if err := made.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestKillDoesNotNeedTheEngine(t *testing.T) {
	c := engine(t)
	g := newGate(t, c)
	o := sleeper(t, c)
	r := g.runtime(t, newCluster(t, c))
	made := started(t, r, o)
	pid := inspect(t, c, o.Token).State.Pid
	g.spoil(func(_ http.Handler, w http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done() // the engine hangs
		return true
	})
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := made.Kill(ctx); err != nil {
		t.Errorf("kill: %v", err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("kill took %s", took)
	}
	gone(t, pid)
}

func TestCreateWhoseAnswerIsLostLeavesNothing(t *testing.T) {
	c := engine(t)
	g := newGate(t, c)
	cluster := newCluster(t, c)
	r := g.runtime(t, cluster)
	g.spoil(func(pass http.Handler, w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/containers/create") {
			return false
		}
		pass.ServeHTTP(discarding{http.Header{}}, r)
		panic(http.ErrAbortHandler)
	})
	o := sleeper(t, c)
	var f *runtime.Failure
	if _, err := r.Create(t.Context(), o); err == nil || errors.As(err, &f) {
		t.Errorf("got %v, want an error of the engine's", err)
	}
	left, err := c.ContainerList(t.Context(), container.ListOptions{All: true, Filters: of(cluster, "n1")})
	if err != nil || len(left) != 0 {
		t.Errorf("left: got %d, %v; want none", len(left), err)
	}
}

// discarding is an answer that nobody gets.
type discarding struct{ h http.Header }

func (d discarding) Header() http.Header         { return d.h }
func (d discarding) Write(b []byte) (int, error) { return len(b), nil }
func (d discarding) WriteHeader(int)             {}

func TestRemovalIsTriedAgain(t *testing.T) {
	c := engine(t)
	g := newGate(t, c)
	cluster := newCluster(t, c)
	var refusals atomic.Int32
	g.spoil(func(_ http.Handler, w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodDelete || refusals.Add(1) > 3 {
			return false
		}
		http.Error(w, `{"message":"device or resource busy"}`, http.StatusInternalServerError)
		return true
	})
	if res := runOrder(t, g.runtime(t, cluster), orderOf(imageOf(t, c, images.Prog), task.Spec{Command: []string{"prog", "exit", "0"}})); res.err != nil {
		t.Error(res.err)
	}
	if n := refusals.Load(); n != 4 {
		t.Errorf("removals: got %d, want 4", n)
	}
}

func TestEngineThatIsNotThere(t *testing.T) {
	for _, host := range []string{"unix:///nonexistent/engine.sock", "no such address"} {
		r := docker.New(docker.Config{Host: host, Cluster: "c", Node: "n", Log: slog.New(slog.DiscardHandler), Metrics: telemetry.Discard()})
		if _, err := r.Probe(t.Context()); err == nil {
			t.Errorf("%s: probe: got none, want an error", host)
		}
		var f *runtime.Failure
		_, err := r.Create(t.Context(), orderOf(runtime.Image{ID: "sha256:" + strings.Repeat("0", 64)}, task.Spec{Command: []string{"x"}}))
		if err == nil || errors.As(err, &f) {
			t.Errorf("%s: create: got %v, want an error of the engine's", host, err)
		}
		if _, err := r.Inspect(t.Context(), "busybox"); err == nil || errors.Is(err, runtime.ErrNoImage) {
			t.Errorf("%s: inspect: got %v, want an error of the engine's", host, err)
		}
		if err := r.Pull(t.Context(), "busybox@sha256:"+strings.Repeat("0", 64), nil, func() {}); err == nil || errors.As(err, &f) {
			t.Errorf("%s: pull: got %v, want an error of the engine's", host, err)
		}
		if _, err := r.Reap(t.Context(), func(task.Token) bool { return false }); err == nil {
			t.Errorf("%s: reap: got none, want an error", host)
		}
	}
}

func TestSignalFromOutsideInterrupts(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	for signal, code := range map[string]int{"TERM": 143, "KILL": 137} {
		o := sleeper(t, c)
		made := started(t, r, o)
		if err := c.ContainerKill(t.Context(), nameOf(o.Token), signal); err != nil {
			t.Fatal(err)
		}
		exit, err := made.Wait(t.Context())
		if err != nil || exit.Code != code || !strings.Contains(exit.Interrupted, "SIG"+signal) {
			t.Errorf("%s: got %+v, %v; want code %s and interrupted by it", signal, exit, err, strconv.Itoa(code))
		}
		if err := made.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
	// Somebody asks it to end, and it does so on its own terms.
	o := orderOf(imageOf(t, c, images.Prog), task.Spec{Command: []string{"prog", "trap", "1m", ";", "exit", "4"}})
	made := started(t, r, o)
	if err := c.ContainerKill(t.Context(), nameOf(o.Token), "TERM"); err != nil {
		t.Fatal(err)
	}
	exit, err := made.Wait(t.Context())
	if err != nil || exit.Code != 4 || exit.Interrupted != "" {
		t.Errorf("a program that handles it: got %+v, %v; want code 4", exit, err)
	}
	if err := made.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestEveryCallEndsWithItsContext(t *testing.T) {
	c := engine(t)
	cluster := newCluster(t, c)
	for _, hangs := range []string{"/create", "/attach", "/wait", "/start", "/kill"} {
		g := newGate(t, c)
		g.spoil(func(_ http.Handler, w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, hangs) {
				return false
			}
			<-r.Context().Done()
			return true
		})
		r := g.runtime(t, cluster)
		o := sleeper(t, c)
		o.Output = runtime.Sink{Stdout: io.Discard, Stderr: io.Discard}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		began := time.Now()
		made, err := r.Create(ctx, o)
		if err == nil {
			if err = made.Start(ctx); err == nil {
				err = made.Kill(ctx)
			}
		}
		cancel()
		// A kill is seen to without the engine.
		if (err == nil) != (hangs == "/kill") {
			t.Errorf("%s hangs: got %v, want an error", hangs, err)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("%s hangs: took %s", hangs, took)
		}
		if made != nil {
			if err := made.Remove(t.Context()); err != nil {
				t.Errorf("%s hangs: remove: %v", hangs, err)
			}
		}
	}
	left, err := c.ContainerList(t.Context(), container.ListOptions{All: true, Filters: of(cluster, "n1")})
	if err != nil || len(left) != 0 {
		t.Errorf("left: got %d, %v; want none", len(left), err)
	}
}
