package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"ecs/internal/clusterfiles"
	"ecs/internal/pki"
	"ecs/proto/api"
)

// The ports are the same in every namespace.
const (
	httpPort, healthPort, rpcPort, raftPort, gossipPort, outputPort = "8448", "8080", "7448", "7449", "7946", "7450"
)

// The shape of a cluster: three zones for processes, two more for containers, so
// that a task's zones say which of the two it is for.
var (
	controlZones   = []string{"a", "b", "c"}
	processZones   = []string{"a", "b", "c", "a"}
	containerZones = []string{"d", "e"}
	// engineZone is the one whose agent has an engine of its own, which may be killed.
	engineZone = "e"
)

// cluster is one of real processes, each with a network of its own.
type cluster struct {
	dir, name, key, secret, bin string
	witness                     string // directory where programs tell of their life
	net                         *network
	nodes                       []*node
	snapshotEntries             int // a few hundred: there are to be snapshots, and logs that were cut short
}

// node is one process, and an agent's fence.
type node struct {
	c                        *cluster
	name, zone, addr, dir    string
	control, containers      bool
	binary                   []string
	mu                       sync.Mutex
	process, fence, daemon   *exec.Cmd
	processEnded, fenceEnded chan struct{}
	daemonEnded              chan struct{}
	engine                   *engine // nil: the machine's, or none
	endedByItself            error
	expected                 bool // its end is ours
	client                   *api.Client
}

// newCluster makes the files and the network of a cluster and starts nothing. tag
// is the cluster's name and begins those of all that it makes, so that a janitor
// finds it.
func newCluster(dir, tag, bin string, snapshotEntries int, withContainers bool) (*cluster, error) {
	credentials := clusterfiles.NewCredentials()
	c := &cluster{dir: dir, name: tag, key: credentials.Key, secret: credentials.Secret, bin: bin,
		snapshotEntries: snapshotEntries, witness: filepath.Join(dir, "witness")}
	var err error
	if c.net, err = newNetwork(tag); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for i, zone := range controlZones {
		c.nodes = append(c.nodes, &node{c: c, name: fmt.Sprint("c", i+1), zone: zone, control: true, binary: []string{filepath.Join(bin, "ecs-control")}})
	}
	for i, zone := range processZones {
		c.nodes = append(c.nodes, &node{c: c, name: fmt.Sprint("p", i+1), zone: zone, binary: []string{self, agentCommand}})
	}
	for i, zone := range containerZones {
		if withContainers {
			c.nodes = append(c.nodes, &node{c: c, name: fmt.Sprint("d", i+1), zone: zone, containers: true, binary: []string{filepath.Join(bin, "ecs-agent")}})
		}
	}
	return c, c.write(credentials)
}

func (c *cluster) write(credentials clusterfiles.Credentials) error {
	if err := os.MkdirAll(c.witness, 0o700); err != nil {
		return err
	}
	ca, err := clusterfiles.Init(c.dir, c.name, time.Now())
	if err != nil {
		return err
	}
	if err := clusterfiles.AppendHtpasswd(filepath.Join(c.dir, "htpasswd"), credentials); err != nil {
		return err
	}
	for _, n := range c.nodes {
		n.dir = filepath.Join(c.dir, n.name)
		if n.containers && n.zone == engineZone {
			if n.engine, err = newEngine(n, c.name); err != nil {
				return err
			}
		}
		if n.addr, err = c.net.add(n.name); err != nil {
			return err
		}
		role := pki.RoleAgent
		if n.control {
			role = pki.RoleControl
			if n.client, err = api.New([]string{"http://" + n.addr + ":" + httpPort}, c.key, c.secret, api.WithPatience(0)); err != nil {
				return err
			}
		}
		id := pki.Identity{Cluster: c.name, Role: role, ID: n.name}
		if err := clusterfiles.IssueNode(ca, id, n.dir, []string{n.addr}, time.Now(), 24*time.Hour); err != nil {
			return err
		}
	}
	for _, n := range c.nodes {
		if err := n.write(); err != nil {
			return err
		}
	}
	return nil
}

// write writes the node's settings.
func (n *node) write() error {
	at := func(port string) string { return n.addr + ":" + port }
	var join []string
	for _, other := range n.c.controls() {
		if other != n {
			join = append(join, other.addr+":"+gossipPort)
		}
	}
	in := func(name string) string { return filepath.Join(n.c.dir, name) }
	settings := map[string]any{
		"name": n.name, "zone": n.zone, "data_dir": filepath.Join(n.dir, "data"), "join": join, "gossip_addr": at(gossipPort),
		"health_addr": at(healthPort), "ca": in(clusterfiles.CACert), "cert": filepath.Join(n.dir, clusterfiles.NodeCert),
		"key": filepath.Join(n.dir, clusterfiles.NodeKey), "gossip_key": in(clusterfiles.GossipKey), "log_level": "info",
	}
	more := map[string]any{"output_addr": at(outputPort), "cpus": "4", "memory": "4GiB", "witness": n.c.witness}
	switch {
	case n.control:
		more = map[string]any{"bootstrap_expect": len(controlZones), "http_addr": at(httpPort), "rpc_addr": at(rpcPort),
			"raft_addr": at(raftPort), "htpasswd": in("htpasswd"), "htpasswd_role": "admin", "seal_key": in(clusterfiles.SealKey),
			"snapshot_entries": n.c.snapshotEntries, "snapshot_interval": "5s",
			"insecure_listen": true} // the namespaces' network is nobody else's
		for _, limit := range []string{"key_rate", "key_concurrency", "key_quota", "address_rate", "address_concurrency"} {
			more[limit] = 0 // there is one key, and it asks a lot
		}
	case n.containers:
		delete(more, "witness")
		more["cpus"], more["memory"], more["egress"], more["grace"], more["starts"] = "0.75", "1GiB", false, "1s", 2
		more["fence_socket"] = filepath.Join(n.dir, "fence.sock")
		if err := writeYAML(filepath.Join(n.dir, "fence.yaml"), map[string]any{"socket": more["fence_socket"],
			"state_dir": filepath.Join(n.dir, "fence"), "log_level": "info"}); err != nil {
			return err
		}
	}
	if n.engine != nil {
		more["docker_host"] = n.engine.host()
	}
	for name, value := range more {
		settings[name] = value
	}
	return writeYAML(filepath.Join(n.dir, "config.yaml"), settings)
}

