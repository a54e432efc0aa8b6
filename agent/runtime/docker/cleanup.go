package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"ecs/internal/initwire"
	"ecs/internal/telemetry"
)

// Cleanup removes everything of a cluster from an engine: the containers of all
// its agents with their directories, its network and its firewall rules. It says how many things it
// removed. It is for when the whole cluster is gone from this machine; a
// running agent's containers end as interrupted.
func Cleanup(ctx context.Context, c *client.Client, cluster string) (removed int, err error) {
	if cluster == "" {
		return 0, errors.New("clean up: no cluster named")
	}
	removed, errContainers := cleanContainers(ctx, c, cluster, ofCluster(cluster))
	networks := 0
	errNetworks := withLock(ctx, networkName(cluster), func() (err error) {
		networks, err = removeNetworks(ctx, c, cluster)
		return err
	})
	removed += networks
	if err := errors.Join(errContainers, errNetworks); err != nil {
		return removed, fmt.Errorf("clean up cluster %s: %w", cluster, err)
	}
	return removed, nil
}

// CleanupNode removes the containers of one agent of a cluster, with their
// directories. It is for when that agent is gone from this machine.
func CleanupNode(ctx context.Context, c *client.Client, cluster, node string) (removed int, err error) {
	if cluster == "" || node == "" {
		return 0, errors.New("clean up: no cluster or no node named")
	}
	only := ofCluster(cluster)
	only.Add("label", labelNode+"="+node)
	return cleanContainers(ctx, c, cluster, only)
}

// cleanContainers removes the containers of a cluster that a filter lets through.
func cleanContainers(ctx context.Context, c *client.Client, cluster string, only filters.Args) (removed int, err error) {
	r := New(Config{Client: c, Cluster: cluster, Log: slog.New(slog.DiscardHandler), Metrics: telemetry.Discard()})
	found, err := c.ContainerList(ctx, container.ListOptions{All: true, Filters: only})
	if err != nil {
		return 0, fmt.Errorf("clean up cluster %s: list containers: %w", cluster, err)
	}
	ids := make([]string, len(found))
	var homes []home
	for i := range found {
		ids[i] = found[i].ID
		homes = append(homes, homesOf(found[i])...)
	}
	removed, err = r.removeAll(ctx, ids)
	for _, h := range homes {
		err = errors.Join(err, h.remove())
	}
	return removed, err
}

// homesOf are the directories that a container's attempt has on this machine.
func homesOf(c container.Summary) []home {
	var found []home
	for _, m := range c.Mounts {
		t, ok := tokenOfHome(filepath.Base(m.Source))
		if !ok || m.Destination != initwire.Dir || !filepath.IsAbs(m.Source) {
			continue
		}
		found = append(found, home{m.Source})
		if isParking(t) { // an attempt may have it since
			found = append(found, (&homes{root: filepath.Dir(m.Source)}).renamed(m.Source)...)
		}
	}
	return found
}

// removeNetworks removes a cluster's network and then its rules, which stay
// when the network does. The caller holds the lock.
func removeNetworks(ctx context.Context, c *client.Client, cluster string) (removed int, err error) {
	found, err := c.NetworkList(ctx, network.ListOptions{Filters: ofCluster(cluster)})
	if err != nil {
		return 0, fmt.Errorf("list networks: %w", err)
	}
	for _, n := range found {
		if err := c.NetworkRemove(ctx, n.ID); err != nil && !errdefs.IsNotFound(err) {
			return removed, fmt.Errorf("remove network %s: %w", n.Name, err)
		}
		removed++
	}
	rules, err := removeRules(ctx, cluster)
	return removed + rules, err
}
