package docker

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/go-units"

	"ecs/agent/runtime"
	"ecs/internal/initwire"
	"ecs/internal/task"
)

const (
	hostname = "task"
	// oomScore makes the kernel take a task before anything of the host's.
	oomScore = 500
	// initScore keeps PID 1 from it as long as anything else is there.
	initScore = -999
	// initPids is what PID 1 needs of the pids limit.
	initPids = 16
	// minShares is the least CPU weight the kernel takes.
	minShares = 2
	// maxPath is what a path has to be shorter than (PATH_MAX).
	maxPath = 4096
	// umask is what programs begin with.
	umask = 0o022
	// A terminal has this size until somebody says otherwise.
	defaultRows, defaultCols = 24, 80
)

// refuse finds what the engine would take and then fail with a code that looks
// like the program's own: it starts a program with an argument that the kernel
// refuses and reports exit code 1.
func refuse(o runtime.Order) *runtime.Failure {
	if len(o.Spec.Entrypoint) > 0 && len(o.Spec.Entrypoint[0]) >= maxPath {
		return startFailed(fmt.Sprintf("the command's path has %d bytes; the kernel takes fewer than %d", len(o.Spec.Entrypoint[0]), maxPath), nil)
	}
	total := 0
	for _, s := range slices.Concat(o.Spec.Entrypoint, o.Spec.Command, o.Spec.Env, o.SecretEnv) {
		if len(s) > task.MaxArgBytes {
			return startFailed(fmt.Sprintf("an argument or variable has %d bytes; the kernel takes at most %d", len(s), task.MaxArgBytes), nil)
		}
		if strings.ContainsRune(s, 0) {
			return startFailed("an argument or variable contains a zero byte", nil)
		}
		total += len(s) + 1
	}
	if total > task.MaxArgsBytes {
		return startFailed(fmt.Sprintf("arguments and variables have %d bytes together; at most %d are possible", total, task.MaxArgsBytes), nil)
	}
	return nil
}

// dockerCaps are the engine's default capabilities.
var dockerCaps = []string{"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID",
	"SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"}

// programCaps are what the program keeps.
func programCaps(s task.Shape) []string {
	if s.DefaultCaps {
		return slices.Concat(dockerCaps, s.Caps())
	}
	return s.Caps()
}

// initOrder is what init is told, all but the lease.
func (r *Runtime) initOrder(ctx context.Context, o runtime.Order) (*initwire.Order, error) {
	image, err := r.imageConfig(ctx, o.Image.ID)
	if err != nil {
		return nil, err
	}
	in, f := image.merge(o.Spec, o.SecretEnv)
	if f != nil {
		return nil, f
	}
	caps, err := initwire.CapSet(programCaps(o.Spec.Shape()))
	if err != nil {
		return nil, startFailed(err.Error(), nil)
	}
	order := &initwire.Order{Argv: in.argv, Env: in.env, Workdir: in.workdir, User: in.user, RunLimit: o.Spec.Timeouts.Run,
		OOMScoreAdj: oomScore, Caps: caps, Umask: umask, Input: o.Spec.Stdin}
	switch {
	case o.Spec.OpenStdin:
		order.Stdin = initwire.StdinStream
	case len(o.Spec.Stdin) > 0:
		order.Stdin = initwire.StdinInline
	}
	if o.Spec.TTY {
		order.TTY = &initwire.Size{Rows: defaultRows, Cols: defaultCols}
	}
	for _, f := range o.Spec.Files {
		order.Files = append(order.Files, initwire.File{Path: f.Path, Mode: f.Mode, Content: f.Content})
	}
	if n := len(initwire.AppendOrder(nil, *order)); n > initwire.MaxPayload {
		return nil, startFailed(fmt.Sprintf("arguments, variables, input and files have %d bytes together; at most %d are possible", n, initwire.MaxPayload), nil)
	}
	return order, nil
}

// initEnv keeps an image's variables for programs in Go away from PID 1: a name
// without "=" takes the variable away.
var initEnv = []string{"GODEBUG", "GOGC", "GOMAXPROCS", "GOMEMLIMIT", "GORACE", "GOTRACEBACK"}

// containerConfig is PID 1. All that is the program's goes by its order.
//
// Without network the engine is told that its own is disabled: the runtime makes
// an empty namespace with a loopback then, just as it does for the network
// "none", and Engine 20.10 to 27 save a copy of dockerd that they else start to
// take note of the namespace. That was 38 % of the CPU time of a short task.
func (r *Runtime) containerConfig(t task.Token, s task.Shape, nonce string) *container.Config {
	return &container.Config{
		Image:       s.Image,
		Entrypoint:  []string{initwire.Path},
		Env:         append([]string{initwire.NonceEnv + "=" + nonce}, initEnv...),
		WorkingDir:  "/",
		User:        "0:0",
		Hostname:    hostname,
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
		Labels:      r.labels(t),

		NetworkDisabled: s.Network != task.NetworkEgress,
	}
}

// hostConfig is what it may do and use. Everything is closed and bounded that
// the shape does not open. It sees nothing else of a task, so that containers of
// one shape are alike: see Park.
func hostConfig(s task.Shape, network string, h mounted, engine facts) *container.HostConfig {
	noInit := false
	mounts := []mount.Mount{readOnly(h.home, initwire.Dir)}
	if s.Network != task.NetworkEgress {
		for _, name := range slices.Sorted(maps.Keys(offline)) {
			mounts = append(mounts, readOnly(filepath.Join(h.offline, name), "/etc/"+name))
		}
	}
	caps := slices.Concat(initwire.OwnCaps, programCaps(s))
	slices.Sort(caps)
	return &container.HostConfig{
		NetworkMode:   container.NetworkMode(network),
		LogConfig:     container.LogConfig{Type: "none"},
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		SecurityOpt:   []string{"no-new-privileges"},
		CapDrop:       []string{"ALL"},
		CapAdd:        slices.Compact(caps),
		OomScoreAdj:   engine.score,
		IpcMode:       container.IPCModePrivate,
		Init:          &noInit,
		Mounts:        mounts,
		Resources:     limits(s.Resources, engine.Info),
	}
}

// mounted is what a container sees of the host.
type mounted struct {
	home    string // the attempt's directory
	offline string // the directory of what is in /etc without network
}

func readOnly(source, target string) mount.Mount {
	return mount.Mount{Type: mount.TypeBind, Source: source, Target: target, ReadOnly: true,
		BindOptions: &mount.BindOptions{Propagation: mount.PropagationRPrivate}}
}

// limits turns a task's resources into the engine's words. None is left out: a
// zero would mean no limit to the engine.
func limits(want task.Resources, engine system.Info) container.Resources {
	milliCPU := cmp.Or(want.MilliCPU, task.DefaultMilliCPU)
	ceiling := cmp.Or(want.MilliCPULimit, max(task.DefaultMilliCPULimit, milliCPU))
	if machine := int64(engine.NCPU) * 1000; machine > 0 {
		ceiling = min(ceiling, machine) // the engine refuses more than there is
	}
	memory := cmp.Or(want.Memory, task.DefaultMemory)
	pids := cmp.Or(want.Pids, task.DefaultPids) + initPids
	return container.Resources{
		CPUShares:  max(milliCPU*1024/1000, minShares),
		NanoCPUs:   ceiling * 1_000_000,
		Memory:     memory,
		MemorySwap: memory, // memory and swap together: no swap
		PidsLimit:  &pids,
		// No cores. The other limits are the engine's own: one that is above
		// what the engine itself has keeps every container from starting.
		Ulimits: []*units.Ulimit{{Name: "core", Soft: 0, Hard: 0}},
	}
}
