package replica

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ecs/control/state"
	"ecs/internal/memnet"
	"ecs/internal/task"
)

func TestClusterElectsOneLeaderAndReplicates(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		l := c.leader()
		out := l.mustSubmit("a")
		if out.Task == nil || out.Task.ID != "a" || out.Existed || out.Index == 0 {
			t.Errorf("got %+v, want task a as new", out)
		}
		if again := l.mustSubmit("a"); !again.Existed {
			t.Error("the same task twice: got it as new")
		}
		if c.settled().Task("a") == nil {
			t.Error("task a is not in the record")
		}
		for _, m := range c.nodes {
			term, leading, _ := m.node.Leadership()
			id, addr := m.node.Leader()
			if leading != (m == l) || id != l.name || addr != l.name+":7449" || term != l.node.Term() {
				t.Errorf("%s: got leading %v in term %d under %s at %s", m.name, leading, term, id, addr)
			}
			if got := len(m.node.Voters()); got != 3 {
				t.Errorf("%s: got %d voters, want 3", m.name, got)
			}
			if !m.node.HasState() {
				t.Errorf("%s: got no state", m.name)
			}
			if got := m.node.LastContact(); got > DefaultConfig().HeartbeatTimeout || (m == l && got != 0) {
				t.Errorf("%s: last contact %v ago", m.name, got)
			}
			if err := m.node.Bootstrap(map[string]string{m.name: m.name + ":7449"}); err == nil {
				t.Errorf("%s: bootstrapped a second time", m.name)
			}
		}
	})
}

func TestFollowerRefusesToWrite(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		f := c.follower(c.leader())
		if _, err := f.submit(t.Context(), "a"); !errors.Is(err, ErrNotLeader) {
			t.Errorf("propose: got %v, want ErrNotLeader", err)
		}
		if _, err := f.node.ReadIndex(t.Context()); !errors.Is(err, ErrNotLeader) {
			t.Errorf("read index: got %v, want ErrNotLeader", err)
		}
		if err := f.node.Barrier(t.Context()); !errors.Is(err, ErrNotLeader) {
			t.Errorf("barrier: got %v, want ErrNotLeader", err)
		}
		if err := f.node.Verify(t.Context()); !errors.Is(err, ErrNotLeader) {
			t.Errorf("verify: got %v, want ErrNotLeader", err)
		}
		if err := f.node.VerifyAtNextBeat(t.Context()); !errors.Is(err, ErrNotLeader) {
			t.Errorf("verify at the next beat: got %v, want ErrNotLeader", err)
		}
		if c.settled().Task("a") != nil {
			t.Error("a refused task is in the record")
		}
	})
}

func TestProposalsAtOneTimeShareEntriesAndKeepTheirOutcomes(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		l := c.leader()
		before := l.store.Snapshot().Index()
		var wg sync.WaitGroup
		for i := range 3000 {
			wg.Go(func() {
				id := fmt.Sprintf("task-%d", i)
				out, err := l.submit(t.Context(), id)
				if err != nil || out.Err != nil || out.Task == nil || out.Task.ID != task.ID(id) {
					t.Errorf("%s: got %+v and %v", id, out, err)
				}
			})
		}
		wg.Wait()
		entries := l.store.Snapshot().Index() - before
		t.Logf("3000 commands in %d entries", entries)
		if entries < 3 || entries > 300 {
			t.Errorf("got %d entries, want at least 3 (of 1000) and far fewer than 3000", entries)
		}
	})
}

func TestEntriesStayUnderTheirLimit(t *testing.T) {
	bubble(t, 1, func(t *testing.T, c *cluster) {
		l := c.leader()
		big := func(id string, size int) error {
			tk := newTask(id)
			tk.Spec.Env = []string{"X=" + strings.Repeat("x", size)}
			_, err := l.node.Propose(t.Context(), state.Submit{Task: tk})
			return err
		}
		if err := big("huge", maxEntry); !errors.Is(err, ErrTooBig) {
			t.Errorf("got %v, want ErrTooBig", err)
		}
		before := l.store.Snapshot().Index()
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if err := big(fmt.Sprint(i), maxEntry/3); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := l.store.Snapshot().Index() - before; got < 10 {
			t.Errorf("got 20 commands of a third of an entry in %d entries, want at least 10", got)
		}
	})
}

func TestKilledLeaderIsReplacedWithinThreeSeconds(t *testing.T) {
	for name, end := range map[string]func(*member){"killed": (*member).kill, "power lost": (*member).crash} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, c *cluster) {
				for range 20 {
					l := c.leader()
					l.mustSubmit(fmt.Sprintf("before-%d", time.Now().UnixNano()))
					end(l)
					start := time.Now()
					next := c.leader()
					if took := time.Since(start); took > 3*time.Second {
						t.Errorf("a new leader answered after %v, want 3s at most", took)
					}
					next.mustSubmit(fmt.Sprintf("after-%d", time.Now().UnixNano()))
					l.restart()
					time.Sleep(5 * time.Second)
				}
				c.settled()
			})
		})
	}
}

