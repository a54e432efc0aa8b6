package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ecs/control/state"
	"ecs/internal/memnet"
	"ecs/internal/task"
	"ecs/internal/telemetry"
)

// cluster is a few nodes on one memnet, inside a bubble.
type cluster struct {
	t     testing.TB
	net   *memnet.Net
	nodes []*member
	tune  func(*Config) // before each start
}

// member is one place in a cluster. Its stores survive restarts.
type member struct {
	c      *cluster
	name   string
	stores *Stores
	store  *state.Store
	node   *Node
	now    atomic.Pointer[Node] // node, for clients that live through restarts
	cancel context.CancelFunc
	ended  chan error
}

const raftPort = 7449

// bubble runs f with a cluster of n nodes that has a leader, and stops it.
func bubble(t *testing.T, n int, f func(t *testing.T, c *cluster)) {
	bubbleWith(t, n, nil, f)
}

func bubbleWith(t *testing.T, n int, tune func(*Config), f func(t *testing.T, c *cluster)) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, n, seed, tune)
		servers := map[string]string{}
		for _, m := range c.nodes {
			servers[m.name] = fmt.Sprintf("%s:%d", m.name, raftPort)
		}
		defer c.stop()
		for _, m := range c.nodes {
			m.start()
			<-m.node.Ready()
		}
		for _, m := range c.nodes {
			if err := m.node.Bootstrap(servers); err != nil {
				t.Fatal(err)
			}
		}
		c.leader()
		f(t, c)
	})
}

func newCluster(t testing.TB, n int, seed uint64, tune func(*Config)) *cluster {
	c := &cluster{t: t, net: memnet.New(seed), tune: tune}
	for i := range n {
		c.nodes = append(c.nodes, &member{c: c, name: fmt.Sprintf("c%d", i+1), stores: MemStores()})
	}
	return c
}

func logger(t testing.TB, name string) *slog.Logger {
	if os.Getenv("REPLICA_LOG") == "" {
		return slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name)
}

func (m *member) start() {
	m.c.t.Helper()
	host := m.c.net.Host(m.name)
	l, err := host.Listen(raftPort)
	if err != nil {
		m.c.t.Fatal(err)
	}
	m.store = state.NewStore(state.Limits{})
	cfg := DefaultConfig()
	cfg.ID, cfg.Stores, cfg.Store = m.name, m.stores, m.store
	cfg.Stream = NewStream(l, l.Addr().String(), host.DialFunc())
	cfg.Logger, cfg.Metrics = logger(m.c.t, m.name), telemetry.Discard()
	if m.c.tune != nil {
		m.c.tune(&cfg)
	}
	m.node = New(cfg)
	m.now.Store(m.node)
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.ended = cancel, make(chan error, 1)
	go func() { m.ended <- m.node.Run(ctx) }()
}

// stop ends the node in good order.
func (m *member) stop() {
	m.c.t.Helper()
	if m.cancel == nil {
		return
	}
	m.cancel()
	if err := <-m.ended; err != nil {
		m.c.t.Errorf("%s ended with %v", m.name, err)
	}
	m.cancel = nil
}

// crash cuts the power.
func (m *member) crash() {
	m.c.net.Host(m.name).Crash(true)
	m.stop()
}

// kill is kill -9: the kernel says goodbye.
func (m *member) kill() {
	m.c.net.Host(m.name).Crash(false)
	m.stop()
}

func (m *member) restart() {
	m.c.net.Host(m.name).Restart()
	m.start()
	<-m.node.Ready()
}

func (c *cluster) stop() {
	for _, m := range c.nodes {
		m.stop()
	}
}

