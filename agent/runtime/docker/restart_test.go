package docker_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/client"

	"ecs/agent/runtime"
	"ecs/agent/runtime/docker"
	"ecs/internal/task"
	"ecs/test/images"
)

// daemon is an engine of the test's own, to be ended and started again. As
// where it is installed, its containerd is a service apart and outlives it.
type daemon struct {
	t    *testing.T
	dir  string
	args []string
	cmd  *exec.Cmd
}

func newDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	engine(t) // the common complaint, if there is none
	if _, err := exec.LookPath("dockerd"); err != nil || os.Geteuid() != 0 {
		t.Skip("no right or no program to start an engine of one's own: needs root and dockerd on this machine")
	}
	dir, err := os.MkdirTemp("", "ecsd") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, dir: dir, args: args}
	bridge, _ := net.InterfaceByName("docker0")
	t.Cleanup(func() {
		if now, err := net.InterfaceByName("docker0"); bridge != nil && (err != nil || now.Index != bridge.Index) {
			t.Errorf("the machine's docker0 is gone or another: %v", err)
		}
		// An engine that was killed leaves its own mount behind.
		_ = syscall.Unmount(d.path("data"), syscall.MNT_DETACH)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	config := d.path("containerd.toml")
	if err := os.WriteFile(config, []byte("version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	containerd := d.run("containerd", "--config", config, "--root", d.path("croot"), "--state", d.path("cstate"), "--address", d.path("c"))
	t.Cleanup(func() { end(containerd, syscall.SIGTERM) })
	d.start()
	t.Cleanup(func() { d.stop(syscall.SIGTERM) })
	return d
}

func (d *daemon) path(name string) string { return filepath.Join(d.dir, name) }

func (d *daemon) host() string { return "unix://" + d.path("s") }

func (d *daemon) run(program string, args ...string) *exec.Cmd {
	d.t.Helper()
	log, err := os.Create(d.path(program + ".log"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	// A network of its own: an engine without a bridge removes docker0, the other's.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	return cmd
}

func end(cmd *exec.Cmd, with syscall.Signal) {
	cmd.Process.Signal(with)
	cmd.Wait()
}

func (d *daemon) start() {
	d.t.Helper()
	d.cmd = d.run("dockerd", append([]string{"--host", d.host(), "--containerd", d.path("c"), "--data-root", d.path("data"),
		"--exec-root", d.path("exec"), "--pidfile", d.path("pid"), "--iptables=false", "--bridge=none"}, d.args...)...)
	c := d.client()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		_, err := c.Ping(d.t.Context())
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(d.path("dockerd.log"))
			d.t.Fatalf("the test's engine does not answer: %v: %s", err, text)
		}
	}
}

// stop ends the engine and waits for that.
func (d *daemon) stop(with syscall.Signal) {
	if d.cmd != nil {
		end(d.cmd, with)
		d.cmd = nil
	}
}

func (d *daemon) client() *client.Client {
	d.t.Helper()
	c, err := client.NewClientWithOpts(client.WithHost(d.host()), client.WithAPIVersionNegotiation())
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	return c
}

// What an engine takes along when it ends is interrupted, whatever code it ends
// with; what it leaves alone runs on and is heard to the end.
func TestEngineThatEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		with syscall.Signal
		args []string
		// When everything ends: with the engine, with the next one, or by itself.
		atOnce, atNext bool
	}{
		{"in good order", syscall.SIGTERM, nil, true, true},
		{"killed", syscall.SIGKILL, nil, false, true},
		{"killed, and its containers live on", syscall.SIGKILL, []string{"--live-restore"}, false, false},
		{"in good order, and its containers live on", syscall.SIGTERM, []string{"--live-restore"}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDaemon(t, tt.args...)
			c := d.client()
			if err := images.Ensure(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			r := runtimeWith(t, docker.Config{Host: d.host(), Cluster: "restart", Node: "n1", StateDir: stateDir(t),
				Log: slog.New(slog.DiscardHandler)})
			plain := orderOf(imageOf(t, c, images.Prog), task.Spec{Command: []string{"prog", "print", "up", ";", "sleep", "2m"}})
			polite := orderOf(imageOf(t, c, images.Prog), task.Spec{Command: []string{"prog", "trap", "2m", ";", "exit", "3"}})
			all := []runtime.Container{started(t, r, plain), started(t, r, polite)}
			pids := []int{inspect(t, c, plain.Token).State.Pid, inspect(t, c, polite.Token).State.Pid}
			began := time.Now()
			d.stop(tt.with)
			if !tt.atOnce {
				runsOn(t, all)
				d.start()
			}
			if tt.atNext {
				for i, made := range all {
					if exit, err := made.Wait(t.Context()); err != nil || exit.Interrupted == "" {
						t.Errorf("%d: got %+v, %v; want interrupted", i, exit, err)
					}
				}
				t.Logf("known after %s", time.Since(began))
			} else {
				runsOn(t, all)
				endByThemselves(t, all)
			}
			if tt.atOnce {
				d.start()
			}
			if n, err := r.Reap(t.Context(), func(task.Token) bool { return false }); err != nil || n != 2 {
				t.Errorf("reap afterwards: got %d, %v; want 2", n, err)
			}
			for _, pid := range pids {
				gone(t, pid)
			}
			res := runOrder(t, r, orderOf(imageOf(t, c, images.Prog), task.Spec{Command: []string{"prog", "exit", "6"}}))
			if res.err != nil || res.exit.Code != 6 {
				t.Errorf("afterwards: got %+v, %v; want code 6", res.exit, res.err)
			}
		})
	}
}

func runsOn(t *testing.T, all []runtime.Container) {
	t.Helper()
	for i, made := range all {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if exit, err := made.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d: got %+v, %v; want it to run on", i, exit, err)
		}
		cancel()
	}
}

// endByThemselves ends one that is killed and one that takes a signal.
func endByThemselves(t *testing.T, all []runtime.Container) {
	t.Helper()
	if err := errors.Join(all[0].Kill(t.Context()), all[1].Signal(t.Context(), syscall.SIGTERM)); err != nil {
		t.Error(err)
	}
	for i, code := range []int{137, 3} {
		if exit, err := all[i].Wait(t.Context()); err != nil || exit.Code != code || exit.Interrupted != "" {
			t.Errorf("%d: got %+v, %v; want code %d", i, exit, err, code)
		}
	}
}
