package ecstest_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"ecs/internal/ecstest"
	"ecs/proto/api"
)

var (
	seeds = flag.Int("seeds", defaultSeeds, "how many seeded runs")
	seed  = flag.Uint64("seed", 0, "run this one seed only")
)

// TestPromisesHoldUnderFaults is the simulation: 3 control nodes, 20 agents,
// faults and a workload by seed, the invariants after each.
func TestPromisesHoldUnderFaults(t *testing.T) {
	if *seed != 0 {
		simulate(t, *seed)
		return
	}
	n := *seeds
	if testing.Short() {
		n = min(n, 10)
	}
	for s := uint64(1); s <= uint64(n); s++ {
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			t.Parallel()
			simulate(t, s)
		})
	}
}

func simulate(t *testing.T, seed uint64) {
	ecstest.Bubble(t, ecstest.Options{Agents: 20, Seed: seed, SlowKill: 3500 * time.Millisecond}, func(c *ecstest.Cluster) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		var clients sync.WaitGroup
		for i := range 8 {
			rng := rand.New(rand.NewPCG(seed, uint64(i)+100))
			clients.Go(func() { workload(ctx, t, c, i, rng) })
		}
		faults := c.Disturb(4)
		clients.Wait()
		c.Settle(15 * time.Minute)
		c.CheckInvariants()
		if done := len(c.Client.Accepted()); done < 60 {
			t.Errorf("only %d tasks were accepted: a run without work proves nothing", done)
		}
		if t.Failed() {
			t.Logf("seed %d, faults:\n%s", seed, strings.Join(faults, "\n"))
		}
	})
}

// workload submits tasks under keys, posts some keys again to other nodes, and
// mixes the delivery promises and lengths.
func workload(ctx context.Context, t *testing.T, c *ecstest.Cluster, client int, rng *rand.Rand) {
	for i := range 10 {
		key := fmt.Sprintf("client%d-%d", client, i)
		req := ecstest.Script("sleep", (time.Duration(rng.IntN(15_000)) * time.Millisecond).String())
		req.Labels = map[string]string{"key": key}
		if rng.IntN(4) == 0 {
			req.Delivery = api.DeliveryAtMostOnce
		}
		if rng.IntN(5) == 0 {
			req.Lease = api.Duration(time.Minute)
		}
		posts := 1
		if rng.IntN(3) == 0 {
			posts = 3 // at once, to any nodes, as a client does that lost its connection
		}
		var group sync.WaitGroup
		for range posts {
			group.Go(func() {
				if _, err := c.Client.Submit(ctx, key, req); err != nil {
					t.Errorf("client %d: %v", client, err)
				}
			})
		}
		group.Wait()
		time.Sleep(time.Duration(rng.IntN(4_000)) * time.Millisecond)
	}
}
