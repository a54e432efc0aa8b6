package fence

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"ecs/internal/cgroup"
)

// endedDeadline, in an entry's file, says that it is to be ended whatever comes.
const endedDeadline = time.Duration(0)

// entry is one at the server, guarded by its lock; ID and Cgroup never change.
type entry struct {
	Entry
	ending  bool          // for good
	since   time.Duration // when that began
	done    chan struct{} // closed once emptied or removed
	emptied bool          // the cgroup, after it was ended
	removed bool
	written time.Duration // when the deadline was written last
	stale   bool          // the file has an older one
}

func newEntry(e Entry) *entry {
	return &entry{Entry: e, done: make(chan struct{}), written: boottime()}
}

// add holds e from now on.
func (s *Server) add(e Entry, peer int) error {
	if err := e.check(); err != nil {
		return err
	}
	s.files.Lock()
	defer s.files.Unlock()
	if held, err := s.addAgain(e); held || err != nil {
		return err
	}
	if err := s.mayKill(e.Cgroup, peer); err != nil {
		return err
	}
	if s.count() >= maxEntries {
		s.sweepFiles()
	}
	if s.count() >= maxEntries {
		return fmt.Errorf("the fence holds %d entries, and can't hold more", maxEntries)
	}
	if err := s.note(s.store.save(e)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.entries[e.ID] = newEntry(e)
	s.armLocked(e.Deadline)
	if e.Deadline <= boottime() {
		return ErrEnded
	}
	return nil
}

// addAgain moves the deadline of an entry that is held already.
func (s *Server) addAgain(e Entry) (held bool, err error) {
	s.mu.Lock()
	old := s.mu.entries[e.ID]
	if old != nil && old.Cgroup != e.Cgroup {
		err = fmt.Errorf("%s is held for cgroup %s", e.ID, old.Cgroup)
	} else if old != nil && !s.moveLocked(old, e.Deadline) {
		err = ErrEnded
	}
	s.mu.Unlock()
	if old == nil || err != nil {
		return old != nil, err
	}
	return true, s.writeFiles(true)
}

// mayKill refuses a cgroup that is gone, and one whose end would be that of the
// machine, the fence or its client.
func (s *Server) mayKill(dir string, peer int) error {
	pids, err := cgroup.Pids(dir)
	switch {
	case err != nil:
		return err
	case !cgroup.Exists(dir):
		return fmt.Errorf("cgroup %s is gone: %w", dir, ErrEnded)
	case slices.Contains(pids, s.pid) || slices.Contains(pids, peer) || slices.Contains(pids, 1):
		return fmt.Errorf("cgroup %s holds the machine's first process, the fence or its client", dir)
	}
	return nil
}

// moveLocked gives an entry a new deadline, unless the old one has passed.
func (s *Server) moveLocked(e *entry, deadline time.Duration) bool {
	if e.ending || e.Deadline <= boottime() {
		return false
	}
	e.Deadline, e.stale = deadline, true
	s.armLocked(deadline)
	return true
}

// renew moves deadlines. It gives the ids whose it can't.
func (s *Server) renew(moved []renewal) (lost []string) {
	if len(moved) == 0 {
		return nil
	}
	s.mu.Lock()
	for _, r := range moved {
		e := s.mu.entries[r.ID]
		if e == nil || r.Deadline <= 0 || !s.moveLocked(e, r.Deadline) {
			lost = append(lost, r.ID)
		}
	}
	s.mu.Unlock()
	s.write(false)
	return lost
}

// write brings the files up to date, those written a moment ago later unless
// all is set.
func (s *Server) write(all bool) {
	s.files.Lock()
	defer s.files.Unlock()
	_ = s.writeFiles(all) // told as trouble
}

// writeFiles is write for who has the files.
func (s *Server) writeFiles(all bool) error {
	var due []Entry
	s.mu.Lock()
	for _, e := range s.mu.entries {
		switch {
		case !e.stale || e.ending:
		case all || boottime()-e.written >= writeEvery:
			e.stale, e.written = false, boottime()
			due = append(due, e.Entry)
		default:
			poke(s.stale)
		}
	}
	s.mu.Unlock()
	var faults error
	for _, e := range due {
		if err := s.store.move(e.ID, e.Deadline); err != nil {
			faults = errors.Join(faults, fmt.Errorf("%s: %w", e.ID, err))
		}
	}
	if len(due) == 0 {
		return nil
	}
	return s.note(faults)
}

// remove forgets an entry. A kill that goes on is finished.
func (s *Server) remove(id string) error {
	s.files.Lock()
	defer s.files.Unlock()
	s.mu.Lock()
	if e := s.mu.entries[id]; e != nil {
		delete(s.mu.entries, id)
		if e.removed = true; !e.ending {
			close(e.done)
		}
	}
	s.mu.Unlock()
	return s.note(s.store.remove(id))
}

func (s *Server) sweep() {
	s.files.Lock()
	defer s.files.Unlock()
	s.sweepFiles()
}

// sweepFiles drops entries whose cgroup is gone, for who has the files.
func (s *Server) sweepFiles() {
	for _, e := range s.list() {
		if cgroup.Exists(e.Cgroup) {
			continue
		}
		s.mu.Lock()
		held := s.mu.entries[e.ID]
		drop := held != nil && !held.ending // an ending one sees to itself
		if drop {
			delete(s.mu.entries, e.ID)
			close(held.done)
		}
		s.mu.Unlock()
		if drop {
			_ = s.note(s.store.remove(e.ID)) // told as trouble
		}
	}
}

func (s *Server) list() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Entry
	for _, e := range s.mu.entries {
		all = append(all, e.Entry)
	}
	return all
}

func (s *Server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.entries)
}

// note remembers whether the last change of the files worked.
func (s *Server) note(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.trouble = nil; err != nil {
		err = fmt.Errorf("keep entries: %w", err)
		s.mu.trouble = err
	}
	return err
}

// trouble says what keeps the fence from its work; empty for nothing.
func (s *Server) trouble() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.trouble != nil {
		return s.mu.trouble.Error()
	}
	for _, e := range s.mu.entries {
		if took := boottime() - e.since; e.ending && !e.emptied && took > stuckAfter {
			return fmt.Sprintf("the processes of %s don't end, for %s", e.ID, took.Round(time.Second))
		}
	}
	return ""
}

// poke puts a word into a channel of one slot.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
