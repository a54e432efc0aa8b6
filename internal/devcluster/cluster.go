package devcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"al.essio.dev/pkg/shellescape"
	"github.com/oklog/ulid/v2"

	"ecs/internal/clusterfiles"
	"ecs/internal/pki"
	"ecs/proto/api"
)

const (
	controlBinary = "ecs-control"
	agentBinary   = "ecs-agent"
	fenceBinary   = "ecs-fence"
	initBinary    = "ecs-init" // the agent finds it beside itself

	roleControl = "control"
	roleAgent   = "agent"

	recordFile   = "cluster.json"
	htpasswdFile = "htpasswd"
	configFile   = "config.yaml" // in a node's own directory, as the following
	logFile      = "daemon.log"
	pidFile      = "pid"

	// The same for an agent's fence, in the agent's directory.
	fenceConfig = "fence.yaml"
	fenceLog    = "fence.log"
	fencePID    = "fence.pid"
	fenceSocket = "fence.sock"
	fenceState  = "fence"
)

// cluster is what the record in a cluster's directory says.
type cluster struct {
	dir string // not in the record: a directory may be moved
	// patience is how long processes may take to end when asked.
	patience time.Duration

	Name       string `json:"cluster"` // of the CA, and in the labels of containers
	Key        string `json:"key"`
	Secret     string `json:"secret"`
	DockerHost string `json:"docker_host,omitempty"`
	MadeDir    bool   `json:"made_dir"` // the directory itself is ours, not only what is in it
	Fenced     bool   `json:"fenced"`   // each agent has a fence; only root can run one
	Limited    bool   `json:"limited,omitempty"`
	// Agents is what agents are started with, those that come later too.
	Agents agentSettings `json:"agents"`
	// HadAgents says that agents were removed: what they made for all is there.
	HadAgents bool     `json:"had_agents,omitempty"`
	Zones     []string `json:"zones,omitempty"`
	Nodes     []node   `json:"nodes"`
}

// agentSettings are what all agents of a cluster have in common.
type agentSettings struct {
	CPUs               api.CPU  `json:"cpus"`
	Memory             api.Size `json:"memory"`
	WarmCount          int      `json:"warm_count,omitempty"`
	Starts             int      `json:"starts"`
	DefaultRegistry    string   `json:"default_registry,omitempty"`
	InsecureRegistries []string `json:"insecure_registries,omitempty"`
}

// node is one process with its addresses, host:port.
type node struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Role   string `json:"role"`
	Zone   string `json:"zone"`
	HTTP   string `json:"http,omitempty"`
	Health string `json:"health"`
	RPC    string `json:"rpc,omitempty"`
	Raft   string `json:"raft,omitempty"`
	Gossip string `json:"gossip"`
	Output string `json:"output,omitempty"`
	Debug  string `json:"debug,omitempty"`
}

// plan draws up a cluster: names, ids, zones, ports and keys. It writes nothing.
func plan(o Options) (*cluster, error) {
	ports, err := freePorts(5*o.Controls + 3*o.Agents)
	if err != nil {
		return nil, err
	}
	next := func() string {
		port := ports[0]
		ports = ports[1:]
		return local(port)
	}
	credentials := clusterfiles.NewCredentials()
	c := &cluster{dir: o.Dir, patience: termWithin, Name: "dev-" + credentials.Key[:8], DockerHost: o.DockerHost,
		Key: credentials.Key, Secret: credentials.Secret,
		Fenced: os.Geteuid() == 0, Zones: o.Zones, Limited: o.Limits,
		Agents: agentSettings{CPUs: o.AgentCPUs, Memory: o.AgentMemory, WarmCount: o.WarmCount,
			Starts:          max(1, engineStarts/max(1, o.Agents)),
			DefaultRegistry: o.DefaultRegistry, InsecureRegistries: o.InsecureRegistries}}
	for i := range o.Controls {
		c.Nodes = append(c.Nodes, node{ID: ulid.Make().String(), Name: fmt.Sprintf("c%d", i+1), Role: roleControl,
			Zone: o.Zones[i%len(o.Zones)], HTTP: local(o.HTTPPort + i), Health: next(), RPC: next(), Raft: next(), Gossip: next()})
		if o.Debug {
			c.Nodes[i].Debug = next()
		}
	}
	for i := range o.Agents {
		c.Nodes = append(c.Nodes, node{ID: ulid.Make().String(), Name: fmt.Sprintf("a%d", i+1), Role: roleAgent,
			Zone: o.Zones[i%len(o.Zones)], Health: next(), Gossip: next(), Output: next()})
	}
	return c, nil
}

