package dispatch

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"ecs/control/state"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

const (
	// takesAtOnce bounds the orders of one handover that are under way and not
	// overdue, takesOfOne all those to one agent.
	takesAtOnce = 8
	takesOfOne  = 2
	// takeTries is how often the taking of one output may fail. That an agent was
	// busy or out of reach does not count.
	takeTries = 6
	// An order is overdue, so that others are asked, after takeWithin and a second
	// more for every takeRate bytes. Its answer counts all the same.
	takeWithin = 15 * time.Second
	takeRate   = 1 << 20
	// An agent that could not take an output is asked for the next one after
	// firstPause, and twice that with every time, up to mostPause.
	firstPause = time.Second
	mostPause  = 15 * time.Second
	// assembleWithin is how long an agent with a session may take to say whether it
	// takes others' output.
	assembleWithin = 5 * time.Second
	// lookAhead is how many outputs are looked at for one that somebody can take now.
	lookAhead = 32
	// movesAtMost bounds the outputs of one command, handOnAtMost those of one agent:
	// its spool knows no more.
	movesAtMost  = 500
	handOnAtMost = 16 << 10
)

// parcel is one result's output that is to be held by somebody else.
type parcel struct {
	move   state.MovedOutput // To is set when it is taken
	token  task.Token
	take   *ecsv1.Take
	size   int64
	orders int                  // under way
	asked  map[task.NodeID]bool // was ordered to take it and has not said that it won't
	failed map[task.NodeID]int  // how often it was not taken
	tries  int                  // that failed, see takeTries
	gone   bool                 // the agent that leaves does not have it
	queued bool
}

// handover has others take what the agent of a session holds, which leaves. All of
// it belongs to the goroutine of run, but for mail.
type handover struct {
	*session
	queue  []*parcel // to be ordered
	open   map[task.Token]*parcel
	seen   map[task.Token]bool
	orders map[taking]*order
	active int                     // orders that are not overdue
	given  map[task.NodeID]int64   // bytes
	busy   map[task.NodeID]int     // orders
	pauses map[task.NodeID]pausing // before the next order
	full   map[task.NodeID]fullness
	taken  []*parcel // to be moved in the record
	moving bool
	told   *ecsv1.HandedOn // how far it is
	said   *ecsv1.HandedOn // what the agent that leaves knows of that
	look   time.Time       // when time alone may change what there is to do
	moved  chan func()     // what a commit makes of the rest

	mailed chan struct{}           // one slot: there is mail
	mail   map[taking]*ecsv1.Taken // answers, the newest of each; guarded by tenure.mu
	group  sync.WaitGroup          // commits
}

// handOn runs one handover until nothing is left that anybody could take, or ctx
// ends. It may be repeated: what was moved before is not this agent's any more.
func (s *session) handOn(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	h := newHandover(s)
	defer h.bequeath()
	defer h.group.Wait()
	defer cancel()
	if err := h.run(ctx); err != nil {
		return fmt.Errorf("hand the output of node %s on: %w", s.node, err)
	}
	s.cfg.Logger.Info("output handed on", "node", s.node, "results", h.told.GetTotal(), "moved", h.told.GetMoved(),
		"lost", h.told.GetLost(), "bytes", h.told.GetMovedBytes(), "term", s.term)
	return nil
}

// bequeath ends a handover: what others have taken by its orders, and nothing of that
// is in the record yet, is decided about as if they had said so now.
func (h *handover) bequeath() {
	h.disown()
	copies := make(map[taking]bool)
	for _, p := range h.open {
		if p.move.To != "" {
			copies[taking{p.move.To, p.token}] = true
		}
	}
	h.mu.Lock()
	for key, answer := range h.mail {
		if answer.GetProblem() == "" {
			copies[key] = true
		}
	}
	h.mu.Unlock()
	if len(copies) == 0 {
		return
	}
	h.tenure.active.Go(func() { // this session is one of them: nobody waits in vain yet
		for key := range copies {
			h.mu.Lock()
			s := h.mu.sessions[key.node]
			h.mu.Unlock()
			if s == nil {
				continue // its copy goes with its age
			}
			if err := s.stray(h.tenure.ctx, key.token); err != nil && h.tenure.ctx.Err() == nil {
				h.cfg.Logger.Warn("what a handover left is not decided about", "err", err)
			}
		}
	})
}

func newHandover(s *session) *handover {
	return &handover{session: s, open: map[task.Token]*parcel{}, seen: map[task.Token]bool{}, orders: map[taking]*order{},
		given: map[task.NodeID]int64{}, busy: map[task.NodeID]int{}, pauses: map[task.NodeID]pausing{}, full: map[task.NodeID]fullness{},
		told: &ecsv1.HandedOn{}, moved: make(chan func()), mailed: make(chan struct{}, 1), mail: map[taking]*ecsv1.Taken{}}
}

func (h *handover) run(ctx context.Context) error {
	h.gather()
	if err := h.tell(ctx); err != nil {
		return err
	}
	var failed error
	for {
		// Before what they tell of is looked at.
		changed := h.sessionsChanged()
		h.look = time.Time{}
		h.collect()
		h.review()
		if err := h.give(ctx); err != nil {
			return err
		}
		h.commit(ctx, &failed)
		// Also again at the end: what this agent took itself from another that left
		// may have become its own since.
		if len(h.open) == 0 && !h.moving {
			if h.gather() {
				continue
			}
			h.told.Over = true
			return h.tell(ctx)
		}
		if err := h.tell(ctx); err != nil {
			return err
		}
		if err := h.wait(ctx, changed); err != nil {
			return err
		}
		if failed != nil {
			return failed
		}
	}
}

