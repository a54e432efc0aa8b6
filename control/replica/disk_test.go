package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"ecs/control/state"
	"ecs/internal/pki"
	"ecs/internal/task"
	"ecs/internal/telemetry"
)

// diskNode is a node with its log on disk and TLS over loopback.
type diskNode struct {
	id, addr, dir string
	cert          *pki.Node
	node          *Node
	store         *state.Store
	stop          func()
}

// diskCluster starts nodes as they run in production and waits for a leader.
func diskCluster(t testing.TB, n int) []*diskNode {
	t.Helper()
	ca, err := pki.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	servers := map[string]string{}
	nodes := make([]*diskNode, n)
	for i := range nodes {
		id := fmt.Sprintf("c%d", i+1)
		cert, key, err := ca.Issue(pki.Identity{Cluster: "test", Role: pki.RoleControl, ID: id}, nil, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		d := &diskNode{id: id, addr: "127.0.0.1:0", dir: filepath.Join(t.TempDir(), id)}
		if d.cert, err = pki.NewNode(ca.CertPEM(), cert, key); err != nil {
			t.Fatal(err)
		}
		d.start(t)
		servers[id], nodes[i] = d.addr, d
	}
	t.Cleanup(func() {
		for _, d := range nodes {
			d.stop()
		}
	})
	for _, d := range nodes {
		if err := d.node.Bootstrap(servers); err != nil {
			t.Fatal(err)
		}
	}
	return nodes
}

func (d *diskNode) start(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	d.addr = l.Addr().String()
	cfg := DefaultConfig()
	cfg.ID, cfg.Addr, cfg.Dir = d.id, d.addr, d.dir
	cfg.Stream = NewTLSStream(l, d.addr, d.cert.ServerTLS(pki.RoleControl), d.cert.DialFunc(pki.RoleControl))
	cfg.Store = state.NewStore(state.Limits{})
	cfg.Logger, cfg.Metrics = logger(t, d.id), telemetry.Discard()
	cfg.Fatal = func(err error) { t.Errorf("%s: fatal: %v", d.id, err) }
	d.store, d.node = cfg.Store, New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.node.Run(ctx) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s ended with %v", d.id, err)
		}
	})
	select {
	case <-d.node.Ready():
	case err := <-ended:
		ended <- err
		t.Fatalf("%s did not start: %v", d.id, err)
	}
}

func diskLeader(t testing.TB, nodes []*diskNode) *diskNode {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		for _, d := range nodes {
			_, leading, changed := d.node.Leadership()
			if leading {
				return d
			}
			select {
			case <-changed:
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	t.Fatal("no leader for a minute")
	return nil
}

// propose repeats a command at whoever leads until it is committed.
func propose(t testing.TB, nodes []*diskNode, c state.Command) state.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		out, err := diskLeader(t, nodes).node.Propose(ctx, c)
		if err == nil {
			return out
		}
		if ctx.Err() != nil {
			t.Fatalf("propose: %v", err)
		}
	}
}