func TestQuietClusterKeepsItsLeader(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		for i, a := range c.nodes {
			for _, b := range c.nodes[:i] {
				c.net.Delay(a.name, b.name, 20*time.Millisecond, 100*time.Millisecond)
			}
		}
		l := c.leader()
		term := l.node.Term()
		time.Sleep(10 * time.Minute)
		if now, leading, _ := l.node.Leadership(); !leading || now != term {
			t.Errorf("got leading %v in term %d, want the leader of term %d still", leading, now, term)
		}
	})
}

func TestNothingIsLostOrDoubledThroughChurn(t *testing.T) {
	bubbleWith(t, 3, func(cfg *Config) {
		cfg.SnapshotThreshold, cfg.TrailingLogs, cfg.SnapshotInterval = 50, 10, 2*time.Second
	}, func(t *testing.T, c *cluster) {
		for i, a := range c.nodes {
			for _, b := range c.nodes[:i] {
				c.net.Delay(a.name, b.name, time.Millisecond, 10*time.Millisecond)
			}
		}
		cl := c.startClients(8)
		for range 3 {
			l := c.leader()
			f := c.follower(l)
			c.net.Isolate(l.name)
			time.Sleep(10 * time.Second)
			c.net.HealAll()
			time.Sleep(5 * time.Second)

			l = c.leader()
			l.kill()
			time.Sleep(10 * time.Second)
			l.restart()
			time.Sleep(5 * time.Second)

			c.net.CutOneWay(f.name, c.leader().name)
			time.Sleep(10 * time.Second)
			c.net.HealAll()

			f.crash()
			time.Sleep(20 * time.Second)
			f.restart()
			l = c.leader()
			if err := l.node.TransferLeadership(t.Context()); err != nil {
				t.Logf("transfer: %v", err)
			}
			time.Sleep(5 * time.Second)
		}
		cl.finish()
	})
}

func TestLeaderWithoutMajorityAnswersUnknownAndStepsDown(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		old := c.leader()
		term := old.node.Term()
		c.net.Isolate(old.name)
		start := time.Now()
		_, err := old.submit(t.Context(), "maybe")
		if !errors.Is(err, ErrUnknown) {
			t.Errorf("propose without a majority: got %v, want ErrUnknown", err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("that took %v, want the leader's lease at most", took)
		}
		if _, leading, _ := old.node.Leadership(); leading {
			t.Error("it still leads")
		}
		next := c.leader()
		if next == old || next.node.Term() <= term {
			t.Fatalf("got %s in term %d, want another leader in a later term", next.name, next.node.Term())
		}
		next.mustSubmit("sure")
		c.net.HealAll()
		if c.settled().Task("maybe") != nil {
			t.Error("an entry of the minority survived")
		}
	})
}

func TestCancellingAbandonsTheWaitNotTheWrite(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		l := c.leader()
		f := c.follower(l)
		for _, m := range c.nodes {
			if m != l {
				c.net.Delay(l.name, m.name, 200*time.Millisecond, 0)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := l.submit(ctx, "a")
		if !errors.Is(err, ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want ErrUnknown for the deadline", err)
		}
		time.Sleep(5 * time.Second)
		if f.store.Snapshot().Task("a") == nil {
			t.Error("the write was abandoned too")
		}
	})
}

func TestRestartedClusterRemembersEverything(t *testing.T) {
	for name, threshold := range map[string]uint64{"from the log": 8192, "from snapshots": 20} {
		t.Run(name, func(t *testing.T) {
			bubbleWith(t, 3, func(cfg *Config) {
				cfg.SnapshotThreshold, cfg.TrailingLogs, cfg.SnapshotInterval = threshold, 5, time.Second
			}, func(t *testing.T, c *cluster) {
				l := c.leader()
				for i := range 100 {
					l.mustSubmit(fmt.Sprint(i))
				}
				before := c.settled()
				time.Sleep(10 * time.Second)
				for _, m := range c.nodes {
					m.crash()
				}
				for _, m := range c.nodes {
					m.restart()
				}
				after := c.leader().store.Snapshot()
				if after.Index() != before.Index() || after.Hash() != before.Hash() {
					t.Errorf("got index %d, want the record of index %d again", after.Index(), before.Index())
				}
				if snaps, _ := l.stores.Snapshots.List(); (len(snaps) > 0) != (threshold == 20) {
					t.Errorf("got %d snapshots", len(snaps))
				}
			})
		})
	}
}

