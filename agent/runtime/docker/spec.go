package docker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/go-units"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

const (
	hostname = "task"
	// oomScore makes the kernel take a task before anything of the host's.
	oomScore = 500
	// initPids is what docker-init needs of the pids limit.
	initPids = 1
	// minShares is the least CPU weight the kernel takes.
	minShares = 2
	// maxPath is what a path has to be shorter than (PATH_MAX).
	maxPath = 4096
	// noInit is what the engine says when it did not find its init program.
	noInit = "N/A"
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

// program is what the spec says to execute, or empty. Where it leaves the
// entrypoint to the image it may be an argument.
func program(s task.Spec) string {
	if argv := slices.Concat(s.Entrypoint, s.Command); len(argv) > 0 {
		return argv[0]
	}
	return ""
}

// containerConfig is what runs: the image's own settings hold wherever the
// order says nothing.
func (r *Runtime) containerConfig(o runtime.Order) *container.Config {
	return &container.Config{
		Image:        o.Image.ID,
		Entrypoint:   o.Spec.Entrypoint,
		Cmd:          o.Spec.Command,
		Env:          slices.Concat(o.Spec.Env, o.SecretEnv),
		WorkingDir:   o.Spec.Workdir,
		User:         o.Spec.User,
		Hostname:     hostname,
		AttachStdout: true,
		AttachStderr: true,
		Healthcheck:  &container.HealthConfig{Test: []string{"NONE"}},
		Labels:       r.labels(o.Token),
	}
}

// hostConfig is what it may do and use. Everything is closed and bounded that
// the order does not open.
//
// PID 1 is docker-init where the engine has it, until ecs-init takes its
// place: a program that is PID 1 itself ignores signals it has no handler for,
// its own included, and leaves zombies, so it would end otherwise here than
// anywhere else. It costs under 1 ms. The price is that the engine no longer
// says itself that there is no such command; see initFailure.
func (r *Runtime) hostConfig(o runtime.Order, network string, engine system.Info) *container.HostConfig {
	withInit := hasInit(engine)
	h := &container.HostConfig{
		NetworkMode:    container.NetworkMode(network),
		LogConfig:      container.LogConfig{Type: "none"},
		RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyDisabled},
		SecurityOpt:    []string{"no-new-privileges"},
		CapAdd:         o.Spec.CapAdd,
		OomScoreAdj:    oomScore,
		IpcMode:        container.IPCModePrivate,
		Init:           &withInit,
		ReadonlyRootfs: false,
		Resources:      limits(o.Spec.Resources, engine),
	}
	if !o.Spec.DefaultCaps {
		h.CapDrop = []string{"ALL"}
	}
	return h
}

func hasInit(engine system.Info) bool {
	return engine.InitBinary != "" && engine.InitCommit.ID != noInit
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
	pids := cmp.Or(want.Pids, task.DefaultPids)
	if hasInit(engine) {
		pids += initPids
	}
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