// wait waits until there may be something to do.
func (h *handover) wait(ctx context.Context, changed <-chan struct{}) error {
	var due <-chan time.Time
	if !h.look.IsZero() {
		timer := time.NewTimer(time.Until(h.look))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case act := <-h.moved:
		act()
	case <-h.mailed:
	case <-changed:
	case <-due:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// lookAt has run look again at that time, or before.
func (h *handover) lookAt(at time.Time) {
	if h.look.IsZero() || at.Before(h.look) {
		h.look = at
	}
}

// gather finds what is wanted and was not seen before, the last finished first.
func (h *handover) gather() (found bool) {
	sn := h.cfg.Snapshot()
	n := sn.Node(h.node)
	if n == nil {
		return false
	}
	for t := range sn.EndedLast() {
		if len(h.seen) >= handOnAtMost {
			break
		}
		r := t.Result
		if r.OutputAddr == "" || r.Holder() != h.node || r.Attempt < 1 || r.Attempt > len(t.Attempts) {
			continue
		}
		p := newParcel(t, n.OutputAddr)
		if h.seen[p.token] || p.size == 0 {
			continue
		}
		h.seen[p.token], found = true, true
		h.own(p)
		h.again(p)
		h.told.Total++
		h.told.Bytes += p.size
	}
	return found
}

func newParcel(t *task.Task, addr string) *parcel {
	r, tok := t.Result, t.Attempts[t.Result.Attempt-1].Token(t.ID)
	p := &parcel{token: tok, asked: map[task.NodeID]bool{}, failed: map[task.NodeID]int{},
		move: state.MovedOutput{Task: t.ID, Attempt: r.Attempt, From: r.Holder(), FromAddr: r.OutputAddr},
		take: &ecsv1.Take{Token: taskwire.FromToken(tok), Addr: addr, FinishedAt: taskwire.FromTime(t.FinishedAt),
			Stdout: held(&r.Stdout), Stderr: held(&r.Stderr)}}
	p.size = r.Stdout.Kept + r.Stderr.Kept
	if r.Outputs != nil && r.Outputs.Lost == "" {
		p.take.Outputs = held(r.Outputs.Stream())
		p.size += p.take.Outputs.GetKept()
	}
	return p
}

func held(s *task.Stream) *ecsv1.Held {
	return &ecsv1.Held{Bytes: s.Bytes, Kept: s.Kept, Sha256: s.SHA256[:]}
}

// again has an agent asked for a parcel that nobody has taken, unless enough were.
// What is still under way may yet be answered.
func (h *handover) again(p *parcel) {
	switch {
	case p.queued || p.move.To != "" || h.open[p.token] != p:
	case !p.gone && p.tries < takeTries:
		p.queued = true
		h.queue = append(h.queue, p)
	default:
		h.lose(p)
	}
}

// lose gives a parcel up that nobody can take, unless somebody is about to.
func (h *handover) lose(p *parcel) {
	if p.orders > 0 {
		return
	}
	h.release(p)
	h.told.Lost++
}

// commit moves what was taken in the record, one command at a time.
func (h *handover) commit(ctx context.Context, failed *error) {
	if h.moving || len(h.taken) == 0 {
		return
	}
	h.moving = true
	batch := slices.Clone(h.taken[:min(len(h.taken), movesAtMost)])
	h.taken = h.taken[len(batch):]
	var cmd state.MoveOutputs
	for _, p := range batch {
		cmd.Moves = append(cmd.Moves, p.move)
	}
	h.group.Go(func() {
		_, err := h.cfg.Log.Propose(ctx, cmd)
		act := func() {
			h.moving = false
			if *failed = err; err == nil {
				h.committed(batch)
			}
		}
		select {
		case h.moved <- act:
		case <-ctx.Done():
		}
	})
}

// committed takes what a command made of a batch.
func (h *handover) committed(batch []*parcel) {
	sn := h.cfg.Snapshot()
	for _, p := range batch {
		if t := sn.Task(p.move.Task); t != nil && t.Result.Holder() == h.node {
			h.given[p.move.To] -= p.size
			p.failed[p.move.To]++
			p.move.To = "" // that one takes no tasks any more
			h.again(p)
			continue
		}
		h.release(p)
		h.told.Moved++
		h.told.MovedBytes += p.size
		// What was decided before this command is in the record, too: who does not
		// hold it by now never will by an order of this handover.
		for node := range p.asked {
			if node != p.move.To {
				h.callOff(node, p.token)
			}
		}
	}
}

// tell says to the agent that leaves how far it is, where it does not know that.
func (h *handover) tell(ctx context.Context) error {
	now := &ecsv1.HandedOn{Total: h.told.Total, Moved: h.told.Moved, Lost: h.told.Lost,
		Bytes: h.told.Bytes, MovedBytes: h.told.MovedBytes, Over: h.told.Over}
	if h.said != nil && proto.Equal(now, h.said) {
		return nil
	}
	h.said = now
	return h.say(ctx, &ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_HandedOn{HandedOn: now}})
}
