package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"golang.org/x/sys/unix"

	"ecs/control/state"
)

// Stores are what raft keeps: the log, its term and vote, snapshots of the
// state. What they hold survives the Node.
type Stores struct {
	Log       raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
}

// MemStores keeps everything in memory, for bubbles. Give the same Stores to
// the next Node to restart one.
func MemStores() *Stores {
	both := raft.NewInmemStore()
	return &Stores{Log: both, Stable: both, Snapshots: raft.NewInmemSnapshotStore()}
}

const (
	// minFree is how many bytes the disk must have free at start: a segment of
	// the log, as much again for a snapshot, and something to spare.
	minFree         = 256 << 20
	retainSnapshots = 2
	// cachedEntries are kept in memory, 32 MiB at most: the newest are read
	// again to be sent to each follower and to be applied.
	cachedEntries = 64
)

// openStores opens what Dir holds, or takes the Stores given. close closes
// what was opened here.
func (n *Node) openStores() (s *Stores, closeStores func() error, err error) {
	if n.cfg.Stores != nil {
		s = n.cfg.Stores
		n.ahead = newAhead(n.guard(s.Log), n.followed, n.fail)
		return &Stores{Log: n.ahead, Stable: s.Stable, Snapshots: s.Snapshots}, func() error { return nil }, nil
	}
	logDir := filepath.Join(n.cfg.Dir, "wal")
	if err := os.MkdirAll(logDir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the log's directory: %w", err)
	}
	if err := enoughRoom(n.cfg.Dir); err != nil {
		return nil, nil, err
	}
	logger := newHCLogger(n.cfg.Logger)
	unlock, err := lockDir(n.cfg.Dir)
	if err != nil {
		return nil, nil, err
	}
	log, err := wal.Open(logDir, wal.WithLogger(logger))
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open %s: %w", logDir, err), unlock())
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(n.cfg.Dir, retainSnapshots, logger)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open the snapshots in %s: %w", n.cfg.Dir, err), log.Close(), unlock())
	}
	closeStores = func() error { return errors.Join(log.Close(), unlock()) }
	n.ahead = newAhead(n.guard(log), n.followed, n.fail)
	cached, err := raft.NewLogCache(cachedEntries, n.ahead)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("cache the log: %w", err), closeStores())
	}
	return &Stores{Log: cached, Stable: log, Snapshots: snapshots}, closeStores, nil
}

// dropCovered drops a log that ends before the newest snapshot, whose entries could not
// follow it: the process was ended when it had just received that one, or a Recover
// broke off after it had written it, which is hereby complete.
func (n *Node) dropCovered(s *Stores) error {
	list, errList := s.Snapshots.List() // the newest first
	first, errFirst := s.Log.FirstIndex()
	last, errLast := s.Log.LastIndex()
	if err := errors.Join(errList, errFirst, errLast); err != nil {
		return fmt.Errorf("compare the log with the snapshots: %w", err)
	}
	if len(list) == 0 || last == 0 || last >= list[0].Index {
		return nil
	}
	_, source, err := s.Snapshots.Open(list[0].ID)
	if err == nil {
		err = errors.Join(state.NewStore(state.Limits{}).Restore(source), source.Close())
	}
	if err != nil {
		n.cfg.Logger.Warn("the newest snapshot can't be read: the log is kept", "snapshot", list[0].ID, "err", err)
		return nil
	}
	n.cfg.Logger.Warn("the log ends before the newest snapshot and is dropped", "last", last, "snapshot", list[0].Index)
	if err := s.Log.DeleteRange(first, last); err != nil {
		return fmt.Errorf("drop a log that ends before the newest snapshot: %w", err)
	}
	return nil
}

func enoughRoom(dir string) error {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return fmt.Errorf("look at the room in %s: %w", dir, err)
	}
	if free := stat.Bavail * uint64(stat.Bsize); free < minFree {
		return fmt.Errorf("%s has %d MiB free, at least %d MiB are needed", dir, free>>20, minFree>>20)
	}
	return nil
}

// lockDir keeps a second process out of dir. The log's own lock would let it
// wait for ever without a word.
func lockDir(dir string) (unlock func() error, err error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errors.New("another process uses this directory")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f.Close, nil // closing unlocks
}

// guard watches the log's writes: an error that will not pass ends the node,
// for raft alone would let it stand for election again and again.
func (n *Node) guard(log raft.LogStore) *guardedLog { return &guardedLog{LogStore: log, node: n} }

type guardedLog struct {
	raft.LogStore
	node *Node
}

// IsMonotonic implements raft.MonotonicLogStore for logs that do.
func (g *guardedLog) IsMonotonic() bool {
	m, ok := g.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// StoreLog implements raft.LogStore.
func (g *guardedLog) StoreLog(entry *raft.Log) error { return g.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (g *guardedLog) StoreLogs(entries []*raft.Log) error {
	defer g.node.cfg.Metrics.MeasureSince([]string{"replica", "log", "write"}, time.Now())
	return g.check("write to", g.LogStore.StoreLogs(entries))
}

// DeleteRange implements raft.LogStore.
func (g *guardedLog) DeleteRange(from, to uint64) error {
	return g.check("trim", g.LogStore.DeleteRange(from, to))
}

func (g *guardedLog) check(what string, err error) error {
	if diskBroken(err) {
		g.node.fail(fmt.Errorf("%s the log: %w", what, err))
	}
	return err
}

// diskBroken tells errors that a retry does not cure.
func diskBroken(err error) bool {
	for _, errno := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, fs.ErrPermission} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
