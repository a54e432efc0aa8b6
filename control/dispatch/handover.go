package dispatch

import (
	"context"
	"fmt"
	"sync"
	"time"

	"ecs/control/state"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

const (
	// takesAtOnce bounds the orders of one handover that are under way, takesOfOne
	// those to one agent.
	takesAtOnce = 8
	takesOfOne  = 2
	// takeTries is how many agents are asked to take one output.
	takeTries = 3
	// An order is given up after takeWithin, and a second more for every takeRate
	// bytes.
	takeWithin = 15 * time.Second
	takeRate   = 1 << 20
	// assembleWithin is how long agents that take tasks may take to open a session
	// with a new leader, before what they could have taken is given up.
	assembleWithin = 5 * time.Second
	// movesAtMost bounds the outputs of one command, handOnAtMost those of one agent:
	// its spool knows no more.
	movesAtMost  = 500
	handOnAtMost = 16 << 10
)

// parcel is one result's output that is to be held by somebody else.
type parcel struct {
	move  state.MovedOutput // To is set when it is taken
	token task.Token
	take  *ecsv1.Take
	size  int64
	asked map[task.NodeID]bool
}

// handover has others take what the agent of a session holds, which leaves. All of
// it belongs to the goroutine of run; orders and moves have one each, and answer.
type handover struct {
	*session
	queue   []*parcel
	seen    map[task.Token]bool
	given   map[task.NodeID]int64 // bytes
	busy    map[task.NodeID]int   // orders under way
	full    map[task.NodeID]int64 // the least that it had no room for
	taken   []*parcel             // to be moved in the record
	orders  int
	moving  bool
	told    *ecsv1.HandedOn
	began   time.Time
	answers chan func() // what is to be done with an answer
	group   sync.WaitGroup
}

// handOn runs one handover until nothing is left that anybody could take, or ctx
// ends. It may be repeated: what was moved before is not this agent's any more.
func (s *session) handOn(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	h := &handover{session: s, seen: map[task.Token]bool{}, given: map[task.NodeID]int64{}, busy: map[task.NodeID]int{},
		full: map[task.NodeID]int64{}, told: &ecsv1.HandedOn{}, began: time.Now(), answers: make(chan func())}
	defer h.group.Wait()
	defer cancel()
	if err := h.run(ctx); err != nil {
		return fmt.Errorf("hand the output of node %s on: %w", s.node, err)
	}
	s.cfg.Logger.Info("output handed on", "node", s.node, "results", h.told.GetTotal(), "moved", h.told.GetMoved(),
		"lost", h.told.GetLost(), "bytes", h.told.GetMovedBytes(), "term", s.term)
	return nil
}

func (h *handover) run(ctx context.Context) error {
	var failed error
	assembled := time.NewTimer(assembleWithin)
	defer assembled.Stop()
	h.gather()
	if err := h.tell(ctx); err != nil {
		return err
	}
	for {
		// Also again at the end: what this agent took itself from another that left
		// may have become its own since.
		if len(h.queue) == 0 && h.orders == 0 && !h.moving && len(h.taken) == 0 && !h.gather() {
			h.told.Over = true
			return h.tell(ctx)
		}
		changed := h.sessionsChanged()
		h.give(ctx)
		if len(h.taken) > 0 && !h.moving {
			h.moving = true
			batch := h.taken[:min(len(h.taken), movesAtMost)]
			h.taken = h.taken[len(batch):]
			h.group.Go(func() { h.answer(ctx, h.commit(ctx, batch, &failed)) })
		}
		if h.orders == 0 && !h.moving && len(h.queue) == 0 {
			continue // nobody could take what was left
		}
		select {
		case act := <-h.answers:
			act()
		case <-changed:
			continue
		case <-assembled.C:
			continue
		case <-ctx.Done():
			return ctx.Err()
		}
		if failed != nil {
			return failed
		}
		if err := h.tell(ctx); err != nil {
			return err
		}
	}
}

// answer hands over to run what there is to do.
func (h *handover) answer(ctx context.Context, act func()) {
	select {
	case h.answers <- act:
	case <-ctx.Done():
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
		h.queue = append(h.queue, p)
		h.told.Total++
		h.told.Bytes += p.size
	}
	return found
}

func newParcel(t *task.Task, addr string) *parcel {
	r, tok := t.Result, t.Attempts[t.Result.Attempt-1].Token(t.ID)
	p := &parcel{token: tok, asked: map[task.NodeID]bool{},
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

// give orders agents to take what waits, as many as may be under way.
func (h *handover) give(ctx context.Context) {
	for len(h.queue) > 0 && h.orders < takesAtOnce {
		p := h.queue[0]
		to, wait := h.receiver(p)
		if wait {
			return
		}
		h.queue = h.queue[1:]
		if to == nil {
			h.told.Lost++
			continue
		}
		p.asked[to.node] = true
		h.orders++
		h.busy[to.node]++
		h.given[to.node] += p.size
		h.group.Go(func() {
			answer := h.order(ctx, p, to)
			h.answer(ctx, func() { h.answered(p, to, answer) })
		})
	}
}

// answered takes what came of an order.
func (h *handover) answered(p *parcel, to *session, a *ecsv1.Taken) {
	h.orders--
	h.busy[to.node]--
	switch {
	case a.GetProblem() == "":
		p.move.To = to.node
		h.taken = append(h.taken, p)
		return
	case a.GetGone():
		h.told.Lost++
	default:
		h.again(p)
	}
	h.given[to.node] -= p.size
	if least, known := h.full[to.node]; a.GetFull() && (!known || p.size < least) {
		h.full[to.node] = p.size
	}
	h.cfg.Logger.Info("output not taken", "task", p.token.Task, "attempt", p.token.Attempt, "from", h.node, "by", to.node, "err", a.GetProblem())
}

// again has another agent asked, unless enough were.
func (h *handover) again(p *parcel) {
	if len(p.asked) >= takeTries {
		h.told.Lost++
		return
	}
	h.queue = append(h.queue, p)
}

// order has one agent take one output, and waits until it has or won't.
func (h *handover) order(ctx context.Context, p *parcel, to *session) *ecsv1.Taken {
	ctx, cancel := context.WithTimeout(ctx, takeWithin+time.Duration(p.size/takeRate)*time.Second)
	defer cancel()
	answer, forget := h.expect(to.node, p.token)
	defer forget()
	grant := &ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Grant{Grant: &ecsv1.Grant{Token: p.take.GetToken(), Node: string(to.node)}}}
	if err := h.say(ctx, grant); err != nil {
		return &ecsv1.Taken{Problem: "the agent that leaves does not listen"}
	}
	if !to.sayUnlessGone(ctx, &ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Take{Take: p.take}}) {
		return &ecsv1.Taken{Problem: "its session ended"}
	}
	select {
	case a := <-answer:
		return a
	case <-to.gone:
		return &ecsv1.Taken{Problem: "its session ended"}
	case <-ctx.Done():
		return &ecsv1.Taken{Problem: "no answer in time"}
	}
}

// commit moves what was taken in the record.
func (h *handover) commit(ctx context.Context, batch []*parcel, failed *error) (act func()) {
	var cmd state.MoveOutputs
	for _, p := range batch {
		cmd.Moves = append(cmd.Moves, p.move)
	}
	out, err := h.cfg.Log.Propose(ctx, cmd)
	return func() {
		h.moving = false
		if *failed = err; err != nil {
			return
		}
		moved := make(map[task.ID]bool, len(out.Ended))
		for _, id := range out.Ended {
			moved[id] = true
		}
		sn := h.cfg.Snapshot()
		for _, p := range batch {
			t := sn.Task(p.move.Task)
			if !moved[p.move.Task] && t != nil && t.Result.Holder() == h.node {
				h.again(p) // who took it is gone
				continue
			}
			h.told.Moved++
			h.told.MovedBytes += p.size
		}
	}
}

// tell says to the agent that leaves how far it is.
func (h *handover) tell(ctx context.Context) error {
	now := &ecsv1.HandedOn{Total: h.told.Total, Moved: h.told.Moved, Lost: h.told.Lost,
		Bytes: h.told.Bytes, MovedBytes: h.told.MovedBytes, Over: h.told.Over}
	return h.say(ctx, &ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_HandedOn{HandedOn: now}})
}
