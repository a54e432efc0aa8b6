package fence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// startGrace is how long a fence that starts again waits before it ends
	// what it should have ended meanwhile: an agent that lives says within it
	// that the deadline has moved.
	startGrace = 500 * time.Millisecond
	// writeEvery is how often the deadline of one entry is written at most.
	writeEvery = time.Second
	// sweepEvery is how often entries whose cgroup is gone are looked for.
	sweepEvery = time.Minute
)

// ServerConfig is what NewServer needs.
type ServerConfig struct {
	Socket string // path; it is made anew
	// StateDir is where entries outlive the process, for one fence alone. It
	// belongs on a tmpfs.
	StateDir string
	Log      *slog.Logger
}

// Server is the fence.
type Server struct {
	cfg   ServerConfig
	pid   int // its own
	log   *slog.Logger
	store *store
	alarm *alarm
	kills sync.WaitGroup // those of the watch
	stale chan struct{}  // one slot: a deadline is to be written

	// files serialises what changes the state directory. It is taken before mu,
	// never under it: a slow disk delays no deadline.
	files sync.Mutex

	mu struct {
		sync.Mutex
		entries map[string]*entry
		armed   time.Duration // when the alarm goes off; 0: never
		trouble error         // of the last write
	}
}

// NewServer makes a Server and does no I/O.
func NewServer(cfg ServerConfig) *Server {
	s := &Server{cfg: cfg, pid: os.Getpid(), log: cfg.Log, stale: make(chan struct{}, 1)}
	s.mu.entries = make(map[string]*entry)
	return s
}

// Run fences until ctx ends. The end of it ends no attempt: the next one goes on
// where this has stopped.
func (s *Server) Run(ctx context.Context) (err error) {
	if s.store, err = openStore(s.cfg.StateDir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.store.close()) }()
	if s.alarm, err = newAlarm(); err != nil {
		return err
	}
	defer s.alarm.close()
	if err := s.load(); err != nil {
		return err
	}
	listener, err := listen(s.cfg.Socket)
	if err != nil {
		return err
	}
	s.log.Info("fencing", "socket", s.cfg.Socket, "state", s.cfg.StateDir, "entries", len(s.mu.entries))
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() {
		s.alarm.close()
		listener.Close()
	})
	defer stop()
	g.Go(func() error { return s.watch(ctx) })
	g.Go(func() error { return s.serve(ctx, listener) })
	g.Go(func() error { return s.keep(ctx) })
	return g.Wait()
}

// load takes over what an earlier process held.
func (s *Server) load() error {
	entries, err := s.store.load(s.log)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		if e.Deadline != endedDeadline {
			e.Deadline = max(e.Deadline, boottime()+startGrace)
		}
		s.mu.entries[e.ID] = newEntry(e)
		s.armLocked(e.Deadline)
	}
	return nil
}

// armLocked has the alarm go off at t at the latest.
func (s *Server) armLocked(t time.Duration) {
	t = max(t, 1)
	if s.mu.armed != 0 && s.mu.armed <= t {
		return
	}
	if err := s.alarm.set(t); errors.Is(err, os.ErrClosed) {
		return // the next process will see to it
	} else if err != nil {
		s.log.Error("the alarm can't be set", "err", err)
		s.mu.trouble = fmt.Errorf("its alarm can't be set: %w", err)
		return
	}
	s.mu.armed = t
}

// watch ends entries at their deadlines.
func (s *Server) watch(ctx context.Context) error {
	defer s.kills.Wait()
	for {
		if err := s.alarm.wait(); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("wait for the next deadline: %w", err)
		}
		for _, e := range s.due() {
			s.log.Warn("ending an attempt at its deadline", "id", e.ID, "cgroup", e.Cgroup, "late", boottime()-e.Deadline)
			s.kills.Go(func() { s.end(ctx, e) })
			s.kills.Go(func() { s.keepEnded(e) }) // beside it: a slow disk delays no kill
		}
	}
}

// due are the entries to end now; the alarm is set for the next.
func (s *Server) due() (now []*entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.armed = 0
	var next time.Duration
	clock := boottime()
	for _, e := range s.mu.entries {
		switch {
		case e.ending:
		case e.Deadline <= clock:
			e.ending, e.since = true, clock
			now = append(now, e)
		case next == 0 || e.Deadline < next:
			next = e.Deadline
		}
	}
	if next != 0 {
		s.armLocked(next)
	}
	return now
}

// keep writes deadlines that have moved and drops entries whose cgroup is gone.
func (s *Server) keep(ctx context.Context) error {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	var write <-chan time.Time // nil: nothing is to be written
	for {
		select {
		case <-s.stale:
			if write == nil {
				write = time.After(writeEvery)
			}
		case <-write:
			write = nil
			s.write(false)
		case <-sweep.C:
			s.sweep()
		case <-ctx.Done():
			s.write(true)
			return nil
		}
	}
}