func TestFollowerFarBehindGetsASnapshot(t *testing.T) {
	bubbleWith(t, 3, func(cfg *Config) {
		cfg.SnapshotThreshold, cfg.TrailingLogs, cfg.SnapshotInterval = 50, 10, time.Second
	}, func(t *testing.T, c *cluster) {
		l := c.leader()
		f := c.follower(l)
		f.crash()
		for i := range 300 {
			l.mustSubmit(fmt.Sprint(i))
		}
		time.Sleep(10 * time.Second)
		first, err := l.stores.Log.FirstIndex()
		if err != nil || first < 200 {
			t.Fatalf("the leader's log begins at %d (%v), want it trimmed", first, err)
		}
		f.restart()
		c.settled()
		if f.store.Snapshot().Task("0") == nil {
			t.Error("the follower lacks what only the snapshot holds")
		}
	})
}

func TestLeadershipChangesAreSeenWithTheirTerm(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		l := c.leader()
		term, leading, changed := l.node.Leadership()
		if !leading {
			t.Fatal("the leader does not lead")
		}
		if err := l.node.TransferLeadership(t.Context()); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
		case <-time.After(5 * time.Second):
			t.Fatal("got no notice of a lost leadership")
		}
		next := c.leader()
		if now, _, _ := next.node.Leadership(); next == l || now <= term {
			t.Errorf("got %s in term %d, want another leader in a later term than %d", next.name, now, term)
		}
		// And back, so that l led twice.
		for next != l {
			if err := next.node.TransferLeadership(t.Context()); err != nil {
				t.Fatal(err)
			}
			next = c.leader()
		}
		if again, leading, _ := l.node.Leadership(); !leading || again <= term {
			t.Errorf("got leading %v in term %d, want a later term than %d", leading, again, term)
		}
	})
}

func TestUndecodableEntryHaltsTheNode(t *testing.T) {
	fatal := make(chan error, 1)
	bubbleWith(t, 1, func(cfg *Config) {
		cfg.Fatal = func(err error) { fatal <- err }
	}, func(t *testing.T, c *cluster) {
		l := c.leader()
		l.mustSubmit("before")
		err := l.node.up.Load().raft.Apply([]byte{0xff}, 0).Error()
		if err != nil {
			t.Fatal(err)
		}
		if err := <-l.ended; err == nil || !strings.Contains(err.Error(), "decode") {
			t.Errorf("Run ended with %v, want it to say what it could not decode", err)
		}
		if len(fatal) != 1 {
			t.Errorf("Fatal was called %d times, want once", len(fatal))
		}
		l.cancel()
		l.cancel = nil
		if _, err := l.submit(t.Context(), "after"); !errors.Is(err, ErrNotLeader) {
			t.Errorf("propose on a halted node: got %v, want ErrNotLeader", err)
		}
	})
}

func TestNodeBeforeItRunsAnswersAsNoLeader(t *testing.T) {
	n := New(DefaultConfig())
	if _, err := n.Propose(t.Context(), state.Submit{Task: newTask("a")}); !errors.Is(err, ErrNotLeader) {
		t.Errorf("propose: got %v, want ErrNotLeader", err)
	}
	if _, err := n.ReadIndex(t.Context()); !errors.Is(err, ErrNotLeader) {
		t.Errorf("read index: got %v, want ErrNotLeader", err)
	}
	if err := n.Barrier(t.Context()); !errors.Is(err, ErrNotLeader) {
		t.Errorf("barrier: got %v, want ErrNotLeader", err)
	}
	if err := n.Bootstrap(map[string]string{"a": "b:1"}); err == nil {
		t.Error("bootstrap: got no error")
	}
	if n.HasState() || n.Term() != 0 || n.Voters() != nil || n.LastContact() != 0 || len(n.Stats()) != 0 {
		t.Error("a node that never ran has state")
	}
	if err := n.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "an ID is needed") {
		t.Errorf("run without settings: got %v, want what is missing", err)
	}
}

func TestStoppedStreamLeavesNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memnet.New(1)
		open := func(name string) StreamLayer {
			l, err := net.Host(name).Listen(raftPort)
			if err != nil {
				t.Fatal(err)
			}
			return NewStream(l, l.Addr().String(), net.Host(name).DialFunc())
		}
		a, b := open("a"), open("b")
		out, err := a.Dial("b:7449", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		in, err := b.Accept()
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, func() { b.Close() })
		if _, err := in.Read(make([]byte, 1)); err == nil {
			t.Error("read on a closed layer: got no error")
		}
		if _, err := out.Read(make([]byte, 1)); err == nil {
			t.Error("read at the other end: got no error")
		}
		if _, err := b.Dial("a:7449", time.Second); err == nil {
			t.Error("dial on a closed layer: got no error")
		}
		net.Cut("a", "b")
		time.AfterFunc(time.Second, func() { a.Close() })
		if _, err := a.Dial("b:7449", time.Hour); !errors.Is(err, context.Canceled) {
			t.Errorf("dial while it closes: got %v, want cancelled", err)
		}
	})
}
