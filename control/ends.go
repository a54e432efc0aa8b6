package control

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"ecs/internal/task"
	"ecs/internal/telemetry"
)

// maxEnds is how many ends of tasks may wait to be told of.
const maxEnds = 8192

// ends carries finished tasks from the log's goroutine, which must not wait for
// anyone's disk or network, to the one that tells of them.
//
// Every end is told of by the node that led in the term of its entry, and by no
// other; not at all when that node dies in between.
type ends struct {
	queue  chan ended
	led    atomic.Uint64 // the last term that this node is known to have led
	missed atomic.Uint64 // ends there was no room for
}

// ended is a task that has ended, and when this node had that in its record.
type ended struct {
	task *task.Task
	at   time.Time
}

func (e *ends) init() { e.queue = make(chan ended, maxEnds) }

// leads notes that this node leads in a term. It need not any more when the first
// end of the term comes.
func (e *ends) leads(term uint64) {
	for last := e.led.Load(); last < term; last = e.led.Load() {
		if e.led.CompareAndSwap(last, term) {
			return
		}
	}
}

// noteEnds is replica.Config.Over.
func (s *Server) noteEnds(term uint64, tasks []*task.Task) {
	if now, leading, _ := s.replica.Leadership(); leading {
		s.ends.leads(now)
	}
	if s.ends.led.Load() != term {
		return
	}
	at := time.Now()
	for _, t := range tasks {
		select {
		case s.ends.queue <- ended{t, at}:
		default:
			s.ends.missed.Add(1)
		}
	}
}

// tellEnds tells of every end until ctx ends, and then of those that are left.
func (s *Server) tellEnds(ctx context.Context) error {
	for {
		select {
		case e := <-s.ends.queue:
			s.tellEnd(ctx, e)
			continue
		case <-ctx.Done():
		}
		for {
			select {
			case e := <-s.ends.queue:
				s.tellEnd(ctx, e)
			default:
				return ctx.Err()
			}
		}
	}
}

func (s *Server) tellEnd(ctx context.Context, e ended) {
	t := e.task
	if n := s.ends.missed.Swap(0); n > 0 {
		s.cfg.Log.Warn("ends of tasks not told of: too many at once", "tasks", n)
		s.cfg.Audit.Note(ctx, "ends of tasks left out", slog.Uint64("tasks", n))
	}
	s.cfg.Traces.Task(t, e.at)
	attrs := endAttrs(t)
	s.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "task ended", attrs...)
	s.cfg.Audit.Note(ctx, "task ended", append(attrs, slog.String("image", t.Spec.Image), slog.String("image_digest", t.Result.ImageDigest))...)
}

// endAttrs are what the log says of a task's end.
func endAttrs(t *task.Task) []slog.Attr {
	attrs := []slog.Attr{
		slog.String("task", string(t.ID)), slog.Int("attempt", t.Result.Attempt), slog.String("cid", t.CID), slog.String("owner", t.Owner),
		slog.String("outcome", string(t.Result.Outcome)), slog.Duration("total", t.Bill.LeaderTotal), slog.Duration("ran", t.Bill.Run),
	}
	if t.Result.HasExit {
		attrs = append(attrs, slog.Int("code", t.Result.ExitCode))
	}
	if t.Result.Node != "" {
		attrs = append(attrs, slog.String("agent", string(t.Result.Node)))
	}
	if t.Result.Reason != "" {
		attrs = append(attrs, slog.String("reason", t.Result.Reason))
	}
	if id := telemetry.TraceID(t.Trace); id != "" {
		attrs = append(attrs, slog.String("trace", id))
	}
	return attrs
}
