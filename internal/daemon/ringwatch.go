package daemon

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"ecs/internal/gossip"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

const (
	// ringWithin bounds one call for the ring.
	ringWithin = rpc.RingHold + 15*time.Second
	// mostControls bounds the addresses that are remembered.
	mostControls = 32
	// catchUpWithin is how long a node that joins may take to get the keys that its
	// cluster has by now.
	catchUpWithin = 15 * time.Second
	// usualRPCPort is where control nodes serve gRPC unless told otherwise.
	usualRPCPort = "7448"
)

// RingWatch has a node gossip with the keys that the cluster's record says, and
// confirm that it does. It needs no gossip for that: a node that was away while the
// key was rotated finds its way back by it.
type RingWatch struct {
	Keys *gossip.Keyring
	// Controls gives the gRPC addresses of control nodes that gossip shows now; those
	// that it showed before are asked too, and Known, in the order of rising doubt.
	Controls func() []string
	Known    []string
	Dial     func(addr string) (*grpc.ClientConn, error)
	Log      *slog.Logger

	mu struct {
		sync.Mutex
		joined  []string      // where the node was told to join
		changed chan struct{} // closed and replaced with every ring that is taken
	}
}

// Run follows the record through one control node after the other until ctx ends.
func (w *RingWatch) Run(ctx context.Context) error {
	var seen []string
	controls := func() []string {
		now := slices.Clone(w.Controls())
		rand.Shuffle(len(now), func(i, j int) { now[i], now[j] = now[j], now[i] })
		seen = distinct(now, seen)
		seen = seen[:min(len(seen), mostControls)]
		return distinct(seen, distinct(w.joining(), w.Known))
	}
	told := ""
	return followInTurn(ctx, controls, w.follow, func(err error) {
		if err.Error() != told {
			told = err.Error()
			w.Log.Debug("gossip keys not followed now", "err", err)
		}
	})
}

// Join has the node join its cluster at the gossip addresses, by what is given. Where
// nobody answers the key may have been rotated since the node got its own: the ring of
// now is asked for at the same hosts, and once it is there the node tries again.
// It needs Run.
func (w *RingWatch) Join(ctx context.Context, addrs []string, join func() error) error {
	changed := w.learn(GuessControls(addrs))
	err := join()
	var nobody *gossip.NobodyError
	if !errors.As(err, &nobody) {
		return err
	}
	limit := time.NewTimer(catchUpWithin)
	defer limit.Stop()
	select {
	case <-changed:
		return join()
	case <-limit.C:
		return err
	case <-ctx.Done():
		return err
	}
}

// learn has Run ask there, too, and gives a channel that closes with the next ring.
func (w *RingWatch) learn(controls []string) (changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.joined = distinct(controls, w.mu.joined)
	w.mu.joined = w.mu.joined[:min(len(w.mu.joined), mostControls)]
	if w.mu.changed == nil {
		w.mu.changed = make(chan struct{})
	}
	return w.mu.changed
}

func (w *RingWatch) joining() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.mu.joined)
}

func (w *RingWatch) taken() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.changed != nil {
		close(w.mu.changed)
		w.mu.changed = nil
	}
}

// follow takes the rings of one control node until it has none to give.
func (w *RingWatch) follow(ctx context.Context, addr string) error {
	conn, err := w.Dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	for {
		if err := w.next(ctx, rpc.NewGossipKeysClient(conn)); err != nil {
			return err
		}
	}
}

func (w *RingWatch) next(ctx context.Context, from rpc.GossipKeysClient) error {
	ctx, cancel := context.WithTimeout(ctx, ringWithin)
	defer cancel()
	held := w.Keys.Ring().Version
	answer, err := from.Ring(ctx, &ecsv1.GossipHeld{Version: held})
	if err != nil {
		return err
	}
	if refusal := taskwire.ToError(answer.GetRefusal()); refusal != nil {
		return refusal
	}
	if answer.GetVersion() <= held {
		return nil
	}
	if err := w.Keys.Install(gossip.Ring{Version: answer.GetVersion(), Keys: answer.GetKeys()}); err != nil {
		w.Log.Error("the cluster's gossip keys can't be used", "version", answer.GetVersion(), "err", err)
		return err
	}
	w.taken()
	w.Log.Info("gossip keys changed", "version", answer.GetVersion(), "encrypts", gossip.KeyID(answer.GetKeys()[0]), "keys", len(answer.GetKeys()))
	return nil
}

// distinct gives the addresses of both, the first ones first, each once.
func distinct(first, then []string) []string {
	var all []string
	for _, addr := range slices.Concat(first, then) {
		if addr != "" && !slices.Contains(all, addr) {
			all = append(all, addr)
		}
	}
	return all
}

// GuessControls gives where control nodes serve gRPC as a rule, from where they
// gossip: for a node that has lost what it knew. Whoever else answers there has no
// certificate for it.
func GuessControls(gossipAddrs []string) []string {
	var guesses []string
	for _, addr := range gossipAddrs {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			guesses = append(guesses, net.JoinHostPort(host, usualRPCPort))
		}
	}
	return guesses
}
