package control

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"ecs/control/replica"
	"ecs/control/state"
	"ecs/internal/gossip"
	"ecs/internal/memnet"
	"ecs/internal/pki"
	"ecs/internal/task"
	"ecs/internal/telemetry"
	ecsv1 "ecs/proto/ecs/v1"
)

func TestControlNodesAreRememberedAfterGossipDropsThem(t *testing.T) {
	var known acquaintances
	c2 := gossip.Member{ID: "c2", Role: "control", RPCAddr: "c2:1", GossipAddr: "c2:2"}
	known.note([]gossip.Member{c2, {ID: "a1", Role: "agent", GossipAddr: "a1:2"}})
	first := known.note(nil)
	if got := first["c2"]; got != c2 {
		t.Errorf("got %+v, want what gossip showed", got)
	}
	if got := known.addresses(); !slices.Equal(got, []string{"c2:2"}) {
		t.Errorf("got %v to rejoin, want c2's address alone", got)
	}
	moved := c2
	moved.RPCAddr = "c2:9"
	if got := known.note([]gossip.Member{moved})["c2"].RPCAddr; got != "c2:9" {
		t.Errorf("got %s, want the newest address", got)
	}
	if got := first["c2"]; got != c2 {
		t.Errorf("got %+v changed under a reader", got)
	}
}

// leaderAlone runs f with a server whose replica leads a cluster of one.
func leaderAlone(t *testing.T, f func(t *testing.T, s *Server)) {
	synctest.Test(t, func(t *testing.T) {
		host := memnet.New(1).Host("c1")
		l, err := host.Listen(7449)
		if err != nil {
			t.Fatal(err)
		}
		cfg := replica.DefaultConfig()
		cfg.ID, cfg.Stores, cfg.Store = "c1", replica.MemStores(), state.NewStore(state.Limits{})
		cfg.Stream = replica.NewStream(l, "c1:7449", host.DialFunc())
		cfg.Logger, cfg.Metrics = slog.New(slog.NewTextHandler(io.Discard, nil)), telemetry.Discard()
		s := &Server{store: cfg.Store, cfg: Config{Log: cfg.Logger, Peer: func(context.Context) (pki.Identity, error) {
			return pki.Identity{Role: pki.RoleControl, ID: "c2"}, nil
		}}, replica: replica.New(cfg), members: gossip.New(gossip.Config{Self: gossip.Member{ID: "c1"}})}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.replica.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("the replica ended with %v", err)
			}
		}()
		<-s.replica.Ready()
		if err := s.replica.Bootstrap(map[string]string{"c1": "c1:7449"}); err != nil {
			t.Fatal(err)
		}
		for {
			_, leading, changed := s.replica.Leadership()
			if leading {
				break
			}
			<-changed
		}
		f(t, s)
	})
}

func TestACommandThatFitsNoEntryIsRefusedAtOnce(t *testing.T) {
	huge := state.Submit{Task: &task.Task{ID: "t", Spec: task.Spec{Secrets: bytes.Repeat([]byte("x"), 1<<20)}}}
	leaderAlone(t, func(t *testing.T, s *Server) {
		answer, err := (&peerServer{s: s}).Forward(t.Context(), &ecsv1.ForwardRequest{Commands: []*ecsv1.Command{state.ToWire(huge, time.Now())}})
		if err != nil {
			t.Fatalf("forwarded: %v", err)
		}
		if got := answer.GetForwarded()[0].GetRefusal().GetCode(); got != string(task.CodeTooLarge) {
			t.Errorf("forwarded: got code %q, want %q", got, task.CodeTooLarge)
		}
		start := time.Now()
		_, err = s.settle(t.Context(), huge)
		if refusal, ok := err.(*task.Error); !ok || refusal.Code != task.CodeTooLarge {
			t.Errorf("got %v, want a refusal %q", err, task.CodeTooLarge)
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("refused after %v, want at once", took)
		}
	})
}
