package fence

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ecs/internal/cgroup"
)

const (
	// againPause is before the next try at what failed.
	againPause = 100 * time.Millisecond
	// lookEvery is how often an emptied cgroup is looked at while it exists:
	// something may be put into it.
	lookEvery = time.Second
	// stuckAfter is when a kill that goes on is told as trouble.
	stuckAfter = 5 * time.Second
)

// kill ends an entry now, and waits for that.
func (s *Server) kill(ctx context.Context, id string) error {
	s.mu.Lock()
	e := s.mu.entries[id]
	if e == nil {
		s.mu.Unlock()
		return fmt.Errorf("the fence does not hold %s", id)
	}
	if !e.ending {
		e.Deadline = boottime()
		s.armLocked(e.Deadline)
	}
	s.mu.Unlock()
	select {
	case <-e.done:
	case <-ctx.Done():
		return errors.New("the fence stops; it goes on when it starts again")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !e.emptied {
		return fmt.Errorf("%s was removed before it was killed", id)
	}
	return nil
}

// end kills the processes of an entry, and whatever comes into its cgroup after
// them, until the cgroup is gone or somebody says that it is done with.
func (s *Server) end(ctx context.Context, e *entry) {
	var last string
	for wait := againPause; ; {
		switch err := cgroup.Kill(ctx, e.Cgroup); {
		case err == nil:
			wait, last = lookEvery, ""
			if s.ended(e) {
				return
			}
		case ctx.Err() != nil:
			return
		case err.Error() != last:
			last = err.Error()
			s.log.Error("an attempt can't be ended", "id", e.ID, "err", err)
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// keepEnded makes a restart of the fence go on with what has begun, whatever
// deadline its client then tells.
func (s *Server) keepEnded(e *entry) {
	s.files.Lock()
	defer s.files.Unlock()
	s.mu.Lock()
	removed := e.removed
	s.mu.Unlock()
	if removed {
		return
	}
	if err := s.note(s.store.move(e.ID, endedDeadline)); err != nil {
		s.log.Error("that an attempt is to be ended is not kept", "id", e.ID, "err", err)
	}
}

// ended notes that an entry's cgroup is empty, and reports whether that is all.
func (s *Server) ended(e *entry) bool {
	s.mu.Lock()
	if !e.emptied {
		e.emptied = true
		close(e.done)
		s.log.Info("an attempt is ended", "id", e.ID, "took", boottime()-e.since)
	}
	removed := e.removed
	s.mu.Unlock()
	if !removed && !cgroup.Exists(e.Cgroup) {
		_ = s.remove(e.ID) // told as trouble
		return true
	}
	return removed
}

// pause waits for d; false means that ctx ended it.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
