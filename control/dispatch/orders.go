package dispatch

import (
	"context"
	"slices"
	"time"

	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

// taking is who takes which output.
type taking struct {
	node  task.NodeID
	token task.Token
}

// order is one to take an output that is not answered yet.
type order struct {
	*parcel
	to      *session
	due     time.Time
	overdue bool
}

// pausing is how long an agent is not asked for anything.
type pausing struct {
	until  time.Time
	length time.Duration
}

// fullness is what an agent had no room for.
type fullness struct {
	least int64 // bytes
	free  int64 // what it had said it has
}

// bars reports whether there is no use in asking for so many bytes.
func (f fullness) bars(size, free int64) bool {
	return f.least > 0 && size >= f.least && (free < size || free <= f.free)
}

// give orders agents to take what waits, as many as may be under way.
func (h *handover) give(ctx context.Context) error {
	for i := 0; i < min(len(h.queue), lookAhead) && h.active < takesAtOnce; {
		p := h.queue[i]
		to, wait := h.receiver(p)
		if to == nil && wait {
			i++
			continue
		}
		h.dequeue(p)
		if to == nil {
			h.lose(p)
			continue
		}
		if err := h.order(ctx, p, to); err != nil {
			return err
		}
	}
	return nil
}

func (h *handover) dequeue(p *parcel) {
	if at := slices.Index(h.queue, p); at >= 0 {
		h.queue = slices.Delete(h.queue, at, at+1)
	}
	p.queued = false
}

// order has one agent take one output.
func (h *handover) order(ctx context.Context, p *parcel, to *session) error {
	grant := &ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Grant{Grant: &ecsv1.Grant{Token: p.take.GetToken(), Node: string(to.node)}}}
	if err := h.say(ctx, grant); err != nil {
		return err
	}
	if !to.offer(&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Take{Take: p.take}}) {
		h.pause(to.node)
		h.again(p)
		return nil
	}
	o := &order{parcel: p, to: to, due: time.Now().Add(takeWithin + time.Duration(p.size/takeRate)*time.Second)}
	h.orders[taking{to.node, p.token}] = o
	h.lookAt(o.due)
	p.asked[to.node] = true
	p.orders++
	h.active++
	h.busy[to.node]++
	h.given[to.node] += p.size
	return nil
}

// end takes an order off the books.
func (h *handover) end(o *order) {
	delete(h.orders, taking{o.to.node, o.token})
	o.orders--
	h.busy[o.to.node]--
	if !o.overdue {
		h.active--
	}
	h.given[o.to.node] -= o.size
}

// review looks for orders whose session has ended, and for those that are overdue:
// others are asked then.
func (h *handover) review() {
	now := time.Now()
	for _, o := range h.orders {
		switch {
		case isGone(o.to):
			h.end(o)
			h.pause(o.to.node)
			o.failed[o.to.node]++
			h.again(o.parcel)
		case o.overdue:
		case now.Before(o.due):
			h.lookAt(o.due)
		default:
			o.overdue = true
			h.active--
			o.failed[o.to.node]++
			h.again(o.parcel)
		}
	}
}

func isGone(s *session) bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

// collect takes the answers that have come.
func (h *handover) collect() {
	h.mu.Lock()
	mail := h.mail
	h.mail = map[taking]*ecsv1.Taken{}
	h.mu.Unlock()
	for key, answer := range mail {
		h.answered(key, answer)
	}
}

// answered takes one answer, which may come after its order was overdue, or after
// the session ended that the order was sent on.
func (h *handover) answered(key taking, a *ecsv1.Taken) {
	p, o := h.open[key.token], h.orders[key]
	if p == nil {
		h.callOff(key.node, key.token) // another has it by now
		return
	}
	if a.GetProblem() == "" {
		h.accepted(key.node, p, o)
		return
	}
	delete(p.asked, key.node)
	h.cfg.Logger.Info("output not taken", "task", p.token.Task, "attempt", p.token.Attempt, "from", h.node, "by", key.node, "err", a.GetProblem())
	if o == nil {
		return // somebody else was asked since
	}
	h.end(o)
	p.failed[key.node]++
	switch {
	case a.GetGone():
		p.gone = true
	case a.GetFull():
		h.fill(o)
	case a.GetBusy():
		h.pause(key.node)
	default:
		p.tries++
		h.pause(key.node)
	}
	if p.gone && p.queued {
		h.dequeue(p)
	}
	h.again(p)
}

// accepted counts that an agent has taken a parcel, unless another has before.
func (h *handover) accepted(node task.NodeID, p *parcel, o *order) {
	p.asked[node] = true
	delete(h.pauses, node)
	if o != nil {
		h.end(o)
	}
	if p.move.To != "" {
		return // it is called off once the other's is in the record
	}
	p.move.To = node
	h.given[node] += p.size
	h.dequeue(p)
	h.taken = append(h.taken, p)
}

// pause has an agent not asked for a while.
func (h *handover) pause(node task.NodeID) {
	now := time.Now()
	p := h.pauses[node]
	if now.Before(p.until) {
		return
	}
	p.length = min(max(2*p.length, firstPause), mostPause)
	p.until = now.Add(p.length)
	h.pauses[node] = p
}

// fill notes that an agent had no room for an order.
func (h *handover) fill(o *order) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := fullness{least: o.size, free: o.to.spoolFree}
	if before := h.full[o.to.node].least; before > 0 {
		f.least = min(f.least, before)
	}
	h.full[o.to.node] = f
}