// leader waits for a node that leads and answers.
func (c *cluster) leader() *member {
	c.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		for _, m := range c.nodes {
			if m.cancel == nil {
				continue
			}
			ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
			_, err := m.node.ReadIndex(ctx)
			cancel()
			if err == nil {
				return m
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.t.Fatal("no leader for a minute")
	return nil
}

// follower is a running node that is not m.
func (c *cluster) follower(m *member) *member {
	for _, other := range c.nodes {
		if other != m && other.cancel != nil {
			return other
		}
	}
	c.t.Fatal("no follower")
	return nil
}

func newTask(id string) *task.Task {
	return &task.Task{ID: task.ID(id), Owner: "alice", Spec: task.Spec{Image: "docker.io/library/busybox:1", Command: []string{"true"}}}
}

// submit proposes a task at m.
func (m *member) submit(ctx context.Context, id string) (state.Outcome, error) {
	return m.now.Load().Propose(ctx, state.Submit{Task: newTask(id)})
}

func (m *member) mustSubmit(id string) state.Outcome {
	m.c.t.Helper()
	out, err := m.submit(m.c.t.Context(), id)
	if err != nil {
		m.c.t.Fatalf("submit %s at %s: %v", id, m.name, err)
	}
	return out
}

// settled waits until all running nodes have the leader's state and checks
// that it is the same, byte for byte.
func (c *cluster) settled() *state.Snapshot {
	c.t.Helper()
	l := c.leader()
	last := l.mustSubmit(fmt.Sprintf("settle-%d", time.Now().UnixNano()))
	want := l.store.Snapshot()
	for _, m := range c.nodes {
		if m.cancel == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
		defer cancel()
		if err := m.node.WaitApplied(ctx, last.Index); err != nil {
			c.t.Fatalf("%s: %v", m.name, err)
		}
		if got := m.store.Snapshot(); got.Index() != want.Index() || got.Hash() != want.Hash() {
			c.t.Fatalf("%s: got index %d and hash %x, want %d and %x", m.name, got.Index(), got.Hash(), want.Index(), want.Hash())
		}
	}
	return want
}

// clients submit tasks at whoever leads, repeat what failed with the same id,
// and remember what was acknowledged.
type clients struct {
	c    *cluster
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	acked   []task.ID
	unknown int
}

func (c *cluster) startClients(n int) *clients {
	ctx, cancel := context.WithCancel(c.t.Context())
	cl := &clients{c: c, stop: cancel}
	for i := range n {
		cl.wg.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				cl.submitUntilAcked(ctx, fmt.Sprintf("task-%d-%d", i, k))
				time.Sleep(200 * time.Millisecond)
			}
		})
	}
	return cl
}

func (cl *clients) submitUntilAcked(ctx context.Context, id string) {
	for ctx.Err() == nil {
		for _, m := range cl.c.nodes {
			out, err := m.submit(ctx, id)
			switch {
			case err == nil && out.Err == nil:
				cl.mu.Lock()
				cl.acked = append(cl.acked, task.ID(id))
				cl.mu.Unlock()
				return
			case errors.Is(err, ErrUnknown):
				cl.mu.Lock()
				cl.unknown++
				cl.mu.Unlock()
			case !errors.Is(err, ErrNotLeader):
				cl.c.t.Errorf("submit %s: got %v and %v", id, err, out.Err)
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// finish stops the clients and checks that every acknowledged task is in the
// record, once.
func (cl *clients) finish() {
	cl.c.t.Helper()
	cl.stop()
	cl.wg.Wait()
	final := cl.c.settled()
	seen := map[uint64]task.ID{}
	for t := range final.Newest(0) {
		if other, ok := seen[t.Seq]; ok {
			cl.c.t.Errorf("tasks %s and %s have the same place in the log", t.ID, other)
		}
		seen[t.Seq] = t.ID
	}
	for _, id := range cl.acked {
		if final.Task(id) == nil {
			cl.c.t.Errorf("task %s was acknowledged and is lost", id)
		}
	}
	cl.c.t.Logf("%d tasks acknowledged, %d answers unknown", len(cl.acked), cl.unknown)
	if len(cl.acked) < 100 {
		cl.c.t.Errorf("got %d tasks acknowledged, want at least 100: this proves nothing", len(cl.acked))
	}
}