func TestRestartFromDiskKeepsTheRecord(t *testing.T) {
	nodes := diskCluster(t, 3)
	for i := range 50 {
		propose(t, nodes, state.Submit{Task: newTask(fmt.Sprint(i))})
	}
	last := propose(t, nodes, state.Stop{Task: "7", Outcome: task.Cancelled, Reason: "test"})
	want := diskLeader(t, nodes).store.Snapshot()
	for _, d := range nodes {
		if err := d.node.WaitApplied(t.Context(), last.Index); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range nodes {
		d.stop()
	}
	for _, d := range nodes {
		replayed, end, err := Replay(d.dir, last.Index)
		if err != nil || end < last.Index || replayed.Hash() != want.Hash() {
			t.Errorf("%s: replayed from its disk: %v, the log ends at %d; want the leader's record at %d", d.id, err, end, last.Index)
		}
	}
	for _, d := range nodes {
		d.start(t)
		if !d.node.HasState() {
			t.Fatalf("%s: got no state after a restart", d.id)
		}
	}
	again := propose(t, nodes, state.Submit{Task: newTask("7")})
	if !again.Existed || again.Task.Result.Outcome != task.Cancelled {
		t.Errorf("got %+v, want task 7 as it ended", again)
	}
	for _, d := range nodes {
		if err := d.node.WaitApplied(t.Context(), again.Index); err != nil {
			t.Fatal(err)
		}
		sn := d.store.Snapshot()
		if got := sn.Counts(); got != want.Counts() {
			t.Errorf("%s: got %+v, want %+v", d.id, got, want.Counts())
		}
	}
	second := New(Config{ID: "x", Dir: nodes[0].dir, Stream: NewStream(listen(t), "x:1", nil),
		Store: state.NewStore(state.Limits{}), Logger: logger(t, "x"), Metrics: telemetry.Discard()})
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second node in one directory: got %v, want it refused", err)
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestStrangersCannotSpeakRaft(t *testing.T) {
	ca, _ := pki.NewCA("test", time.Now())
	issue := func(role pki.Role) *pki.Node {
		cert, key, err := ca.Issue(pki.Identity{Cluster: "test", Role: role, ID: "x"}, nil, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		n, err := pki.NewNode(ca.CertPEM(), cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	control, agent := issue(pki.RoleControl), issue(pki.RoleAgent)
	l := listen(t)
	s := NewTLSStream(l, l.Addr().String(), control.ServerTLS(pki.RoleControl), control.DialFunc(pki.RoleControl))
	defer s.Close()
	for name, c := range map[string]struct {
		client *pki.Node
		ok     bool
	}{"control node": {control, true}, "agent": {agent, false}} {
		l := listen(t)
		client := NewTLSStream(l, l.Addr().String(), nil, c.client.DialFunc(pki.RoleControl))
		defer client.Close()
		read := make(chan error, 1)
		go func() {
			conn, err := s.Accept()
			if err == nil {
				_, err = conn.Read(make([]byte, 1))
			}
			read <- err
		}()
		conn, err := client.Dial(raft.ServerAddress(s.Addr().String()), time.Minute)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, _ = conn.Write([]byte{0}) // the server judges
		if err := <-read; (err == nil) != c.ok {
			t.Errorf("%s: got %v, want it let in: %v", name, err, c.ok)
		}
	}
}

// withProbe runs a node alone whose disk behaves as probe does, and gives how
// it ended.
func withProbe(t *testing.T, probe func() error) (took time.Duration, fatal, run error) {
	t.Helper()
	fatals := make(chan error, 1)
	m := newCluster(t, 1, 1, func(cfg *Config) {
		cfg.probe = probe
		cfg.Fatal = func(err error) { fatals <- err }
	}).nodes[0]
	start := time.Now()
	m.start()
	select {
	case run = <-m.ended:
	case <-time.After(time.Hour):
		t.Fatal("the node did not end")
	}
	took = time.Since(start)
	m.cancel()
	select {
	case fatal = <-fatals:
	default:
	}
	return took, fatal, run
}

func TestHungDiskEndsTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wake := make(chan struct{})
		var probes atomic.Int32
		took, fatal, run := withProbe(t, func() error {
			if probes.Add(1) > 10 {
				<-wake
			}
			return nil
		})
		if !errors.Is(fatal, errHung) || !errors.Is(run, errHung) {
			t.Errorf("got %v and %v, want that the disk hangs", fatal, run)
		}
		if took < 14*time.Second || took > 16*time.Second {
			t.Errorf("ended after %v, want ten probes and 5s", took)
		}
		close(wake)
	})
}

func TestBrokenDiskEndsTheNode(t *testing.T) {
	for _, errno := range []error{syscall.EIO, syscall.ENOSPC, syscall.EROFS} {
		synctest.Test(t, func(t *testing.T) {
			_, fatal, run := withProbe(t, func() error { return &os.PathError{Op: "write", Path: "probe", Err: errno} })
			if !errors.Is(fatal, errno) || !errors.Is(run, errno) {
				t.Errorf("%v: got %v and %v", errno, fatal, run)
			}
		})
	}
}

// failingLog fails writes on demand.
type failingLog struct {
	raft.LogStore
	err atomic.Value
}

func (l *failingLog) StoreLogs(logs []*raft.Log) error {
	if err, ok := l.err.Load().(error); ok && err != nil {
		return err
	}
	return l.LogStore.StoreLogs(logs)
}

func TestFullDiskUnderTheLogEndsTheLeader(t *testing.T) {
	fatal := make(chan error, 1)
	bubbleWith(t, 3, func(cfg *Config) {
		if cfg.Fatal == nil {
			cfg.Fatal = func(err error) { fatal <- err }
		}
		cfg.Stores = &Stores{Log: &failingLog{LogStore: cfg.Stores.Log}, Stable: cfg.Stores.Stable, Snapshots: cfg.Stores.Snapshots}
	}, func(t *testing.T, c *cluster) {
		l := c.leader()
		l.mustSubmit("before")
		l.node.cfg.Stores.Log.(*failingLog).err.Store(fmt.Errorf("append: %w", syscall.ENOSPC))
		if _, err := l.submit(t.Context(), "full"); !errors.Is(err, ErrUnknown) {
			t.Errorf("propose on a full disk: got %v, want ErrUnknown", err)
		}
		if err := <-l.ended; !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("the leader ended with %v, want no space left", err)
		}
		if err := <-fatal; !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("Fatal got %v, want no space left", err)
		}
		l.cancel()
		l.cancel = nil
		if c.leader().mustSubmit("after").Task == nil {
			t.Error("the others do not go on")
		}
	})
}

func TestDiskProbeWritesAndReportsErrors(t *testing.T) {
	p := &diskProbe{path: filepath.Join(t.TempDir(), "probe")}
	for range 3 {
		if err := p.write(); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(p.path); err != nil || info.Size() != probeSize {
		t.Errorf("got %v and %v, want a file of %d bytes", info, err, probeSize)
	}
	p.close()
	if err := p.write(); err == nil {
		t.Error("write to a closed file: got no error")
	}
	if err := (&diskProbe{path: filepath.Join(p.path, "no", "dir")}).write(); err == nil {
		t.Error("write where no file can be: got no error")
	}
}

func BenchmarkPropose(b *testing.B) {
	for _, clients := range []int{1, 16, 128} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			nodes := diskCluster(b, 3)
			propose(b, nodes, state.Submit{Task: newTask("warm")})
			l := diskLeader(b, nodes)
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range clients {
				wg.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						if _, err := l.node.Propose(context.Background(), state.Submit{Task: newTask(fmt.Sprint(i))}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
		})
	}
}
