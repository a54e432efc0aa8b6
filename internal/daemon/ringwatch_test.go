package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"ecs/internal/gossip"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// rotated is a control node whose cluster has another gossip key by now.
type rotated struct {
	rpc.UnimplementedGossipKeysServer
	keys [][]byte
}

func (r *rotated) Ring(ctx context.Context, held *ecsv1.GossipHeld) (*ecsv1.GossipRing, error) {
	if held.GetVersion() >= 7 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &ecsv1.GossipRing{Version: 7, Keys: r.keys}, nil
}

// A node that got its key while that was rotated knows nobody but the hosts that its
// join names.
func TestAJoinWithTheOldKeyGetsTheNewOneAtTheHostsItNames(t *testing.T) {
	key := func(n byte) []byte { return bytes.Repeat([]byte{n}, gossip.KeySize) }
	for name, tc := range map[string]struct {
		there bool
		fails error // what joining answers with the old key
		joins int
		takes time.Duration
	}{
		"the ring is there":         {true, &gossip.NobodyError{Cluster: "test"}, 2, 2 * askAgain},
		"nobody is there":           {false, &gossip.NobodyError{Cluster: "test"}, 1, catchUpWithin},
		"another fault than nobody": {true, errors.New("it belongs to another cluster"), 1, 0},
		"it works at once":          {true, nil, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				listener, server := bufconn.Listen(1<<16), grpc.NewServer()
				rpc.RegisterGossipKeysServer(server, &rotated{keys: [][]byte{key(2), key(1)}})
				served := make(chan struct{})
				go func() { defer close(served); _ = server.Serve(listener) }()
				keys, err := gossip.NewKeyring(gossip.Ring{Keys: [][]byte{key(1)}}, func(gossip.Ring) error { return nil })
				if err != nil {
					t.Fatal(err)
				}
				w := &RingWatch{Keys: keys, Controls: func() []string { return nil }, Log: slog.New(slog.DiscardHandler),
					Dial: func(addr string) (*grpc.ClientConn, error) {
						if addr != "host:7448" || !tc.there {
							return nil, errors.New("nobody is there")
						}
						return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
							grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
					}}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan struct{})
				go func() { defer close(ended); _ = w.Run(ctx) }()
				synctest.Wait()
				began, joins := time.Now(), 0
				err = w.Join(ctx, []string{"host:7946"}, func() error {
					joins++
					if len(keys.Ring().Keys) == 2 {
						return nil
					}
					return tc.fails
				})
				if joins != tc.joins || (err == nil) != (tc.fails == nil || joins == 2) {
					t.Errorf("got %d joins, %v, want %d", joins, err, tc.joins)
				}
				if took := time.Since(began); took > tc.takes {
					t.Errorf("it took %s, want at most %s", took, tc.takes)
				}
				if r := keys.Ring(); joins == 2 && (r.Version != 7 || !bytes.Equal(r.Keys[0], key(2)) || !bytes.Equal(r.Keys[1], key(1))) {
					t.Errorf("got ring %d with %d keys, want both", r.Version, len(r.Keys))
				}
				cancel()
				<-ended
				server.Stop()
				<-served
			})
		})
	}
}