// claim makes the cluster's directory its own, by creating the record there.
func (c *cluster) claim() error {
	err := os.Mkdir(c.dir, 0o700)
	c.MadeDir = err == nil
	if errors.Is(err, fs.ErrNotExist) {
		err = os.MkdirAll(c.dir, 0o700)
		c.MadeDir = true
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the cluster's directory: %w", err)
	}
	if err := checkDir(c.dir); err != nil {
		return err
	}
	text, err := c.record()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(c.path(recordFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return usedDirectory(c.dir)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

func (c *cluster) record() ([]byte, error) {
	text, err := json.MarshalIndent(c, "", "  ")
	return append(text, '\n'), err
}

// save replaces the record by what the cluster is now.
func (c *cluster) save() error {
	text, err := c.record()
	if err != nil {
		return err
	}
	next := c.path(recordFile + ".tmp")
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, c.path(recordFile))
}

// checkDir refuses a directory with something in it; one that is not there is
// fine.
func checkDir(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look into the cluster's directory: %w", err)
	case len(entries) > 0:
		return usedDirectory(dir)
	}
	return nil
}

// usedDirectory says what is in a directory that cannot be taken, and what to do.
func usedDirectory(dir string) error {
	c, err := open(dir)
	if err != nil {
		return fmt.Errorf("%s is not empty: choose another directory with --dir", dir)
	}
	running, err := c.running()
	if err != nil || len(running) == 0 {
		return fmt.Errorf("%s holds a cluster that does not run: remove it with `ecsctl dev down --dir %s`, or choose another directory with --dir", dir, shellescape.Quote(dir))
	}
	return fmt.Errorf("the cluster in %s is up already (%d of %d processes): see `ecsctl dev status --dir %s`, end it with `ecsctl dev down --dir %s`, or choose another directory with --dir",
		dir, len(running), len(c.processes()), shellescape.Quote(dir), shellescape.Quote(dir))
}

// realDir is what every spelling of a directory comes to, links resolved as far as
// it exists: the cluster's processes are found by it in their command lines.
func realDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, fs.ErrNotExist) && abs != filepath.Dir(abs) {
		parent, err := realDir(filepath.Dir(abs))
		return filepath.Join(parent, filepath.Base(abs)), err
	}
	return real, err
}

// open reads the record of the cluster in dir.
func open(dir string) (*cluster, error) {
	if dir == "" {
		dir = DefaultDir
	}
	dir, err := realDir(dir)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return nil, err
	}
	c := &cluster{dir: dir, patience: termWithin}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, recordFile), err)
	}
	return c, nil
}

// certLifetime is far longer than anyone keeps a cluster for development.
const certLifetime = 365 * 24 * time.Hour

// writeFiles makes the keys, and each node's directory with its settings.
func (c *cluster) writeFiles(o Options) error {
	now := time.Now()
	ca, err := clusterfiles.Init(c.dir, c.Name, now)
	if err != nil {
		return err
	}
	if err := clusterfiles.AppendHtpasswd(c.path(htpasswdFile), clusterfiles.Credentials{Key: c.Key, Secret: c.Secret}); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if err := c.writeNode(ca, n, o.Controls); err != nil {
			return err
		}
	}
	return nil
}

// writeNode makes a node's certificate and settings. expect is how many control
// nodes form a new cluster; 0: they join this one.
func (c *cluster) writeNode(ca *pki.CA, n node, expect int) error {
	id := pki.Identity{Cluster: c.Name, Role: pki.Role(n.Role), ID: n.ID}
	if err := clusterfiles.IssueNode(ca, id, c.path(n.Name), []string{"127.0.0.1"}, time.Now(), certLifetime); err != nil {
		return fmt.Errorf("make the certificate of %s: %w", n.Name, err)
	}
	if err := c.writeSettings(n, expect); err != nil {
		return fmt.Errorf("write the settings of %s: %w", n.Name, err)
	}
	return nil
}

func (c *cluster) status(ctx context.Context) (*Status, error) {
	running, err := c.running()
	if err != nil {
		return nil, err
	}
	s := &Status{Dir: c.dir, Cluster: c.Name, Key: c.Key, Secret: c.Secret}
	leader := c.leader(ctx)
	for _, n := range c.Nodes {
		shown := Node{Name: n.Name, Role: n.Role, Zone: n.Zone, PID: running[n.Name],
			Health: "http://" + n.Health, Leader: n.ID == leader}
		if c.fenced(n) {
			shown.fenced, shown.FencePID = true, running[fenceName(n)]
		}
		if n.Role == roleControl {
			shown.HTTP, shown.RPC = "http://"+n.HTTP, n.RPC
			if n.Debug != "" {
				shown.Debug = "http://" + n.Debug + "/debug/pprof/"
			}
			s.Endpoints = append(s.Endpoints, shown.HTTP)
		}
		s.Nodes = append(s.Nodes, shown)
	}
	return s, nil
}

// leader is the leading node's id, or empty when nobody says.
func (c *cluster) leader(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for _, n := range c.Nodes {
		if n.Role != roleControl {
			continue
		}
		client, err := c.client(n)
		if err != nil {
			continue
		}
		if info, err := client.Cluster(ctx); err == nil && info.Leader != "" {
			return info.Leader
		}
	}
	return ""
}

// client asks one control node, and it alone, once.
func (c *cluster) client(n node) (*api.Client, error) {
	return api.New([]string{"http://" + n.HTTP}, c.Key, c.Secret, api.WithPatience(0))
}

// path names a file in the cluster's directory.
func (c *cluster) path(parts ...string) string {
	return filepath.Join(append([]string{c.dir}, parts...)...)
}
