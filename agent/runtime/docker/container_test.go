package docker_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/client"

	"ecs/agent/runtime"
	"ecs/agent/runtime/docker"
	"ecs/internal/task"
	"ecs/test/images"
)

// result is what a program did.
type result struct {
	exit           runtime.Exit
	err            error
	stdout, stderr string
}

// runOrder takes one order through, and removes its container.
func runOrder(t testing.TB, r *docker.Runtime, o runtime.Order) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var res result
	var out, errOut strings.Builder
	o.Output = runtime.Sink{Stdout: &out, Stderr: &errOut}
	c, err := r.Create(ctx, o)
	if err != nil {
		return result{err: err}
	}
	if res.err = c.Start(ctx); res.err == nil {
		res.exit, res.err = c.Wait(ctx)
	}
	if err := c.Remove(ctx); err != nil {
		t.Errorf("remove: %v", err)
	}
	res.stdout, res.stderr = out.String(), errOut.String()
	return res
}

// orderOf is an attempt with the defaults of the API.
func orderOf(image runtime.Image, s task.Spec) runtime.Order {
	return runtime.Order{Token: task.Token{Task: task.ID("u" + time.Now().Format("150405.000000000")), Attempt: 1, Epoch: 3},
		Spec: s.WithDefaults(task.V2, true), Image: image}
}

