// Package devcluster runs a whole cluster of real processes on this machine:
// for trying ECS out, for demos, benchmarks and tests.
//
// Everything of a cluster is in one directory: its keys, and for each node its
// settings, data, log and pid. The processes outlive their starter; they are
// found again by their command lines, which name the directory, so a pid that
// has become another process's is never mistaken for theirs.
package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"ecs/proto/api"
)

// Options say what cluster to start. Zero fields take the defaults given.
type Options struct {
	Dir      string   // default .ecs-dev
	Controls int      // default 3; 1, 3 or 5
	Agents   int      // default 3; NoAgents for none
	Zones    []string // default a, b, c; nodes are dealt to them in turn
	HTTPPort int      // default 8448; control nodes take it and those after it
	// AgentCPUs and AgentMemory are what each agent offers to tasks. By
	// default the machine is shared out: at least one CPU each, and three
	// quarters of the memory among all.
	AgentCPUs   api.CPU
	AgentMemory api.Size
	// WarmCount is how many containers each agent may start ahead of tasks.
	// Default none.
	WarmCount int
	// DefaultRegistry and InsecureRegistries go to the agents as they are.
	DefaultRegistry    string
	InsecureRegistries []string
	// DockerHost is the engine all agents share; default $DOCKER_HOST, else
	// the local one.
	DockerHost string
	// Binaries is the directory with ecs-control, ecs-agent, ecs-init and
	// ecs-fence; default that of the running executable.
	Binaries string
	// Limits has control nodes bound callers as in a deployment. By default
	// nothing does: nobody shares the cluster.
	Limits bool
	// Debug has control nodes serve Go's profiles; see Node.Debug.
	Debug bool
	// Within is how long the cluster may take to become ready; default 60s.
	Within time.Duration
	// Progress, when set, is told in lines what is being done.
	Progress io.Writer
}

// NoAgents, as a number of agents, asks for control nodes alone.
const NoAgents = -1

// DefaultDir is the directory of a cluster when none is named.
const DefaultDir = ".ecs-dev"

// maxWarm is what an agent takes, and warmMemory what each of them may cost.
const (
	maxWarm    = 256
	warmMemory = api.Size(12 << 20)
)

// minAgentMemory is the least that lets a task with default settings run.
const minAgentMemory = api.Size(256 << 20)

func (o Options) withDefaults() (Options, error) {
	setDefault(&o.Dir, DefaultDir)
	setDefault(&o.Controls, 3)
	setDefault(&o.Agents, 3)
	if o.Agents == NoAgents {
		o.Agents = 0
	}
	setDefault(&o.HTTPPort, 8448)
	setDefault(&o.Within, 60*time.Second)
	setDefault(&o.DockerHost, os.Getenv("DOCKER_HOST"))
	if len(o.Zones) == 0 {
		o.Zones = []string{"a", "b", "c"}
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if o.Binaries == "" {
		self, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("find the daemons beside this program: %w", err)
		}
		o.Binaries = filepath.Dir(self)
	}
	if err := o.shareMachine(); err != nil {
		return o, err
	}
	var err error
	o.Dir, err = realDir(o.Dir)
	return o, err
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (o *Options) shareMachine() error {
	var machine unix.Sysinfo_t
	if err := unix.Sysinfo(&machine); err != nil {
		return fmt.Errorf("ask for this machine's memory: %w", err)
	}
	agents := max(o.Agents, 1)
	setDefault(&o.AgentCPUs, api.CPU(max(1000, runtime.NumCPU()*1000/agents)))
	memory := int64(machine.Totalram) * int64(machine.Unit) / 4 * 3 / int64(agents)
	setDefault(&o.AgentMemory, max(minAgentMemory, api.Size(memory>>20<<20)))
	return nil
}

// validate reports everything that is wrong with the options, at once.
func (o Options) validate() error {
	var faults []error
	fault := func(wrong bool, format string, args ...any) {
		if wrong {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(o.Controls != 1 && o.Controls != 3 && o.Controls != 5,
		"%d control nodes: want 1, 3 or 5", o.Controls)
	fault(o.Agents < 0 || o.Agents > 100, "%d agents: want 0 to 100", o.Agents)
	fault(o.HTTPPort < 1 || o.HTTPPort+o.Controls-1 > 65535,
		"HTTP port %d: want %d ports from 1 to 65535", o.HTTPPort, o.Controls)
	fault(o.WarmCount < 0 || o.WarmCount > maxWarm, "%d containers started ahead: want 0 to %d", o.WarmCount, maxWarm)
	fault(o.AgentCPUs < 0, "%s CPUs for each agent: want more than none", o.AgentCPUs)
	fault(o.AgentMemory < 0, "%s for each agent: want more than none", o.AgentMemory)
	for _, name := range []string{controlBinary, agentBinary, initBinary, fenceBinary} {
		if _, err := os.Stat(filepath.Join(o.Binaries, name)); err != nil {
			faults = append(faults, fmt.Errorf("%s is not beside this program (run: make build): %w", name, err))
		}
	}
	return errors.Join(faults...)
}

func (o Options) say(format string, args ...any) { fmt.Fprintf(o.Progress, format+"\n", args...) }

// Status is a cluster as dev up and dev status print it.
type Status struct {
	Dir       string   `json:"dir"`
	Cluster   string   `json:"cluster,omitempty"` // the name in certificates and in labels of containers
	Key       string   `json:"key"`
	Secret    string   `json:"secret"`
	Endpoints []string `json:"endpoints"`
	Nodes     []Node   `json:"nodes"`
}

// Node is one process of a cluster.
type Node struct {
	Name   string `json:"name"`
	Role   string `json:"role"` // control | agent
	Zone   string `json:"zone"`
	PID    int    `json:"pid"`             // 0: it does not run
	HTTP   string `json:"http"`            // URL; empty for agents
	Health string `json:"health"`          // URL
	RPC    string `json:"rpc,omitempty"`   // host:port; empty for agents
	Debug  string `json:"debug,omitempty"` // URL of Go's profiles
	Leader bool   `json:"leader"`
	// FencePID is the process of an agent's fence; 0: it has none, or it does
	// not run.
	FencePID int `json:"fence_pid,omitempty"`
	fenced   bool
}

// Missing names the processes of the cluster that do not run.
func (s *Status) Missing() (names []string) {
	for _, n := range s.Nodes {
		if n.PID == 0 {
			names = append(names, n.Name)
		}
		if n.fenced && n.FencePID == 0 {
			names = append(names, n.Name+fenceSuffix)
		}
	}
	return names
}

// Client calls the cluster through all of its control nodes.
func (s *Status) Client(options ...api.Option) (*api.Client, error) {
	return api.New(s.Endpoints, s.Key, s.Secret, options...)
}

// ReadStatus gives the cluster in dir as it is now. The error is fs.ErrNotExist
// when there is none.
func ReadStatus(ctx context.Context, dir string) (*Status, error) {
	c, err := open(dir)
	if err != nil {
		return nil, err
	}
	return c.status(ctx)
}