func writeYAML(path string, settings map[string]any) error {
	text, err := yaml.Marshal(settings)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

func (c *cluster) controls() []*node { return c.nodes[:len(controlZones)] }
func (c *cluster) agents() []*node   { return c.nodes[len(controlZones):] }

// launch starts a process inside the node's network.
func (n *node) launch(log string, args ...string) (*exec.Cmd, chan struct{}, error) {
	f, err := os.OpenFile(filepath.Join(n.dir, log), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	args = n.c.net.inside(n.name, args...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = n.dir, f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", n.name, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := cmd.Wait()
		n.mu.Lock()
		defer n.mu.Unlock()
		if !n.expected {
			n.endedByItself = errors.Join(n.endedByItself, fmt.Errorf("%s (%s) ended by itself: %w", n.name, log, err))
		}
	}()
	return cmd, ended, nil
}

// expect says that what ends now of the node does so because it is to.
func (n *node) expect() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expected = true
}

// start starts the node, and the fence of one with containers unless it runs.
func (n *node) start() (err error) {
	n.mu.Lock()
	n.expected = false
	n.mu.Unlock()
	if n.containers && n.fence == nil {
		if n.fence, n.fenceEnded, err = n.launch("fence.log", filepath.Join(n.c.bin, "ecs-fence"), "--config", filepath.Join(n.dir, "fence.yaml")); err != nil {
			return err
		}
	}
	args := append(append([]string{}, n.binary...), "--config", filepath.Join(n.dir, "config.yaml"))
	n.process, n.processEnded, err = n.launch("daemon.log", args...)
	return err
}

// end sends a signal that ends the node's process, and waits for that.
func (n *node) end(ctx context.Context, s syscall.Signal) (*os.ProcessState, error) {
	n.expect()
	if err := n.process.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return nil, err
	}
	select {
	case <-n.processEnded:
		return n.process.ProcessState, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s does not end after %s: %w", n.name, s, ctx.Err())
	}
}

// stopped reports whether the kernel says that the process is stopped.
func (n *node) stopped() bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.process.Process.Pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	return err == nil && strings.HasPrefix(rest, "T")
}

// leader is who leads with the highest term, or nil.
func (c *cluster) leader(ctx context.Context) (leader *node, term uint64) {
	for _, n := range c.controls() {
		one, cancel := context.WithTimeout(ctx, time.Second)
		info, err := n.client.Cluster(one)
		cancel()
		if err == nil && info.Leader == n.name && info.Term >= term {
			leader, term = n, info.Term
		}
	}
	return leader, term
}

// ready waits until every agent is registered and every node sees all others.
func (c *cluster) ready(ctx context.Context) error {
	return until(ctx, "every node ready, on every control node", func() bool {
		for _, n := range c.controls() {
			one, cancel := context.WithTimeout(ctx, 2*time.Second)
			nodes, err := n.client.Nodes(one)
			info, err2 := n.client.Cluster(one)
			cancel()
			if err != nil || err2 != nil || info.Leader == "" || len(info.Members) != len(c.nodes) {
				return false
			}
			ready := 0
			for _, a := range nodes {
				if a.Status == "ready" && a.Unfit == "" {
					ready++
				}
			}
			if ready != len(c.agents()) {
				return false
			}
		}
		return true
	})
}

// until waits for a condition.
func until(ctx context.Context, what string, ok func() bool) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not in time: %s: %w", what, ctx.Err())
		}
	}
	return nil
}

// close ends every process, in good order where that goes: agents first, for they
// clear away what they made. What is there after that is for remains.
func (c *cluster) close(ctx context.Context) error {
	var errs []error
	for _, group := range [][]*node{c.agents(), c.controls()} {
		var all sync.WaitGroup
		for _, n := range group {
			if n.process == nil {
				continue
			}
			all.Go(func() {
				_ = n.process.Process.Signal(syscall.SIGCONT) // it may be stopped
				if _, err := n.end(ctx, syscall.SIGTERM); err != nil {
					_, _ = n.end(context.WithoutCancel(ctx), syscall.SIGKILL)
				}
			})
		}
		all.Wait()
	}
	for _, n := range c.nodes {
		errs = append(errs, n.endFence(ctx))
		if n.engine != nil {
			errs = append(errs, n.engine.end(ctx))
		}
		if n.client != nil {
			n.client.Close()
		}
	}
	http.DefaultClient.CloseIdleConnections()
	return errors.Join(errs...)
}

// endFence ends the node's fence, if it has one.
func (n *node) endFence(ctx context.Context) error {
	if n.fence == nil {
		return nil
	}
	n.expect()
	_ = n.fence.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.fenceEnded:
		return nil
	case <-ctx.Done():
		err := n.fence.Process.Kill()
		<-n.fenceEnded
		return errors.Join(fmt.Errorf("the fence of %s does not end: %w", n.name, ctx.Err()), err)
	}
}
