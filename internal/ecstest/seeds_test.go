package ecstest_test

import (
	"bytes"
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
	// With half of the seeds programs end as slowly as the margin allows, with
	// the others so that none may be alive at its lease's end.
	slow := []time.Duration{3500 * time.Millisecond, 1900 * time.Millisecond}[seed%2]
	ecstest.Bubble(t, ecstest.Options{Agents: 20, Seed: seed, SlowKill: slow}, func(c *ecstest.Cluster) {
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
		req := writer(time.Duration(rng.IntN(15_000))*time.Millisecond, rng)
		req.Labels["key"] = key
		if rng.IntN(4) == 0 {
			req.Delivery = api.DeliveryAtMostOnce
		}
		if rng.IntN(5) == 0 && req.Delivery == "" {
			req.Command[len(req.Command)-1] = "3"
			req.Retry = api.Retry{Program: rng.IntN(3), Backoff: api.Duration(time.Second)}
			if req.Retry.Program == 0 {
				req.Retry.Backoff = 0
			}
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

// writer is a program that goes on for so long and writes now and then, some a
// few lines, some more than is kept.
func writer(d time.Duration, rng *rand.Rand) api.TaskRequest {
	pieces := 1 + rng.IntN(6)
	var script []string
	var out bytes.Buffer
	for i := range pieces {
		script = append(script, "sleep", (d / time.Duration(pieces)).String(), ";", "echo", "piece", fmt.Sprint(i), ";")
		fmt.Fprintf(&out, "piece %d\n", i)
		if rng.IntN(3) == 0 {
			size := rng.IntN(40_000)
			script = append(script, "spew", fmt.Sprint(size), ";")
			for b := range size {
				out.WriteByte(byte(b % 251))
			}
		}
	}
	req := ecstest.Script(append(script, "exit", "0")...)
	if rng.IntN(4) == 0 {
		req.MaxOutput = 20_000
	}
	ecstest.ExpectOutput(&req, out.Bytes())
	return req
}
