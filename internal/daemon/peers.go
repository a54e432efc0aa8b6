package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"

	"ecs/internal/gossip"
)

// peersFile names the control nodes that a node knew last, one gossip address a
// line. A node that starts again looks for its cluster there too, for all those
// that its settings name may have left since.
const peersFile = "peers"

// mostPeers bounds the file.
const mostPeers = 32

// Peers reads the addresses that KeepPeers wrote. A file that can't be read is as
// good as none: it only helps.
func (d *DataDir) Peers(log *slog.Logger) []string {
	text, err := os.ReadFile(d.Path(peersFile))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			log.Warn("known control nodes not read", "err", err)
		}
		return nil
	}
	return strings.Fields(string(text))
}

// KeepPeers writes down where gossip shows control nodes, whenever that changes,
// until ctx ends. What gossip shows no more stays until others take its place.
func (d *DataDir) KeepPeers(ctx context.Context, members *gossip.Members, log *slog.Logger) {
	written := d.Peers(log)
	for {
		changed := members.Changed()
		if now := peers(members, written); len(now) > 0 && !slices.Equal(now, written) {
			if err := writeSynced(d.Path(peersFile), strings.Join(now, "\n")+"\n"); err != nil {
				log.Warn("known control nodes not written down", "err", err)
			}
			written = now
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// peers are the control nodes but this one, and of those before as many as it
// takes to have a few.
func peers(members *gossip.Members, before []string) []string {
	const few = 5
	self := members.Addr()
	var now []string
	for _, m := range members.Snapshot() {
		if m.Role == "control" && m.GossipAddr != "" && m.GossipAddr != self {
			now = append(now, m.GossipAddr)
		}
	}
	for _, addr := range before {
		if len(now) < few && addr != self && !slices.Contains(now, addr) {
			now = append(now, addr)
		}
	}
	slices.Sort(now)
	return now[:min(len(now), mostPeers)]
}

// Forget removes what only counts for the cluster that the node has just left:
// the peers, and the parts of the directory that are named.
func (d *DataDir) Forget(parts ...string) error {
	var faults []error
	for _, part := range append(parts, peersFile) {
		if err := os.RemoveAll(d.Path(part)); err != nil {
			faults = append(faults, fmt.Errorf("forget the cluster that was left: %w", err))
		}
	}
	return errors.Join(faults...)
}
