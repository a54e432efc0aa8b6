package ecstest

import (
	"context"
	"slices"
	"sync"

	"ecs/internal/daemon"
	"ecs/internal/gossip"
	"ecs/internal/memnet"
)

// ringDisk is what of gossip a node has on its disk: the keys that it was given, and
// where it last saw control nodes.
type ringDisk struct {
	mu       sync.Mutex
	ring     gossip.Ring
	controls []string
}

func (d *ringDisk) told() (version uint64, keys int, encrypts string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ring.Version == 0 {
		return 0, 0, ""
	}
	return d.ring.Version, len(d.ring.Keys), gossip.KeyID(d.ring.Keys[0])
}

func (d *ringDisk) keyring(c *Cluster) *gossip.Keyring {
	d.mu.Lock()
	start := d.ring
	d.mu.Unlock()
	if start.Version == 0 {
		start = gossip.Ring{Keys: [][]byte{c.gossip}}
	}
	keys, err := gossip.NewKeyring(start, func(r gossip.Ring) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.ring = r
		return nil
	})
	if err != nil {
		c.T.Fatal(err)
	}
	return keys
}

// follow follows the record's ring and remembers control nodes, as the daemons do,
// until ctx ends.
func (d *ringDisk) follow(ctx context.Context, c *Cluster, h *memnet.Host, keys *gossip.Keyring, members *gossip.Members) {
	d.mu.Lock()
	known := slices.Clone(d.controls)
	d.mu.Unlock()
	watch := &daemon.RingWatch{Keys: keys, Known: known, Controls: func() []string { return controlsIn(members) }, Dial: dialer(h), Log: c.logger(h.Name())}
	var watching sync.WaitGroup
	watching.Go(func() { _ = watch.Run(ctx) })
	defer watching.Wait()
	for {
		changed := members.Changed()
		if now := controlsIn(members); len(now) > 0 {
			d.mu.Lock()
			d.controls = now
			d.mu.Unlock()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// controlsIn gives where the control nodes that gossip shows serve gRPC.
func controlsIn(members *gossip.Members) (addrs []string) {
	for _, m := range members.Snapshot() {
		if m.Role == "control" {
			addrs = append(addrs, m.RPCAddr)
		}
	}
	return addrs
}

// RotateGossipKey asks a control node to begin a rotation.
func (n *Control) RotateGossipKey() error {
	return n.server.RotateGossipKey(context.Background(), "test")
}

// Rotating is the step that a rotation is at, as the node's record has it.
func (n *Control) Rotating() string { return n.server.Info(context.Background()).Gossip.Step }

// Gossips counts the members that the node's gossip shows.
func (n *Control) Gossips() int { return len(n.server.Members().Snapshot()) }

// Secret is the key with which the node encrypts gossip.
func (n *Control) Secret() []byte {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	return n.disk.ring.Keys[0]
}

// Outsider gossips with the key that the cluster began with and no certificate. It
// gives how many members that shows, itself among them.
func (c *Cluster) Outsider(name string) (shows func() int) {
	keys := (&ringDisk{}).keyring(c)
	cfg := c.gossipConfig(c.Net.Host(name), keys)
	cfg.Self = gossip.Member{ID: name, Role: "agent", Zone: "a", Version: "test"}
	members := gossip.New(cfg)
	c.running.Go(func() { _ = members.Run(c.ctx) })
	return func() int { return len(members.Snapshot()) }
}

// Ring is the version of the ring that the node has on its disk, how many keys it
// is, and the id of the one that encrypts.
func (n *Control) Ring() (version uint64, keys int, encrypts string) { return n.disk.told() }

// Ring is Control.Ring for an agent.
func (a *Agent) Ring() (version uint64, keys int, encrypts string) { return a.disk.told() }
