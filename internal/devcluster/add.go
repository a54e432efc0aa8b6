package devcluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"al.essio.dev/pkg/shellescape"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sys/unix"

	"ecs/internal/admin"
	"ecs/internal/clusterfiles"
)

// AddOptions say what is to come to a cluster that runs.
type AddOptions struct {
	Dir              string // default .ecs-dev
	Agents, Controls int
	// Zone is theirs; default the cluster's zones, those first that have fewest.
	Zone     string
	Binaries string        // as in Options
	Within   time.Duration // how long it may take; default 60s
	Progress io.Writer
}

const maxNodes = 120

// Add starts further nodes of the cluster in a directory and has them join, one
// after the other. Nodes that are ready stay when a later one fails; what is left
// of that one is removed, unless it is a control node that the others need by now.
func Add(ctx context.Context, o AddOptions) (*Status, error) {
	base, err := Options{Dir: o.Dir, Binaries: o.Binaries, Within: o.Within, Progress: o.Progress}.withDefaults()
	if err != nil {
		return nil, err
	}
	if o.Agents < 0 || o.Controls < 0 || o.Agents+o.Controls == 0 {
		return nil, errors.New("how many? give --agents, --controls or both")
	}
	c, unlock, err := change(base.Dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if have := len(c.Nodes) + o.Agents + o.Controls; have > maxNodes {
		return nil, fmt.Errorf("that makes %d nodes, more than the %d that fit", have, maxNodes)
	}
	ctx, cancel := context.WithTimeout(ctx, base.Within)
	defer cancel()
	for _, role := range append(slices.Repeat([]string{roleControl}, o.Controls), slices.Repeat([]string{roleAgent}, o.Agents)...) {
		if err := c.add(ctx, role, o.Zone, base); err != nil {
			return nil, err
		}
	}
	return c.status(ctx)
}

// change opens a cluster to add or remove nodes, which one process does at a time.
func change(dir string) (*cluster, func(), error) {
	lock, err := os.OpenFile(filepath.Join(dir, recordFile), os.O_RDWR, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("no cluster in %s (`ecsctl dev up --dir %s` starts one): %w", dir, shellescape.Quote(dir), err)
	}
	dirLock, err := os.Open(dir)
	if err := errors.Join(err, lock.Close()); err != nil {
		return nil, nil, err
	}
	if err := unix.Flock(int(dirLock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("another process changes the cluster in %s: %w", dir, err), dirLock.Close())
	}
	c, err := open(dir)
	if err != nil {
		return nil, nil, errors.Join(err, dirLock.Close())
	}
	return c, func() { _ = dirLock.Close() }, nil // closing unlocks
}

// add starts one node and waits until it has joined.
func (c *cluster) add(ctx context.Context, role, zone string, o Options) error {
	n, err := c.planOne(role, zone)
	if err != nil {
		return err
	}
	ca, err := clusterfiles.OpenCA(c.dir)
	if err != nil {
		return err
	}
	through := c.gossipAddrs(n)
	// The record first: whatever happens, dev down finds it.
	c.Nodes = append(c.Nodes, n)
	if err := c.save(); err != nil {
		return err
	}
	err = errors.Join(c.writeNode(ca, n, 0), c.giveRing(n))
	if err == nil {
		o.say("%s: starting (%s, zone %s)", n.Name, n.Role, n.Zone)
		err = c.startNode(n, o.Binaries)
	}
	if err == nil {
		err = c.join(ctx, n, through, o)
	}
	if err == nil {
		return nil
	}
	o.say("%s: removing what was started", n.Name)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downWithin)
	defer cancel()
	err = fmt.Errorf("add %s: %w", n.Name, err)
	// It may have been taken in before it failed, and have a vote.
	if kept := c.forceOut(ctx, n, o); kept != nil {
		return errors.Join(err, fmt.Errorf("%s is there still (ecsctl dev remove --force %[1]s): %w", n.Name, kept))
	}
	return errors.Join(err, c.discard(ctx, n))
}

// giveRing gives a new node the gossip keys that another one has: the key in the
// cluster's own file opens nothing once it was rotated.
func (c *cluster) giveRing(n node) error {
	for _, other := range c.Nodes {
		ring, err := os.ReadFile(c.path(other.Name, "data", clusterfiles.GossipRing))
		if err != nil {
			continue // not rotated, or just gone
		}
		if err := os.MkdirAll(c.path(n.Name, "data"), 0o700); err != nil {
			return err
		}
		return os.WriteFile(c.path(n.Name, "data", clusterfiles.GossipRing), ring, 0o600)
	}
	return nil
}

// planOne draws up one more node.
func (c *cluster) planOne(role, zone string) (node, error) {
	prefix := "a"
	if role == roleControl {
		prefix = "c"
	}
	last, httpPort := 0, 0
	zones := make(map[string]int)
	for _, z := range c.Zones {
		zones[z] = 0
	}
	for _, n := range c.Nodes {
		if number, err := strconv.Atoi(strings.TrimPrefix(n.Name, prefix)); err == nil {
			last = max(last, number)
		}
		if n.Role == roleControl {
			_, port, _ := strings.Cut(n.HTTP, ":")
			number, _ := strconv.Atoi(port)
			httpPort = max(httpPort, number)
		}
		zones[n.Zone] += 0
		if n.Role == role {
			zones[n.Zone]++
		}
	}
	if zone == "" {
		zone = slices.MinFunc(slices.Sorted(maps.Keys(zones)), func(a, b string) int { return cmp.Compare(zones[a], zones[b]) })
	}
	ports, err := freePorts(4)
	if err != nil {
		return node{}, err
	}
	n := node{ID: ulid.Make().String(), Name: prefix + strconv.Itoa(last+1), Role: role, Zone: zone, Health: local(ports[0]), Gossip: local(ports[1])}
	if role == roleAgent {
		n.Output = local(ports[2])
		return n, nil
	}
	n.RPC, n.Raft = local(ports[2]), local(ports[3])
	for httpPort++; httpPort < 65535; httpPort++ {
		if checkPort(httpPort) == nil {
			n.HTTP = local(httpPort)
			return n, nil
		}
	}
	return node{}, errors.New("no free port for HTTP above those of the other control nodes")
}

func (c *cluster) processesOf(n node) (all []process) {
	for _, p := range c.processes() {
		if p.dir == n.Name {
			all = append(all, p)
		}
	}
	return all
}

func (c *cluster) startNode(n node, binaries string) error {
	for _, p := range c.processesOf(n) {
		if err := c.start(p, binaries); err != nil {
			return err
		}
	}
	return nil
}

// join has a node that was started join, and waits until it is ready.
func (c *cluster) join(ctx context.Context, n node, through []string, o Options) error {
	door := admin.NewClient(c.path(n.Name, "data"))
	if err := c.untilUp(ctx, n, func() error { _, err := door.About(ctx); return err }); err != nil {
		return err
	}
	if err := door.Join(ctx, through, func(text string) { o.say("%s: %s", n.Name, text) }); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	return c.untilUp(ctx, n, func() error { return healthy(ctx, n.Health) })
}

// untilUp waits until a node that was started is as it should be, or has died.
func (c *cluster) untilUp(ctx context.Context, n node, is func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, p := range c.processesOf(n) {
			running, err := c.running()
			if err != nil {
				return err
			}
			if running[p.name] == 0 && c.ended(p) {
				return fmt.Errorf("%s ended by itself; the end of its log:\n%s", p.name, c.logTail(p.log))
			}
		}
		err := is()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not in time: %w; the end of its log:\n%s", err, c.logTail(nodeProcess(n).log))
		}
	}
}
