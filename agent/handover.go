package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

const (
	// DefaultHandOver is how long a node that leaves for good waits at most for
	// others to take its output.
	DefaultHandOver = 2 * time.Minute
	// handOverSilence is how long it waits for the leader's first word of it, which
	// covers an election. A leader of before handovers says nothing.
	handOverSilence = 15 * time.Second
	// grantPatience is how long a read may come ahead of the leader's word that it
	// is allowed: they travel apart.
	grantPatience = 5 * time.Second
)

// ErrForGood, as the cause of the end of Run's context, says that the node leaves
// its cluster for good: what its spool holds is handed on to others first.
var ErrForGood = errors.New("the node leaves for good")

// errNotGranted: no leader has told that another agent takes the output.
var errNotGranted = errors.New("the leader has not allowed it")

// Handover is how far the output of a node that leaves has been handed on.
type Handover struct {
	Within         time.Duration // 0: none has begun
	Total, Moved   int           // results with output beyond the record
	Lost           int           // nobody could take
	Bytes, ByBytes int64         // of all, and of those moved
	Over           bool          // nothing more is under way
}

func (h Handover) String() string {
	return fmt.Sprintf("%d of %d outputs handed on, %d of %d KiB", h.Moved, h.Total, h.ByBytes>>10, h.Bytes>>10)
}

// handover is this node's side of its output being handed on. Its methods are safe
// for concurrent use.
type handover struct {
	asked chan struct{} // closed when it begins: every session asks its leader
	heard chan struct{} // closed with the leader's first word
	over  chan struct{} // closed with its last

	mu struct {
		sync.Mutex
		now     Handover
		grants  map[granted]bool
		granted chan struct{} // closed and replaced with every grant
	}
}

// granted is who may read which output. More than one may: another is asked when the
// first is slow.
type granted struct {
	token task.Token
	node  string
}

func newHandover() *handover {
	h := &handover{asked: make(chan struct{}), heard: make(chan struct{}), over: make(chan struct{})}
	h.mu.grants, h.mu.granted = map[granted]bool{}, make(chan struct{})
	return h
}

// handOver has others take what the spool holds. It is bounded, and what nobody has
// taken by then goes with this node.
func (a *Agent) handOver(ctx context.Context, within time.Duration) {
	if _, disk := a.cfg.Spool.Usage(); disk == 0 || within <= 0 {
		return
	}
	h := a.handover
	h.mu.Lock()
	h.mu.now.Within = within
	h.mu.Unlock()
	close(h.asked)
	a.cfg.Log.Info("handing output on", "within", within)
	limit, silence := time.NewTimer(within), time.NewTimer(handOverSilence)
	defer limit.Stop()
	defer silence.Stop()
	heard := h.heard
	for {
		select {
		case <-heard:
			heard = nil
			silence.Stop()
			continue
		case <-h.over:
			now := h.status()
			a.cfg.Log.Info("output handed on", "results", now.Total, "moved", now.Moved, "lost", now.Lost, "bytes", now.ByBytes)
			return
		case <-silence.C:
			a.cfg.Log.Warn("output not handed on: the leader says nothing of it", "waited", handOverSilence)
		case <-limit.C:
			a.cfg.Log.Warn("output handed on in part: the time was up", "within", within, "state", h.status())
		case <-ctx.Done():
		}
		return
	}
}

func (h *handover) status() Handover {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.now
}

// hear takes the leader's word of how far it is. Another leader counts anew: what
// moved before is not this node's any more.
func (h *handover) hear(m *ecsv1.HandedOn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.now = Handover{Within: h.mu.now.Within, Total: int(m.GetTotal()), Moved: int(m.GetMoved()), Lost: int(m.GetLost()),
		Bytes: m.GetBytes(), ByBytes: m.GetMovedBytes(), Over: m.GetOver()}
	if !isClosed(h.heard) {
		close(h.heard)
	}
	if m.GetOver() && !isClosed(h.over) {
		close(h.over)
	}
}

// grant lets another agent read an output.
func (h *handover) grant(m *ecsv1.Grant) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.grants[granted{taskwire.ToToken(m.GetToken()), m.GetNode()}] = true
	close(h.mu.granted)
	h.mu.granted = make(chan struct{})
}

// MayRead implements output.Grants: it waits a little for the leader's word.
func (a *Agent) MayRead(ctx context.Context, node string, tok task.Token) error {
	if isClosed(a.handover.asked) {
		limited, cancel := context.WithTimeout(ctx, grantPatience)
		defer cancel()
		if a.handover.await(limited, node, tok) {
			return nil
		}
	}
	return fmt.Errorf("agent %s reads attempt %d of task %s: %w", node, tok.Attempt, tok.Task, errNotGranted)
}

func (h *handover) await(ctx context.Context, node string, tok task.Token) bool {
	for {
		h.mu.Lock()
		may, more := h.mu.grants[granted{tok, node}], h.mu.granted
		h.mu.Unlock()
		if may {
			return true
		}
		select {
		case <-more:
		case <-ctx.Done():
			return false
		}
	}
}
