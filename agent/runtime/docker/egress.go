package docker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"
)

const (
	// egressFor is how long the network and its rules are believed to stand,
	// and a failure to make them to last.
	// Somebody who flushes the machine's rules opens the hosts for so long.
	egressFor = 15 * time.Second
	lockPause = 20 * time.Millisecond
)

// egress is the one network of a cluster on one engine: a bridge whose tasks
// reach the world, but neither each other, nor a port of the host, nor the
// metadata server, nor what the operator denies them. All agents of the cluster
// on the engine share it, so it stays until Cleanup.
//
// The rules stand before the network is made and until it is gone, and a lock
// keeps other agents of this machine out meanwhile, so the network never exists
// without them.
type egress struct {
	client  *client.Client
	cluster string
	name    string   // of the network and of its bridge
	deny    []string // Config.EgressDeny
	log     *slog.Logger
	turn    chan struct{} // one slot; guards what follows
	checked time.Time     // zero: not yet
	failed  error         // what checking said
}

func newEgress(c *client.Client, cfg Config) *egress {
	return &egress{client: c, cluster: cfg.Cluster, name: networkName(cfg.Cluster), deny: cfg.EgressDeny, log: cfg.Log,
		turn: make(chan struct{}, 1)}
}

var plainName = regexp.MustCompile(`^[a-z0-9]{1,8}$`)

// networkName is short because the kernel allows an interface 15 characters.
func networkName(cluster string) string {
	name := cluster[:min(8, len(cluster))]
	if !plainName.MatchString(name) {
		sum := sha256.Sum256([]byte(cluster))
		name = hex.EncodeToString(sum[:4])
	}
	return "ecs-" + name
}

// ensure makes what is missing and gives the network's name.
func (e *egress) ensure(ctx context.Context) (string, error) {
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if !e.checked.IsZero() && time.Since(e.checked) < egressFor {
		return e.name, e.failed
	}
	err := withLock(ctx, e.name, func() error {
		denied, err := deniedNetworks(e.deny)
		if err != nil {
			return err
		}
		if err := ensureRules(ctx, egressRules(e.name, e.cluster, denied, resolvers())); err != nil {
			return err
		}
		return e.ensureNetwork(ctx)
	})
	if err != nil {
		err = fmt.Errorf("network for tasks: %w", err)
	}
	if ctx.Err() != nil {
		return e.name, err // says nothing about the machine
	}
	e.checked, e.failed = time.Now(), err
	return e.name, err
}

// ensureNetwork makes the network unless it is there. An agent elsewhere that
// makes it at the same moment makes this one's create fail, so look again.
func (e *egress) ensureNetwork(ctx context.Context) error {
	found, err := e.lookup(ctx)
	if err == nil || !errdefs.IsNotFound(err) {
		return errors.Join(err, e.owned(found))
	}
	ctx, cancel := context.WithTimeout(ctx, longCall)
	defer cancel()
	off := false
	_, made := e.client.NetworkCreate(ctx, e.name, network.CreateOptions{
		Driver:     "bridge",
		EnableIPv6: &off,
		Labels:     map[string]string{labelCluster: e.cluster},
		Options: map[string]string{
			"com.docker.network.bridge.name":       e.name,
			"com.docker.network.bridge.enable_icc": "false",
		},
	})
	if made == nil {
		e.log.Info("network made", "network", e.name)
		return nil
	}
	if found, err = e.lookup(ctx); err != nil {
		return fmt.Errorf("create network %s: %w", e.name, made)
	}
	return e.owned(found)
}

func (e *egress) lookup(ctx context.Context) (network.Inspect, error) {
	ctx, cancel := context.WithTimeout(ctx, shortCall)
	defer cancel()
	return e.client.NetworkInspect(ctx, e.name, network.InspectOptions{})
}

func (e *egress) owned(n network.Inspect) error {
	if n.Name == e.name && n.Labels[labelCluster] != e.cluster {
		return fmt.Errorf("network %s belongs to another cluster (%q)", e.name, n.Labels[labelCluster])
	}
	return nil
}

// forget makes the next ensure look again.
func (e *egress) forget(ctx context.Context) error {
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	e.checked = time.Time{}
	return nil
}

// withLock runs do while no other process of this machine runs one under the
// same name. The lock is an abstract socket: no file, and the kernel takes it
// back when its holder dies.
func withLock(ctx context.Context, name string, do func() error) error {
	for {
		held, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@ecs-egress-" + name, Net: "unix"})
		if err == nil {
			defer held.Close()
			return do()
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return fmt.Errorf("lock %s: %w", name, err)
		}
		if !sleep(ctx, lockPause) {
			return fmt.Errorf("lock %s: %w", name, ctx.Err())
		}
	}
}
