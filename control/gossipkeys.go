package control

import (
	"context"
	"errors"
	"fmt"

	"ecs/control/state"
	"ecs/internal/gossip"
	"ecs/internal/seal"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// Keys of gossip enter the record sealed, as credentials do: the log carries a new
// one to every control node, also past a change of the leader, and whoever reads log,
// snapshot or archive without the seal key has nothing. Nodes get them open, over
// mutual TLS.

// boundTo ties a sealed gossip key to its id, so that none passes for another.
func boundTo(id string) []byte { return []byte("gossip key " + id) }

func sealKey(box *seal.Box, key []byte) (state.GossipKey, error) {
	id := gossip.KeyID(key)
	sealed, err := box.Seal(key, boundTo(id))
	if err != nil {
		return state.GossipKey{}, fmt.Errorf("seal gossip key %s: %w", id, err)
	}
	return state.GossipKey{ID: id, Sealed: sealed}, nil
}

// openRing gives the keys of a ring.
func openRing(box *seal.Box, g *state.GossipKeys) ([][]byte, error) {
	keys := make([][]byte, len(g.Ring))
	for i, k := range g.Ring {
		var err error
		if keys[i], err = box.Open(k.Sealed, boundTo(k.ID)); err != nil {
			return nil, fmt.Errorf("open gossip key %s with this node's seal key: %w", k.ID, err)
		}
	}
	return keys, nil
}

// gossipKeys gives nodes the ring of the record.
type gossipKeys struct {
	rpc.UnimplementedGossipKeysServer
	s *Server
}

// Ring implements rpc.GossipKeysServer. Who asks confirms with it the ring that it
// has: the leader goes on to the next step of a rotation by that.
func (k *gossipKeys) Ring(ctx context.Context, held *ecsv1.GossipHeld) (*ecsv1.GossipRing, error) {
	peer, err := k.s.cfg.Peer(ctx)
	if err != nil {
		return nil, err
	}
	if id, _ := k.s.replica.Leader(); id == "" {
		// What this record says may long be over.
		return &ecsv1.GossipRing{Refusal: taskwire.FromError(errNoLeader)}, nil
	}
	switch refusal, err := asRefusal(k.s.confirmRing(ctx, peer.ID, held.GetVersion())); {
	case err != nil:
		return nil, err
	case refusal != nil:
		return &ecsv1.GossipRing{Refusal: taskwire.FromError(refusal)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, rpc.RingHold)
	defer cancel()
	for {
		sn := k.s.store.Snapshot()
		if g := sn.GossipKeys(); g != nil && g.Version > held.GetVersion() {
			keys, err := openRing(k.s.cfg.Seal, g)
			if err != nil {
				k.s.cfg.Log.ErrorContext(ctx, "gossip keys not given", "to", peer.ID, "err", err)
				return nil, err
			}
			return &ecsv1.GossipRing{Version: g.Version, Keys: keys}, nil
		}
		select {
		case <-sn.WatchGossipKeys():
		case <-ctx.Done():
			return &ecsv1.GossipRing{Version: held.GetVersion()}, nil
		}
	}
}

// confirmRing has the record say which ring a node holds. A ring that the record does
// not have, because it was recovered say, is nothing to confirm.
func (s *Server) confirmRing(ctx context.Context, node string, version uint64) error {
	if version == 0 || s.store.Snapshot().GossipVersion(node) >= version {
		return nil
	}
	err := s.change(ctx, state.ConfirmGossipKey{Node: node, Version: version}, "confirm gossip keys")
	if errors.Is(err, &task.Error{Code: task.CodeStale}) {
		return nil
	}
	return err
}
