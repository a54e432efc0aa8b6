package agent

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"ecs/agent/spool"
	"ecs/internal/memnet"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	"ecs/internal/telemetry"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

const rpcPort = 7448

// cluster is three control nodes with one leader's mind, an agent on its
// engine, and the network between them, all in one bubble.
type cluster struct {
	t       *testing.T
	net     *memnet.Net
	engine  *engine
	library *library
	dir     string
	cfg     Config // of the next agent
	spool   *spool.Spool
	agent   *Agent
	servers map[string]*grpc.Server

	skew   atomic.Int64 // what the lease's clock is ahead of the bubble's
	cancel context.CancelFunc
	kill   context.CancelCauseFunc
	ended  chan struct{}
	err    error

	mu        sync.Mutex
	leader    string // "c1", ...; "" while there is none
	believed  string // where the others redirect to
	term      uint64
	epoch     uint64 // of the agent's registration
	expired   bool   // the epoch is over
	mute      bool   // heartbeats are not answered
	noAcks    bool   // statuses are not acknowledged
	stale     bool   // statuses are acknowledged as stale
	refuse    string // why registrations are refused
	forget    []task.Token
	hellos    []hello
	visits    []string // control nodes that a stream was opened to
	beats     []*ecsv1.Heartbeat
	parked    map[uint64]int // what they told
	drain     bool
	wishes    []*ecsv1.Wish
	statuses  []status
	goodbye   time.Time
	broken    int // streams that ended with an error
	line      rpc.Sessions_SessionServer
	sending   sync.Mutex
	lateTerms bool // welcome in an older term

	slowWelcome time.Duration // how long it takes to answer a hello
	// strict: a lease that the leader counts as over is never answered again.
	strict   bool
	answered map[uint64]time.Time // when each epoch was last answered
	onHello  func(hello)          // called with every hello to the leader
}

type hello struct {
	at      time.Time
	control string
	epoch   uint64
	running []task.Token
	node    *task.Node
}

type status struct {
	at        time.Time
	token     task.Token
	startedAt time.Time
	result    *task.Result
	bill      task.Bill
}

// inBubble runs a test with a running agent. Goroutines that outlive it fail
// the test.
func inBubble(t *testing.T, test func(c *cluster), options ...func(*Config)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, dir, options...)
		c.run()
		defer c.stop()
		test(c)
	})
}

func newCluster(t *testing.T, dir string, options ...func(*Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, net: memnet.New(1), engine: newEngine(), library: &library{}, dir: dir,
		servers: map[string]*grpc.Server{}, answered: map[uint64]time.Time{}, leader: "c1", believed: "c1", term: 1}
	for _, name := range []string{"c1", "c2", "c3"} {
		c.serve(name)
	}
	start := time.Now()
	cfg := Config{ID: "n1", Name: "node-1", Zone: "a", Version: "test", OutputAddr: "a1:9",
		Capacity: task.Capacity{MilliCPU: 4000, Memory: 4 << 30},
		Runtime:  c.engine, Images: c.library, JournalDir: filepath.Join(dir, "journal"), BootID: "boot",
		Controls: func() ([]string, <-chan struct{}) { return []string{"c1:7448", "c2:7448", "c3:7448"}, nil },
		Dial: func(_ context.Context, addr string) (*grpc.ClientConn, error) {
			return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(c.net.Host("a1").DialFunc()))
		},
		Now: func() time.Duration { return time.Since(start) + time.Duration(c.skew.Load()) },
		Log: telemetry.NewLogger(testWriter{t}, -4), Metrics: telemetry.Discard()}
	for _, o := range options {
		o(&cfg)
	}
	c.cfg = cfg
	c.install()
	return c
}

// install makes an agent on what the one before has left on disk.
func (c *cluster) install() {
	c.t.Helper()
	sp, err := spool.Open(filepath.Join(c.dir, "spool"), 64<<20, telemetry.NewLogger(io.Discard, 0))
	if err != nil {
		c.t.Fatal(err)
	}
	c.spool, c.cfg.Spool = sp, sp
	c.agent = New(c.cfg)
}

// testWriter puts the agent's log into the test's.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s %s", time.Now().Format("05.000"), p)
	return len(p), nil
}

