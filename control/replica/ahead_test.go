package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// slowLog holds writes up while it is held.
type slowLog struct {
	raft.LogStore
	mu   sync.Mutex
	held chan struct{} // nil: it is not
	err  error         // what held writes end with
}

func (l *slowLog) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = make(chan struct{})
}

func (l *slowLog) release(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.held)
	l.held, l.err = nil, err
}

func (l *slowLog) StoreLogs(logs []*raft.Log) error {
	l.mu.Lock()
	held := l.held
	l.mu.Unlock()
	if held == nil {
		return l.LogStore.StoreLogs(logs)
	}
	<-held
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	return l.LogStore.StoreLogs(logs)
}

func withSlowLogs(cfg *Config) {
	cfg.Stores = &Stores{Log: &slowLog{LogStore: cfg.Stores.Log}, Stable: cfg.Stores.Stable, Snapshots: cfg.Stores.Snapshots}
}

func (m *member) log() *slowLog { return m.node.cfg.Stores.Log.(*slowLog) }

// early fails the test where a proposal's answer is there already.
func early(t *testing.T, answer chan error) {
	t.Helper()
	synctest.Wait()
	if len(answer) > 0 {
		err := <-answer
		t.Errorf("answered with %v before this node's disk had it", err)
		answer <- err
	}
}

func TestFollowersWriteWhileTheLeaderDoes(t *testing.T) {
	bubbleWith(t, 3, withSlowLogs, func(t *testing.T, c *cluster) {
		l := c.leader()
		l.mustSubmit("before")
		l.log().hold()
		answer := make(chan error, 1)
		go func() {
			_, err := l.submit(t.Context(), "a")
			answer <- err
		}()
		time.Sleep(2 * time.Second)
		mine, _ := l.stores.Log.LastIndex()
		for _, f := range c.nodes {
			if last, _ := f.stores.Log.LastIndex(); f != l && last != mine+1 {
				t.Errorf("%s has entries up to %d while the leader's disk has %d", f.name, last, mine)
			}
			if f.store.Snapshot().Task("a") != nil {
				t.Errorf("%s takes for committed what the leader's disk does not have", f.name)
			}
		}
		early(t, answer)
		l.log().release(nil)
		if err := <-answer; err != nil {
			t.Error(err)
		}
		if c.settled().Task("a") == nil {
			t.Error("task a is not in the record")
		}
	})
}

// What the leader had not written when it ended is what nobody was told of.
func TestLeaderEndsBeforeItHasWritten(t *testing.T) {
	bubbleWith(t, 3, withSlowLogs, func(t *testing.T, c *cluster) {
		l := c.leader()
		l.mustSubmit("before")
		l.log().hold()
		answer := make(chan error, 1)
		go func() {
			_, err := l.submit(t.Context(), "a")
			answer <- err
		}()
		time.Sleep(2 * time.Second)
		early(t, answer)
		broken := errors.New("no such disk")
		l.log().release(broken)
		if err := <-l.ended; !errors.Is(err, broken) {
			t.Errorf("the leader ended with %v", err)
		}
		if err := <-answer; !errors.Is(err, ErrUnknown) {
			t.Errorf("answered with %v", err)
		}
		l.cancel()
		l.cancel = nil
		c.leader().mustSubmit("after")
		l.restart()
		if sn := c.settled(); sn.Task("before") == nil || sn.Task("after") == nil {
			t.Error("what was accepted is not in the record")
		}
	})
}

func TestLeaderAloneWritesFirst(t *testing.T) {
	bubbleWith(t, 1, withSlowLogs, func(t *testing.T, c *cluster) {
		l := c.leader()
		l.log().hold()
		answer := make(chan error, 1)
		go func() {
			_, err := l.submit(t.Context(), "a")
			answer <- err
		}()
		time.Sleep(2 * time.Second)
		early(t, answer)
		if l.store.Snapshot().Task("a") != nil {
			t.Error("committed before the only disk had it")
		}
		l.log().release(nil)
		if err := <-answer; err != nil {
			t.Error(err)
		}
	})
}

func entries(from, to uint64) (all []*raft.Log) {
	for i := from; i <= to; i++ {
		all = append(all, &raft.Log{Index: i, Term: 1, Data: fmt.Append(nil, i)})
	}
	return all
}

// startAhead runs an ahead on a store in memory, of a leader until follow is called.
func startAhead(t *testing.T) (a *ahead, disk *slowLog, follow func(), failed *[]error) {
	disk = &slowLog{LogStore: raft.NewInmemStore()}
	leads := true
	failed = new([]error)
	a = newAhead(disk, func() bool { return leads }, func(err error) { *failed = append(*failed, err) })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); a.run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return a, disk, func() { leads = false }, failed
}

func TestAheadShowsWhatIsNotWrittenYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, disk, follow, _ := startAhead(t)
		disk.hold()
		if err := errors.Join(a.StoreLogs(entries(1, 3)), a.StoreLogs(entries(4, 5))); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		first, _ := a.FirstIndex()
		last, _ := a.LastIndex()
		var e raft.Log
		if err := a.GetLog(4, &e); err != nil || first != 1 || last != 5 || string(e.Data) != "4" {
			t.Errorf("got entries %d to %d, the fourth %q, %v", first, last, e.Data, err)
		}
		if err := a.GetLog(6, &e); !errors.Is(err, raft.ErrLogNotFound) {
			t.Errorf("got %v of an entry that is not there", err)
		}
		// What needs the disk waits for it: another's entries, the newest to be
		// dropped, a change of the configuration.
		follow()
		done := make(chan error, 1)
		go func() {
			done <- errors.Join(a.DeleteRange(3, 5), a.StoreLogs(entries(3, 4)))
		}()
		synctest.Wait()
		if len(done) > 0 {
			t.Errorf("dropped entries that were being written: %v", <-done)
		}
		disk.release(nil)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if last, _ := disk.LastIndex(); last != 4 {
			t.Errorf("the disk ends with entry %d", last)
		}
	})
}

func TestAheadWritesAConfigurationFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, disk, _, _ := startAhead(t)
		disk.hold()
		if err := a.StoreLogs(entries(1, 2)); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			change := entries(3, 3)
			change[0].Type = raft.LogConfiguration
			done <- a.StoreLogs(change)
		}()
		synctest.Wait()
		if len(done) > 0 {
			t.Error("a configuration was taken before the disk had what is before it")
		}
		disk.release(nil)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if last, _ := disk.LastIndex(); last != 3 {
			t.Errorf("the disk ends with entry %d", last)
		}
	})
}

func TestAheadFailsForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, disk, _, failed := startAhead(t)
		disk.hold()
		if err := a.StoreLogs(entries(1, 2)); err != nil {
			t.Fatal(err)
		}
		closing := make(chan struct{})
		closed, waited := make(chan error, 1), make(chan error, 1)
		go func() { closed <- a.awaitDisk(1, closing) }()
		go func() { waited <- a.awaitDisk(2, nil) }()
		synctest.Wait()
		close(closing)
		if err := <-closed; !errors.Is(err, raft.ErrRaftShutdown) {
			t.Errorf("got %v once it closes", err)
		}
		broken := errors.New("broken")
		disk.release(broken)
		if err := <-waited; !errors.Is(err, broken) {
			t.Errorf("who waits for the disk gets %v", err)
		}
		synctest.Wait()
		err := a.StoreLogs(entries(3, 3))
		if !errors.Is(err, broken) || !slices.ContainsFunc(*failed, func(err error) bool { return errors.Is(err, broken) }) {
			t.Errorf("got %v for what comes later, and the node was told %v", err, *failed)
		}
	})
}
