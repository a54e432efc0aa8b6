package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"ecs/agent"
	"ecs/agent/runtime/docker"
	"ecs/internal/daemon"
	"ecs/internal/pki"
	"ecs/internal/task"
)

// options are the settings of an agent, and what Check has read.
type options struct {
	daemon.Place
	daemon.Trust
	outputAddr, healthAddr string
	cpus                   daemon.CPUs
	memory                 daemon.Bytes
	reserve                daemon.Reserve
	dockerHost             string
	egress                 bool
	defaultRegistry        string
	insecure, egressDeny   daemon.List
	localImages            daemon.Choice
	spoolSize              daemon.Bytes
	warmCount              int
	warmMemory             daemon.Bytes
	grace, handOver        time.Duration
	starts                 int
	fenceSocket, init      string

	node      *pki.Node
	gossipKey []byte
	capacity  task.Capacity
}

func (o *options) define(fs *flag.FlagSet) {
	o.reserve = daemon.Reserve{CPUs: 100, Memory: 256 << 20}
	o.localImages = daemon.Choice{Value: "allow", Allowed: []string{"allow", "deny"}}
	o.spoolSize = 2 << 30
	o.warmMemory = agent.DefaultWarmMemory
	o.Place.Define(fs, "/var/lib/ecs/agent")
	o.Trust.Define(fs)
	fs.StringVar(&o.outputAddr, "output-addr", ":7450", "`host:port` that control nodes fetch output from")
	fs.StringVar(&o.healthAddr, "health-addr", "127.0.0.1:8081", "`host:port` for health checks and metrics; empty for none")
	fs.Var(&o.cpus, "cpus", "`CPUs` to offer to tasks (default: the machine's less --reserve)")
	fs.Var(&o.memory, "memory", "`size` of memory to offer to tasks (default: the machine's less --reserve)")
	fs.Var(&o.reserve, "reserve", "`cpu=0.5,memory=512MiB` kept from tasks, where --cpus and --memory say nothing")
	fs.StringVar(&o.dockerHost, "docker-host", "", "`address` of the engine (default DOCKER_HOST, else the local one)")
	fs.BoolVar(&o.egress, "egress", true, "offer tasks a network for outgoing connections")
	fs.StringVar(&o.defaultRegistry, "default-registry", "", "`registry` of images that name none (default docker.io)")
	fs.Var(&o.egressDeny, "egress-deny", "IPv4 `networks` that tasks with egress can't reach; default: the private subnets this machine is connected to. Name the cluster's own where addresses are /32, as on GCE")
	fs.Var(&o.insecure, "insecure-registry", "`registries` to speak to without TLS")
	fs.Var(&o.localImages, "local-images", "`allow` or deny: may tasks run images that only this engine has")
	fs.Var(&o.spoolSize, "spool-size", "`size` of output kept on disk, the oldest goes first")
	fs.IntVar(&o.starts, "starts", docker.DefaultStarts, "how `many` containers are started at once, and removed at once; where agents share an engine, each has its part of that")
	fs.IntVar(&o.warmCount, "warm-count", 0, "`number` of containers at most that are started ahead of tasks like those of late; 0: none, the pool is off")
	fs.Var(&o.warmMemory, "warm-memory", "`size` of memory that they may cost together, at 12MiB each, where --warm-count asks for any; it comes out of what --reserve keeps from tasks")
	fs.DurationVar(&o.grace, "grace", agent.DefaultGrace, "how `long` running tasks may go on when the agent is stopped")
	fs.DurationVar(&o.handOver, "hand-over", agent.DefaultHandOver, "how `long` other agents may take to fetch the output it holds when the agent leaves for good; 0: they fetch none")
	fs.StringVar(&o.fenceSocket, "fence-socket", "/run/ecs/fence.sock", "`path` of the socket of ecs-fence; empty: no outer fence")
	fs.StringVar(&o.init, "init", "", "`path` of ecs-init, the first process of every container (default: beside ecs-agent)")
}

func (o *options) check() error {
	faults := []error{o.Place.Check(), daemon.CheckAddr("output-addr", o.outputAddr)}
	if o.healthAddr != "" {
		faults = append(faults, daemon.CheckAddr("health-addr", o.healthAddr))
	}
	if o.grace < 0 {
		faults = append(faults, fmt.Errorf("--grace %s: want no less than 0s", o.grace))
	}
	if o.handOver < 0 {
		faults = append(faults, fmt.Errorf("--hand-over %s: want no less than 0s", o.handOver))
	}
	if o.starts < 1 {
		faults = append(faults, fmt.Errorf("--starts %d: want no less than 1", o.starts))
	}
	if o.warmCount < 0 || o.warmCount > agent.MaxWarmCount {
		faults = append(faults, fmt.Errorf("--warm-count %d: want 0 to %d", o.warmCount, agent.MaxWarmCount))
	}
	if o.memory != 0 && o.memory < task.MinMemory {
		faults = append(faults, fmt.Errorf("--memory %s: the smallest task needs %d bytes", o.memory.String(), task.MinMemory))
	}
	var err error
	if !o.Trust.Awaited() {
		if o.node, o.gossipKey, err = o.Trust.Load(pki.RoleAgent); err != nil {
			faults = append(faults, err)
		}
	}
	if o.capacity, err = o.measure(); err != nil {
		faults = append(faults, err)
	}
	if o.fenceSocket != "" && !filepath.IsAbs(o.fenceSocket) {
		faults = append(faults, fmt.Errorf("--fence-socket %q: want an absolute path", o.fenceSocket))
	}
	if o.init, err = findInit(o.init); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// findInit gives the absolute path of ecs-init, as containers need it.
func findInit(path string) (string, error) {
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find ecs-init beside this program: %w", err)
		}
		path = filepath.Join(filepath.Dir(self), "ecs-init")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("--init: %w", err)
	}
	info, err := os.Stat(path)
	if err == nil && (!info.Mode().IsRegular() || info.Mode()&0o111 == 0) {
		err = fmt.Errorf("%s is not an executable file", path)
	}
	if err != nil {
		return "", fmt.Errorf("--init: %w", err)
	}
	return path, nil
}

// measure gives what the settings say, and the machine's for the rest.
func (o *options) measure() (task.Capacity, error) {
	given := task.Capacity{MilliCPU: int64(o.cpus), Memory: int64(o.memory)}
	if given.MilliCPU != 0 && given.Memory != 0 {
		return given, nil
	}
	has, err := agent.MeasureCapacity(task.Capacity{MilliCPU: int64(o.reserve.CPUs), Memory: int64(o.reserve.Memory)})
	if given.MilliCPU != 0 {
		has.MilliCPU = given.MilliCPU
	}
	if given.Memory != 0 {
		has.Memory = given.Memory
	}
	return has, err
}
