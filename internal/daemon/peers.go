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

// controlsFile names them by their gRPC addresses: a node that gossip does not let in
// gets the keys for it there.
const controlsFile = "controls"

// mostPeers bounds each file.
const mostPeers = 32

// Peers reads the gossip addresses that KeepPeers wrote. A file that can't be read
// is as good as none: it only helps.
func (d *DataDir) Peers(log *slog.Logger) []string { return d.addresses(peersFile, log) }

// Controls reads the gRPC addresses that KeepPeers wrote.
func (d *DataDir) Controls(log *slog.Logger) []string { return d.addresses(controlsFile, log) }

func (d *DataDir) addresses(file string, log *slog.Logger) []string {
	text, err := os.ReadFile(d.Path(file))
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
	kept := []*addressList{
		{file: peersFile, of: func(m gossip.Member) string { return m.GossipAddr }},
		{file: controlsFile, of: func(m gossip.Member) string { return m.RPCAddr }},
	}
	for _, list := range kept {
		list.written = d.addresses(list.file, log)
	}
	for {
		changed := members.Changed()
		for _, list := range kept {
			list.keep(d, members, log)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// addressList is one of the files.
type addressList struct {
	file    string
	of      func(gossip.Member) string
	written []string
}

func (l *addressList) keep(d *DataDir, members *gossip.Members, log *slog.Logger) {
	now := peers(members, l.of, l.written)
	if len(now) == 0 || slices.Equal(now, l.written) {
		return
	}
	if err := writeSynced(d.Path(l.file), strings.Join(now, "\n")+"\n"); err != nil {
		log.Warn("known control nodes not written down", "err", err)
	}
	l.written = now
}

// peers are the addresses of control nodes but this one, and of those before as many
// as it takes to have a few.
func peers(members *gossip.Members, of func(gossip.Member) string, before []string) []string {
	const few = 5
	self := of(members.Self())
	var now []string
	for _, m := range members.Snapshot() {
		if addr := of(m); m.Role == "control" && addr != "" && addr != self {
			now = append(now, addr)
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
	for _, part := range append(parts, peersFile, controlsFile) {
		if err := os.RemoveAll(d.Path(part)); err != nil {
			faults = append(faults, fmt.Errorf("forget the cluster that was left: %w", err))
		}
	}
	return errors.Join(faults...)
}
