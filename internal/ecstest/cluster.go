// Package ecstest runs a whole cluster, control nodes and agents, in one
// testing/synctest bubble on a network in memory, breaks it on purpose and
// checks afterwards that the promises of DESIGN.md section 4 held.
//
// Everything but the engine and the wire is the real thing: Raft with its real
// transport, memberlist, gRPC sessions, HTTP. In the bubble minutes of cluster
// life take a second, and a goroutine left behind fails the test. Time is made
// up, the order of goroutines is not: two runs of one seed see the same faults,
// not the same interleaving.
package ecstest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ecs/control"
	"ecs/internal/memnet"
	"ecs/internal/task"
	"ecs/internal/telemetry"
)

// Options shape a cluster. Zero fields take the defaults in brackets.
type Options struct {
	Controls int      // [3]
	Agents   int      // [3]
	Zones    []string // [a b c]; nodes are dealt to them in turn
	Seed     uint64
	Capacity task.Capacity // of each agent [1 CPU, 1 GiB: room for 4 default tasks]
	// SlowKill is the longest an engine takes to end a program: each kill
	// takes up to that. The lease's two seconds ahead and margin cover it.
	SlowKill time.Duration
	// Drain is how long a control node accepts on before it goes.
	Drain time.Duration
	// Logs keeps every node's log where GET /v2/logs finds it.
	Logs bool
	// Audit takes the audit streams of all control nodes, a line each time.
	Audit io.Writer
	// FirstKey keeps a control node's first admin key. Nil: none is made.
	FirstKey func(node string) control.FirstKey
	// Version is what a control node is of, each time that it starts ["test"].
	Version func(node string) string
}

func (o *Options) setDefaults() {
	if o.Controls == 0 {
		o.Controls = 3
	}
	if o.Agents == 0 {
		o.Agents = 3
	}
	if len(o.Zones) == 0 {
		o.Zones = []string{"a", "b", "c"}
	}
	if o.Version == nil {
		o.Version = func(string) string { return "test" }
	}
	if o.Capacity.MilliCPU == 0 {
		o.Capacity = task.Capacity{MilliCPU: 1000, Memory: 1 << 30}
	}
}

// Cluster is a running cluster. Its methods are for the test's goroutine.
type Cluster struct {
	T        *testing.T
	Net      *memnet.Net
	Rand     *rand.Rand
	Controls []*Control
	Agents   []*Agent
	Client   *Client

	opts Options
	// Of nodes that came later, and of agents that left.
	numbered, hired int
	former          []*Agent

	gossip  []byte
	sealKey []byte
	running sync.WaitGroup
	ctx     context.Context
	watch   *witness
	rings   map[string]*telemetry.Ring // by host
	ringsMu sync.Mutex                 // nodes start at any time
}

// Bubble runs f with a ready cluster inside a bubble, then stops the cluster
// and waits for every goroutine of it.
func Bubble(t *testing.T, o Options, f func(c *Cluster)) {
	t.Helper()
	o.setDefaults()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		c := &Cluster{T: t, Net: memnet.New(o.Seed), Rand: rand.New(rand.NewPCG(o.Seed, 1)), opts: o, ctx: ctx,
			gossip: make([]byte, 32), sealKey: make([]byte, 32), rings: make(map[string]*telemetry.Ring)}
		c.watch = newWitness(c)
		c.Client = newClient(c)
		for i := range o.Controls {
			c.Controls = append(c.Controls, &Control{c: c, host: c.Net.Host(fmt.Sprintf("c%d", i+1)), zone: o.Zones[i%len(o.Zones)]})
		}
		for i := range o.Agents {
			c.Agents = append(c.Agents, newAgent(c, i))
		}
		for _, n := range c.Controls {
			n.Start()
		}
		for _, a := range c.Agents {
			a.Start()
		}
		defer func() {
			c.Client.close()
			cancel()
			for _, a := range c.Agents {
				a.stop(nil)
			}
			for _, n := range c.Controls {
				n.stop(nil)
			}
			c.running.Wait()
			time.Sleep(time.Minute) // memberlist's probes outlive its Shutdown by their timeouts
		}()
		c.Until(time.Minute, "a leader and every agent registered", func() bool { return c.ready() })
		f(c)
	})
}

// Until waits in bubble time for a condition, which it looks at every 10 ms.
func (c *Cluster) Until(limit time.Duration, what string, ok func() bool) {
	c.T.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			c.T.Fatalf("not within %s: %s\n%s", limit, what, c.describe())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Leader returns the control node that leads with the highest term, or nil.
func (c *Cluster) Leader() *Control {
	var leader *Control
	var highest uint64
	for _, n := range c.Controls {
		if !n.Up() {
			continue
		}
		if term, leading := n.server.Leading(); leading && term >= highest {
			leader, highest = n, term
		}
	}
	return leader
}

func (c *Cluster) ready() bool {
	leader := c.Leader()
	if leader == nil {
		return false
	}
	ready := 0
	for n := range leader.server.Snapshot().Nodes() {
		if n.Takes() {
			ready++
		}
	}
	return ready == len(c.Agents)
}

// describe says where everything stands, for a failure.
func (c *Cluster) describe() string {
	text := ""
	for _, n := range c.Controls {
		if !n.Up() {
			text += fmt.Sprintf("%s down\n", n.host.Name())
			continue
		}
		term, leading := n.server.Leading()
		sn := n.server.Snapshot()
		text += fmt.Sprintf("%s term %d leading %v index %d %+v\n", n.host.Name(), term, leading, sn.Index(), sn.Counts())
		if leading {
			for node := range sn.Nodes() {
				text += fmt.Sprintf("  node %s %s drain=%v unfit=%q epoch=%d attempts=%d\n", node.ID, node.Status, node.Drain, node.Unfit, node.Epoch, node.Attempts)
			}
		}
	}
	return text
}

// ring keeps a node's log over its restarts, as a process would not: a test's
// nodes have one each. It is nil unless asked for.
func (c *Cluster) ring(host string) *telemetry.Ring {
	if !c.opts.Logs {
		return nil
	}
	c.ringsMu.Lock()
	defer c.ringsMu.Unlock()
	if c.rings[host] == nil {
		c.rings[host] = telemetry.NewRing(io.Discard, telemetry.DefaultRingBytes)
	}
	return c.rings[host]
}

// logger writes to the file that ECS_TEST_LOG names, else nowhere: a test's
// log is thousands of lines of virtual minutes.
func (c *Cluster) logger(host string) *slog.Logger {
	if ring := c.ring(host); ring != nil {
		return telemetry.NewLogger(ring, slog.LevelInfo, slog.String("node", host))
	}
	var w io.Writer = io.Discard
	if path := os.Getenv("ECS_TEST_LOG"); path != "" {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			c.T.Fatal(err)
		}
		c.T.Cleanup(func() { _ = f.Close() })
		w = f
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})).With("host", host)
}