func inspect(t *testing.T, c *client.Client, tok task.Token) container.InspectResponse {
	t.Helper()
	found, err := c.ContainerInspect(t.Context(), nameOf(tok))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestContainersAreClosedAndBounded(t *testing.T) {
	c := engine(t)
	cluster := newCluster(t, c)
	r := newRuntime(t, c, cluster, "n1", false)
	o := orderOf(imageOf(t, c, images.Prog), task.Spec{Command: []string{"prog", "id"}})
	made, err := r.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	found := inspect(t, c, o.Token)
	h := found.HostConfig
	for name, ok := range map[string]bool{
		"capabilities dropped": slices.Equal(h.CapDrop, []string{"ALL"}) && slices.Equal(capNames(h.CapAdd), []string{"KILL", "SETGID", "SETPCAP", "SETUID"}),
		"no new privileges":    slices.Equal(h.SecurityOpt, []string{"no-new-privileges"}),
		"no network":           h.NetworkMode == "none" && found.Config.NetworkDisabled,
		"no log":               h.LogConfig.Type == "none",
		"memory and no swap":   h.Memory == task.DefaultMemory && h.MemorySwap == h.Memory,
		"cpu ceiling":          h.NanoCPUs == task.DefaultMilliCPULimit*1_000_000,
		"cpu weight":           h.CPUShares == task.DefaultMilliCPU*1024/1000,
		"pids":                 h.PidsLimit != nil && *h.PidsLimit == task.DefaultPids+16,
		"not privileged":       !h.Privileged && len(h.Binds) == 0 && mountedReadOnly(h.Mounts, "/.ecs", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf") && len(h.Devices) == 0,
		"own namespaces":       !h.PidMode.IsHost() && !h.IpcMode.IsHost() && !h.UTSMode.IsHost() && !h.UsernsMode.IsHost(),
		"never auto-removed":   !h.AutoRemove,
		"no health check":      found.Config.Healthcheck != nil && slices.Equal(found.Config.Healthcheck.Test, []string{"NONE"}),
		"init outlives others": h.OomScoreAdj <= 0, // -999 where the engine may
		"init and no other":    slices.Equal(found.Config.Entrypoint, []string{"/.ecs/init"}) && found.Config.User == "0:0" && (h.Init == nil || !*h.Init),
		"nothing attached":     !found.Config.AttachStdout && !found.Config.AttachStderr && !found.Config.OpenStdin,
		"labels": found.Config.Labels["ecs.cluster"] == cluster && found.Config.Labels["ecs.node"] == "n1" &&
			found.Config.Labels["ecs.task"] == string(o.Token.Task) && found.Config.Labels["ecs.attempt"] == "1" &&
			found.Config.Labels["ecs.epoch"] == "3",
	} {
		if !ok {
			t.Errorf("%s: not so: %+v", name, h)
		}
	}
	if err := made.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// mountedReadOnly says that these are all the mounts, and none can be written to.
func mountedReadOnly(mounts []mount.Mount, targets ...string) bool {
	return slices.EqualFunc(mounts, targets, func(m mount.Mount, target string) bool { return m.ReadOnly && m.Target == target })
}

// capNames are capabilities without the prefix that engines put before them.
func capNames(caps []string) []string {
	var names []string
	for _, c := range caps {
		names = append(names, strings.TrimPrefix(c, "CAP_"))
	}
	return names
}

func TestProgramHasNoPrivileges(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	for _, tt := range []struct {
		name string
		spec task.Spec
		want []string
	}{
		{"closed", task.Spec{}, []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"}},
		{"one asked back", task.Spec{CapAdd: []string{"NET_BIND_SERVICE"}}, []string{"CapEff:\t0000000000000400", "NoNewPrivs:\t1"}},
		{"docker's own", task.Spec{DefaultCaps: true}, []string{"CapEff:\t00000000a80425fb", "NoNewPrivs:\t1", "Seccomp:\t2"}},
		{"a user", task.Spec{User: "nobody"}, []string{"Uid:\t65534\t65534", "CapEff:\t0000000000000000"}},
	} {
		tt.spec.Command = []string{"prog", "id"}
		res := runOrder(t, r, orderOf(imageOf(t, c, images.Prog), tt.spec))
		for _, want := range tt.want {
			if !strings.Contains(res.stdout, want) {
				t.Errorf("%s: got %q (%v), want %q in it", tt.name, res.stdout, res.err, want)
			}
		}
	}
}

func TestImageSettingsHoldUnlessReplaced(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	for _, tt := range []struct {
		name string
		spec task.Spec
		env  []string
		want string // in stdout
	}{
		{"entry point and cmd", task.Spec{}, nil, "from cmd\n"},
		{"command replaces cmd", task.Spec{Command: []string{"echo", "mine"}}, nil, "mine\n"},
		{"entry point replaced", task.Spec{Entrypoint: []string{"/prog", "args"}, Command: []string{"a"}}, nil, "[\"a\"]\n"},
		{"entry point emptied", task.Spec{Entrypoint: []string{}, Command: []string{"/bin/prog", "echo", "bare"}}, nil, "bare\n"},
		{"its environment", task.Spec{Command: []string{"env"}, Env: []string{"MINE=1"}}, []string{"SECRET=2"}, "MINE=1\nSECRET=2\nFROM_IMAGE=yes\n"},
		{"environment replaced", task.Spec{Command: []string{"env"}, Env: []string{"FROM_IMAGE=no"}}, nil, "FROM_IMAGE=no\n"},
		{"its user", task.Spec{Command: []string{"id"}}, nil, "Uid:\t65534"},
		{"user replaced", task.Spec{Command: []string{"id"}, User: "12:34"}, nil, "Uid:\t12"},
		{"its directory", task.Spec{Command: []string{"pwd"}}, nil, "/srv\n"},
		{"directory replaced and made", task.Spec{Command: []string{"pwd"}, Workdir: "/new/dir"}, nil, "/new/dir\n"},
		{"host name", task.Spec{Command: []string{"hostname"}}, nil, "task\n"},
	} {
		o := orderOf(imageOf(t, c, images.Entry), tt.spec)
		o.SecretEnv = tt.env
		if res := runOrder(t, r, o); !strings.Contains(res.stdout, tt.want) {
			t.Errorf("%s: got %q %q %v, want %q in it", tt.name, res.stdout, res.stderr, res.err, tt.want)
		}
	}
}

func TestStartFailuresSayWhy(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	for _, tt := range []struct {
		name string
		spec task.Spec
		want string // in the reason
	}{
		{"no such file", task.Spec{Command: []string{"/nope"}}, `no such command: "/nope"`},
		{"not in PATH", task.Spec{Command: []string{"nope"}}, `no such command: "nope"`},
		{"not executable", task.Spec{Command: []string{"/bin/plain"}}, `"/bin/plain" can't be executed: permission denied`},
		{"a directory", task.Spec{Command: []string{"/tmp"}}, `"/tmp" can't be executed: permission denied`},
		{"no command", task.Spec{}, "No command specified"},
		{"unknown user", task.Spec{Command: []string{"prog", "id"}, User: "nosuch"}, "unable to find user nosuch"},
		{"unknown group", task.Spec{Command: []string{"prog", "id"}, User: "0:nosuch"}, "unable to find group nosuch"},
		{"user beyond range", task.Spec{Command: []string{"prog", "id"}, User: "99999999999"}, "uids and gids must be in range"},
		{"directory is a file", task.Spec{Command: []string{"prog", "id"}, Workdir: "/etc/passwd"}, "not a directory"},
		{"directory is nowhere", task.Spec{Command: []string{"prog", "id"}, Workdir: "/proc/self/fd/7"}, "not a directory"},
		{"directory is relative", task.Spec{Command: []string{"prog", "id"}, Workdir: "here"}, "absolute"},
		{"argument too long", task.Spec{Command: []string{"prog", strings.Repeat("x", 131072)}}, "131072 bytes"},
		{"arguments too long", task.Spec{Command: slices.Repeat([]string{strings.Repeat("x", 100_000)}, 16)}, "together"},
		{"zero byte", task.Spec{Command: []string{"prog", "a\x00b"}}, "zero byte"},
	} {
		res := runOrder(t, r, orderOf(imageOf(t, c, images.Prog), tt.spec))
		var f *runtime.Failure
		if !errors.As(res.err, &f) || f.Outcome != task.StartFailed || !strings.Contains(f.Reason, tt.want) {
			t.Errorf("%s: got %v, want start_failed because %q", tt.name, res.err, tt.want)
		}
	}
}

func TestChildOutOfMemoryIsTheProgramsAffair(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	res := runOrder(t, r, orderOf(imageOf(t, c, images.Busybox), task.Spec{
		Command:   []string{"sh", "-c", "(dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null); exit 5"},
		Resources: task.Resources{Memory: 32 << 20}}))
	if res.err != nil || res.exit.Code != 5 || res.exit.OOMKilled {
		t.Errorf("got %+v, %v; want code 5 and not out of memory", res.exit, res.err)
	}
}

func TestOrphansEndWithTheProgram(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	began := time.Now()
	res := runOrder(t, r, orderOf(imageOf(t, c, images.Prog),
		task.Spec{Command: []string{"prog", "orphan", "sleep", "1m", ";", "print", "done"}}))
	if res.err != nil || res.exit.Code != 0 || res.stdout != "done" {
		t.Errorf("got %+v %q, %v; want code 0 and %q", res.exit, res.stdout, res.err, "done")
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("took %s, as long as the orphan", took)
	}
}

func TestProgramIsNotPidOne(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	res := runOrder(t, r, orderOf(imageOf(t, c, images.Busybox), task.Spec{Command: []string{"sh", "-c", "kill -9 $$"}}))
	if res.err != nil || res.exit.Code != 137 || res.exit.Interrupted != "" || res.exit.OOMKilled {
		t.Errorf("a program that kills itself: got %+v, %v; want code 137 and nothing else", res.exit, res.err)
	}
}

func TestOnlyWholeImageIDsRun(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	whole := imageOf(t, c, images.Prog)
	for _, id := range []string{"", "6", whole.ID[:20], strings.TrimPrefix(whole.ID, "sha256:"), images.Prog, whole.ID + " "} {
		res := runOrder(t, r, orderOf(runtime.Image{ID: id}, task.Spec{Command: []string{"prog", "id"}}))
		if res.err == nil {
			t.Errorf("image %q ran", id)
		}
	}
	gone := runtime.Image{ID: "sha256:" + strings.Repeat("0", 64)}
	res := runOrder(t, r, orderOf(gone, task.Spec{Command: []string{"prog", "id"}}))
	if !errors.Is(res.err, runtime.ErrNoImage) {
		t.Errorf("image that is gone: got %v, want ErrNoImage", res.err)
	}
}

func TestNameOfAnotherIsLeftAlone(t *testing.T) {
	c := engine(t)
	cluster := newCluster(t, c)
	mine, other := newRuntime(t, c, cluster, "n1", false), newRuntime(t, c, cluster, "n2", false)
	o := orderOf(imageOf(t, c, images.Prog), task.Spec{Command: []string{"prog", "id"}})
	o.Output = runtime.Sink{Stdout: &strings.Builder{}, Stderr: &strings.Builder{}}
	theirs, err := other.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var f *runtime.Failure
	if _, err := mine.Create(t.Context(), o); err == nil || errors.As(err, &f) {
		t.Errorf("got %v, want an error that is not the caller's fault", err)
	}
	inspect(t, c, o.Token)
	if err := theirs.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPausedFromOutside(t *testing.T) {
	t.Parallel() // several looks, a second apart
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	o := orderOf(imageOf(t, c, images.Prog), task.Spec{Command: []string{"prog", "sleep", "2m"}})
	o.Output = runtime.Sink{Stdout: &strings.Builder{}, Stderr: &strings.Builder{}}
	made, err := r.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.ContainerPause(t.Context(), nameOf(o.Token)); err != nil {
		t.Fatal(err)
	}
	exit, err := made.Wait(t.Context())
	if err != nil || exit.Interrupted == "" {
		t.Errorf("got %+v, %v; want interrupted", exit, err)
	}
	if found := inspect(t, c, o.Token); found.State.Running {
		t.Errorf("state: got %s, want ended", found.State.Status)
	}
	if err := made.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// The engine is told that its network is disabled; what matters is what the
// program finds.
func TestProgramWithoutNetworkHasALoopbackOfItsOwn(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	res := runOrder(t, r, orderOf(imageOf(t, c, images.Busybox), task.Spec{User: "0:0", Command: []string{"sh", "-c",
		"readlink /proc/self/ns/net; ip -o link; ip -o addr; cat /etc/hosts /etc/resolv.conf; echo name $(cat /etc/hostname) $(hostname); echo x >>/etc/hosts || echo closed"}}))
	ns, rest, _ := strings.Cut(res.stdout, "\n")
	if ns == own || ns == "" {
		t.Errorf("namespace %q is not its own: %v", ns, res.err)
	}
	for _, want := range []string{"1: lo: <LOOPBACK,UP,LOWER_UP>", "inet 127.0.0.1/8", "127.0.0.1\tlocalhost", "# no network", "name task task", "closed"} {
		if !strings.Contains(rest, want) {
			t.Errorf("got %q, want %q in it", rest, want)
		}
	}
	if strings.Contains(rest, "2: ") {
		t.Errorf("got more than a loopback: %q", rest)
	}
}