func (c *cluster) serve(name string) {
	l, err := c.net.Host(name).Listen(rpcPort)
	if err != nil {
		c.t.Fatal(err)
	}
	s := grpc.NewServer()
	rpc.RegisterSessionsServer(s, &control{cluster: c, name: name})
	c.servers[name] = s
	go func() { _ = s.Serve(l) }()
}

func (c *cluster) run() {
	ctx, kill := context.WithCancelCause(context.Background())
	c.cancel, c.kill, c.ended = func() { kill(nil) }, kill, make(chan struct{})
	go func() {
		defer close(c.ended)
		c.err = c.agent.Run(ctx)
	}()
}

// stop ends everything.
func (c *cluster) stop() {
	c.net.HealAll()
	for _, call := range []string{"probe", "create", "start", "wait", "kill", "remove", "reap"} {
		c.engine.heal(call)
	}
	c.cancel()
	<-c.ended
	for _, s := range c.servers {
		s.Stop()
	}
	if n := c.engine.left(); n != 0 {
		c.t.Errorf("after the agent's end: got %d containers, want none", n)
	}
}

// until waits for a condition that another goroutine brings about.
func (c *cluster) until(what string, limit time.Duration, holds func() bool) {
	c.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		synctest.Wait()
		c.mu.Lock()
		ok := holds()
		c.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// connected waits until the agent has a session.
func (c *cluster) connected(limit time.Duration) {
	c.t.Helper()
	c.until("a session", limit, func() bool { return c.line != nil })
}

// pause makes the lease's clock jump, as when the process did not run so long.
func (c *cluster) pause(d time.Duration) { c.skew.Add(int64(d)) }

// settings changes how the leader behaves.
func (c *cluster) settings(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

// seen reads what the leader has seen.
func (c *cluster) seen(read func()) {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	read()
}

func (c *cluster) now() time.Time { return time.Now() }

// assign gives the agent an attempt of the present epoch.
func (c *cluster) assign(id string, spec task.Spec) task.Token {
	c.t.Helper()
	c.connected(10 * time.Second)
	c.mu.Lock()
	tok := task.Token{Task: task.ID(id), Attempt: 1, Epoch: c.epoch}
	c.mu.Unlock()
	c.assignAs(tok, spec)
	return tok
}

func (c *cluster) assignAs(tok task.Token, spec task.Spec) {
	spec = spec.WithDefaults(task.V2, false)
	c.say(&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Assignment{Assignment: &ecsv1.Assignment{
		Token: taskwire.FromToken(tok), Spec: taskwire.FromSpec(spec), Cid: "cid", Owner: "somebody"}}})
	synctest.Wait()
}

func (c *cluster) cancelTask(tok task.Token) {
	c.say(&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Stop{Stop: &ecsv1.StopAttempt{
		Token: taskwire.FromToken(tok), Outcome: string(task.Cancelled)}}})
}

// say sends a message on the open session, in its term and epoch.
func (c *cluster) say(m *ecsv1.ControlMessage) {
	c.mu.Lock()
	line := c.line
	m.Term, m.Epoch = c.term, c.epoch
	c.mu.Unlock()
	c.send(line, m)
}

func (c *cluster) send(line rpc.Sessions_SessionServer, m *ecsv1.ControlMessage) {
	c.sending.Lock()
	defer c.sending.Unlock()
	if line != nil {
		_ = line.Send(m)
	}
}

// result waits for an attempt's result.
func (c *cluster) result(tok task.Token, limit time.Duration) status {
	c.t.Helper()
	var found status
	c.until(fmt.Sprintf("a result of %v", tok), limit, func() bool {
		for _, s := range c.statuses {
			if s.token == tok && s.result != nil {
				found = s
				return true
			}
		}
		return false
	})
	return found
}

// results counts the results that came of an attempt.
func (c *cluster) results(tok task.Token) (n int) {
	c.seen(func() {
		for _, s := range c.statuses {
			if s.token == tok && s.result != nil {
				n++
			}
		}
	})
	return n
}

// lastHello waits for hello number n (from 1).
func (c *cluster) helloNumber(n int, limit time.Duration) hello {
	c.t.Helper()
	c.until(fmt.Sprintf("hello number %d", n), limit, func() bool { return len(c.hellos) >= n })
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hellos[n-1]
}
