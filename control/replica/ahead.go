package replica

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/hashicorp/raft"
)

// ahead is a log to which the leader writes while its followers write the same.
// Raft alone sends them nothing before its own disk has it, so a commit takes two
// disks' time one after the other.
//
// While this node leads, StoreLogs returns before the entries are on its disk, and
// raft counts this node's copy from then on. What keeps a commit a majority of disks
// is that no follower's answer for an entry is passed on to raft before this node's
// own disk has it (see awaitDisk): in any majority there is a follower, and with its
// answer this node's copy is real. Two cases are left, and are written first as ever:
// a leader who is the only voter, and changes of the configuration, after which it
// may be. Losing what was not written yet is losing what nobody was told of.
type ahead struct {
	raft.LogStore             // what is behind; waits for the disk
	leads         func() bool // whether StoreLogs is called for a leader with other voters
	fail          func(error) // an error ends the node: raft counts on the entries
	wake          chan struct{}
	written       signal // fires when fewer wait, or none ever will again

	mu struct {
		sync.Mutex
		waiting []*raft.Log // by index, none missing; the first may be being written
		failed  error
	}
}

func newAhead(log raft.LogStore, leads func() bool, fail func(error)) *ahead {
	return &ahead{LogStore: log, leads: leads, fail: fail, wake: make(chan struct{}, 1)}
}

// run writes until ctx ends and nothing waits, or until an error.
func (a *ahead) run(ctx context.Context) {
	for {
		batch := a.next()
		if len(batch) == 0 {
			select {
			case <-a.wake:
				// Whoever sends the entries to the followers goes first: the disk keeps
				// a thread, and where there is one for all they would wait behind it.
				runtime.Gosched()
				continue
			case <-ctx.Done():
				if batch = a.next(); len(batch) == 0 {
					return
				}
			}
		}
		err := a.LogStore.StoreLogs(batch)
		a.mu.Lock()
		if err == nil {
			if a.mu.waiting = a.mu.waiting[len(batch):]; len(a.mu.waiting) == 0 {
				a.mu.waiting = nil // keeps nothing of what is written
			}
		} else {
			a.mu.failed = fmt.Errorf("write entries %d to %d: %w", batch[0].Index, batch[len(batch)-1].Index, err)
		}
		err = a.mu.failed
		a.mu.Unlock()
		a.written.fire()
		if err != nil {
			a.fail(err)
			return
		}
	}
}

// next is all that waits. The slice is only read, and appended to behind its end.
func (a *ahead) next() []*raft.Log {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.waiting[:len(a.mu.waiting):len(a.mu.waiting)]
}

// IsMonotonic implements raft.MonotonicLogStore for logs that do.
func (a *ahead) IsMonotonic() bool {
	m, ok := a.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// StoreLog implements raft.LogStore.
func (a *ahead) StoreLog(entry *raft.Log) error { return a.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore. Raft calls it from one goroutine.
func (a *ahead) StoreLogs(entries []*raft.Log) error {
	if a.leads() && !reconfigures(entries) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.mu.failed != nil {
			return a.mu.failed
		}
		a.mu.waiting = append(a.mu.waiting, entries...)
		poke(a.wake)
		return nil
	}
	if err := a.drain(); err != nil {
		return err
	}
	return a.LogStore.StoreLogs(entries)
}

func reconfigures(entries []*raft.Log) bool {
	for _, e := range entries {
		if e.Type == raft.LogConfiguration {
			return true
		}
	}
	return false
}

// drain waits until all that waits now is on disk.
func (a *ahead) drain() error {
	a.mu.Lock()
	last := uint64(0)
	if n := len(a.mu.waiting); n > 0 {
		last = a.mu.waiting[n-1].Index
	}
	a.mu.Unlock()
	return a.awaitDisk(last, nil)
}

// awaitDisk waits until this node's disk has an entry that is in the log; until
// closing, if it is not nil.
func (a *ahead) awaitDisk(index uint64, closing <-chan struct{}) error {
	for {
		written := a.written.wait()
		a.mu.Lock()
		first, err := uint64(0), a.mu.failed
		if len(a.mu.waiting) > 0 {
			first = a.mu.waiting[0].Index
		}
		a.mu.Unlock()
		switch {
		case first == 0 || first > index:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-written:
		case <-closing:
			return raft.ErrRaftShutdown
		}
	}
}

// GetLog implements raft.LogStore.
func (a *ahead) GetLog(index uint64, entry *raft.Log) error {
	a.mu.Lock()
	if n := len(a.mu.waiting); n > 0 && index >= a.mu.waiting[0].Index && index <= a.mu.waiting[n-1].Index {
		*entry = *a.mu.waiting[index-a.mu.waiting[0].Index]
		a.mu.Unlock()
		return nil
	}
	a.mu.Unlock()
	return a.LogStore.GetLog(index, entry)
}

// FirstIndex implements raft.LogStore.
func (a *ahead) FirstIndex() (uint64, error) {
	a.mu.Lock()
	waiting := a.mu.waiting
	a.mu.Unlock()
	first, err := a.LogStore.FirstIndex()
	if err == nil && first == 0 && len(waiting) > 0 {
		first = waiting[0].Index
	}
	return first, err
}

// LastIndex implements raft.LogStore.
func (a *ahead) LastIndex() (uint64, error) {
	a.mu.Lock()
	waiting := a.mu.waiting
	a.mu.Unlock()
	if n := len(waiting); n > 0 {
		return waiting[n-1].Index, nil
	}
	return a.LogStore.LastIndex()
}

// DeleteRange implements raft.LogStore, for the oldest entries while others are
// stored, or for the newest.
func (a *ahead) DeleteRange(from, to uint64) error {
	if err := a.awaitDisk(to, nil); err != nil {
		return err
	}
	return a.LogStore.DeleteRange(from, to)
}

// followed reports whether this node leads others that have a vote.
func (n *Node) followed() bool {
	up := n.up.Load()
	if up == nil || up.raft.State() != raft.Leader {
		return false
	}
	for _, s := range up.servers() {
		if s.Suffrage == raft.Voter && s.ID != raft.ServerID(n.cfg.ID) {
			return true
		}
	}
	return false
}
