package docker_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
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
	"ecs/internal/initwire"
	"ecs/internal/task"
	"ecs/internal/telemetry"
	"ecs/test/images"
)

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

// Neither output nor exit need the engine, so its absence ends no program. What
// ends meanwhile is not taken at its word: the engine may have told it to.
func TestLostEngineEndsNothing(t *testing.T) {
	c := engine(t)
	g := newGate(t, c)
	o := sleeper(t, c)
	cluster := newCluster(t, c)
	made := started(t, g.runtime(t, cluster), o)
	pid := inspect(t, c, o.Token).State.Pid
	g.stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if exit, err := made.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %+v, %v; want it to run on", exit, err)
	}
	if err := made.Signal(t.Context(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit, err := made.Wait(t.Context()); err != nil || exit.Interrupted == "" {
		t.Errorf("got %+v, %v; want interrupted", exit, err)
	}
	if err := made.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if n, err := docker.Cleanup(t.Context(), c, cluster); err != nil || n != 1 {
		t.Errorf("clean up: got %d, %v; want 1", n, err)
	}
	gone(t, pid)
}

// An exit that only the engine reports is the program's own doing, unless it is
// another engine that reports it.
func TestContainerThatEndsWithoutAWord(t *testing.T) {
	c := engine(t)
	for _, cut := range []bool{false, true} {
		g := newGate(t, c)
		o := sleeper(t, c)
		made := started(t, g.runtime(t, newCluster(t, c)), o)
		if cut {
			g.cut()
		}
		if err := syscall.Kill(inspect(t, c, o.Token).State.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		exit, err := made.Wait(t.Context())
		if err != nil || exit.Code != 137 || exit.OOMKilled || (exit.Interrupted != "") != cut {
			t.Errorf("engine came anew: %v: got %+v, %v; want code 137", cut, exit, err)
		}
		if err := made.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// Exit comes by itself: an engine that hangs holds up nobody.
func TestExitDoesNotWaitForTheEngine(t *testing.T) {
	c := engine(t)
	g := newGate(t, c)
	o := orderOf(imageOf(t, c, images.Prog), task.Spec{Command: []string{"prog", "print", "up", ";", "sleep", "300ms", ";", "exit", "9"}})
	made := started(t, g.runtime(t, newCluster(t, c)), o)
	g.spoil(func(_ http.Handler, w http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	})
	began := time.Now()
	exit, err := made.Wait(t.Context())
	if took := time.Since(began); err != nil || exit.Code != 9 || took > 2*time.Second {
		t.Errorf("got %+v, %v after %s; want code 9 in less than an engine's call may take", exit, err, took)
	}
	g.fault.Store(nil)
	if err := made.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// Somebody else's connection is no init's, whatever it says.
func TestOthersAreTurnedAway(t *testing.T) {
	c := engine(t)
	dir := stateDir(t)
	r := runtimeWith(t, docker.Config{Client: c, Cluster: newCluster(t, c), Node: "n1", StateDir: dir})
	stop, stopped := make(chan struct{}), make(chan struct{})
	var knocks atomic.Int64
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			doors, _ := filepath.Glob(filepath.Join(dir, "*", "s"))
			for _, door := range doors {
				if conn, err := net.Dial("unix", door); err == nil {
					knocks.Add(1)
					_ = initwire.NewWriter(conn).Send(initwire.Hello{Version: initwire.Version})
					_, _ = conn.Read(make([]byte, 1))
					conn.Close()
				}
			}
		}
	}()
	const tries = 20
	for n := 0; n < tries && knocks.Load() == 0; n++ {
		res := runOrder(t, r, orderOf(imageOf(t, c, images.Prog), task.Spec{Command: []string{"prog", "print", "x"}}))
		if res.err != nil || res.stdout != "x" {
			t.Errorf("got %+v, want output x", res)
		}
	}
	close(stop)
	<-stopped
	if knocks.Load() == 0 {
		t.Errorf("nobody was quick enough to knock in %d starts: this proves nothing", tries)
	}
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
		t.Cleanup(func() { r.Close(context.Background()) })
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
	for _, hangs := range []string{"/create", "/start", "/wait", "/kill"} {
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
		// The rest needs no engine.
		if (err == nil) != (hangs == "/kill" || hangs == "/wait") {
			t.Errorf("%s hangs: got %v, want an error of what needs the engine", hangs, err)
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
