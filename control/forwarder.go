package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/protobuf/proto"

	"ecs/control/replica"
	"ecs/control/state"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

const (
	// forwardWithin bounds one forwarded call; a leader that hangs is left
	// for the next one.
	forwardWithin = 5 * time.Second
	// tellBefore is how long before the end of a call its fates are told.
	tellBefore = 500 * time.Millisecond
	// forwardsAtOnce is how many calls are on their way to the leader: one more
	// than the leader has entries under way, so that it never waits for us.
	forwardsAtOnce = 3
	// forwardBytes and forwardCommands bound one call, save a single command.
	forwardBytes    = 512 << 10
	forwardCommands = 1000
	// forwardRoom bounds the bytes of commands that are not answered yet, each
	// counted as forwardCost at least. Beyond it callers wait.
	forwardRoom = 64 << 20
	forwardCost = 4 << 10
)

// forwarder sends commands to the leader. What comes while calls are on their
// way shares the next one, without a timer: a call costs both ends more than the
// command in it.
type forwarder struct {
	call    func(ctx context.Context, commands []*ecsv1.Command) ([]*ecsv1.Forwarded, error)
	room    *semaphore.Weighted
	queue   chan *forwarded // never full: room bounds it
	held    *forwarded      // did not fit into the last call; run's own
	stopped chan struct{}   // closed when run has ended
}

type forwarded struct {
	ctx   context.Context // of who waits for it
	plain state.Command
	wire  *ecsv1.Command
	size  int
	done  chan forwardAnswer // one slot
}

type forwardAnswer struct {
	decision
	err error
}

func newForwarder(call func(context.Context, []*ecsv1.Command) ([]*ecsv1.Forwarded, error)) *forwarder {
	return &forwarder{call: call, room: semaphore.NewWeighted(forwardRoom),
		queue: make(chan *forwarded, forwardRoom/forwardCost), stopped: make(chan struct{})}
}

func (c *forwarded) cost() int64 { return int64(max(c.size, forwardCost)) }

func (f *forwarder) answer(c *forwarded, d decision, err error) {
	c.done <- forwardAnswer{d, err}
	f.room.Release(c.cost())
}

// forward commits a command through the leader, once. errNoLeader means that
// nothing was written. Cancelling ctx abandons the wait, not the write.
func (f *forwarder) forward(ctx context.Context, cmd state.Command) (decision, error) {
	select {
	case <-f.stopped:
		return decision{}, errNoLeader
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, forwardWithin)
	defer cancel()
	c := &forwarded{ctx: ctx, plain: cmd, wire: state.ToWire(cmd, time.Time{}), done: make(chan forwardAnswer, 1)}
	c.size = proto.Size(c.wire)
	if err := f.room.Acquire(ctx, c.cost()); err != nil {
		return decision{}, errNoLeader // it takes nothing more
	}
	f.queue <- c
	select {
	case a := <-c.done:
		return a.decision, a.err
	case <-ctx.Done():
		return decision{}, fmt.Errorf("forward to the leader: %w", ctx.Err())
	case <-f.stopped:
	}
	select {
	case a := <-c.done:
		return a.decision, a.err
	default:
		return decision{}, errNoLeader // it came too late to be sent, and nothing is any more
	}
}

// run sends what is forwarded until ctx ends, and has refused or sent all of it
// then.
func (f *forwarder) run(ctx context.Context) error {
	slots := make(chan struct{}, forwardsAtOnce)
	var calls sync.WaitGroup
	defer close(f.stopped)
	defer f.refuseWaiting()
	defer calls.Wait()
	for {
		first := f.next(ctx)
		if first == nil {
			return ctx.Err()
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			f.answer(first, decision{}, errNoLeader)
			return ctx.Err()
		}
		batch := f.gather(first)
		calls.Go(func() {
			f.send(ctx, batch)
			<-slots
		})
	}
}

func (f *forwarder) next(ctx context.Context) *forwarded {
	if c := f.held; c != nil {
		f.held = nil
		if f.wanted(c) {
			return c
		}
	}
	for {
		select {
		case c := <-f.queue:
			if f.wanted(c) {
				return c
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// wanted reports whether anybody still waits for a command. One that nobody
// waits for any more is not sent: who gave up will repeat it.
func (f *forwarder) wanted(c *forwarded) bool {
	if c.ctx.Err() == nil {
		return true
	}
	f.answer(c, decision{}, errNoLeader)
	return false
}

// gather takes what waits behind first, as much as one call holds.
func (f *forwarder) gather(first *forwarded) []*forwarded {
	batch, size := []*forwarded{first}, first.size
	for len(batch) < forwardCommands {
		select {
		case c := <-f.queue:
			if !f.wanted(c) {
				continue
			}
			if size+c.size > forwardBytes {
				f.held = c
				return batch
			}
			batch, size = append(batch, c), size+c.size
		default:
			return batch
		}
	}
	return batch
}

// send makes one call and answers everybody in it.
func (f *forwarder) send(ctx context.Context, batch []*forwarded) {
	ctx, cancel := context.WithTimeout(ctx, forwardWithin)
	defer cancel()
	commands := make([]*ecsv1.Command, len(batch))
	for i, c := range batch {
		commands[i] = c.wire
	}
	fates, err := f.call(ctx, commands)
	if err == nil && len(fates) != len(batch) {
		err = fmt.Errorf("%d forwarded commands had %d answers", len(batch), len(fates))
	}
	for i, c := range batch {
		if err != nil {
			f.answer(c, decision{}, err)
			continue
		}
		d, err := decided(c.plain, fates[i])
		f.answer(c, d, err)
	}
}

// forwardToLeader is the forwarder's call. It ends when another leads: one that
// hangs, or can't be reached any more, would hold up what its successor can do.
func (s *Server) forwardToLeader(ctx context.Context, commands []*ecsv1.Command) ([]*ecsv1.Forwarded, error) {
	leader, _ := s.replica.Leader()
	client, err := s.leaderClient()
	if err != nil {
		return nil, err
	}
	ctx, stop := s.underLeader(ctx, leader)
	defer stop()
	answer, err := client.Forward(ctx, &ecsv1.ForwardRequest{Commands: commands})
	if err != nil {
		return nil, fmt.Errorf("forward to the leader: %w", err)
	}
	return answer.GetForwarded(), nil
}

// underLeader gives a context that ends when another node leads, or none. stop must
// be called.
func (s *Server) underLeader(ctx context.Context, leader string) (under context.Context, stop func()) {
	under, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		defer cancel()
		s.whileLeads(under, leader)
	})
	return under, func() { cancel(); watching.Wait() }
}

// whileLeads returns when another node leads, or none, or ctx ends.
func (s *Server) whileLeads(ctx context.Context, leader string) {
	for {
		changed := s.replica.LeaderChanged()
		if now, _ := s.replica.Leader(); now != leader {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// refuseWaiting answers those that were never sent.
func (f *forwarder) refuseWaiting() {
	if c := f.held; c != nil {
		f.held = nil
		f.answer(c, decision{}, errNoLeader)
	}
	for {
		select {
		case c := <-f.queue:
			f.answer(c, decision{}, errNoLeader)
		default:
			return
		}
	}
}

// decided is what the leader's answer says of a command.
func decided(cmd state.Command, p *ecsv1.Forwarded) (decision, error) {
	refusal := taskwire.ToError(p.GetRefusal())
	if refusal != nil {
		switch refusal.Code {
		case task.CodeNoLeader:
			return decision{}, errNoLeader
		case task.CodeUnknown:
			return decision{}, errUnknown
		case task.CodeTooLarge:
			return decision{}, refusal
		}
	}
	d := decision{Outcome: state.Outcome{Index: p.GetIndex(), Existed: p.GetExisted(), Committed: time.Duration(p.GetCommitted())}}
	if m := p.GetMade(); m != nil {
		d.Task = taskwire.ToTask(m)
		if own, ok := cmd.(state.Submit); ok {
			d.Task.Spec = own.Task.Spec
		}
	}
	d.elsewhere = task.ID(p.GetTask())
	if p.GetNode() != nil {
		d.Node = taskwire.ToNode(p.GetNode())
	}
	if refusal != nil {
		d.Err = refusal
	}
	return d, nil
}

// recorded completes a decision that names a task which this node's own record
// has: answers that carried such records would have no bound.
func (s *Server) recorded(ctx context.Context, d decision) (decision, error) {
	if d.elsewhere == "" || d.Err != nil {
		return d, nil
	}
	// The decision is made: what follows is no reason to ask for another.
	if err := s.applied(ctx, d); err != nil {
		d.Err = errUnknown
	} else if d.Task = s.store.Snapshot().Task(d.elsewhere); d.Task == nil {
		d.Err = &task.Error{Code: task.CodeNotFound, Message: fmt.Sprintf("task %s has ended and was forgotten since", d.elsewhere)}
	}
	return d, nil
}

// Forward commits commands that another node forwards.
func (p *peerServer) Forward(ctx context.Context, req *ecsv1.ForwardRequest) (*ecsv1.ForwardAnswer, error) {
	if err := p.authorize(ctx); err != nil {
		return nil, err
	}
	if n := len(req.GetCommands()); n > forwardCommands {
		return nil, fmt.Errorf("%d commands are forwarded, at most %d are allowed", n, forwardCommands)
	}
	commands := make([]state.Command, len(req.GetCommands()))
	for i, m := range req.GetCommands() {
		var err error
		if commands[i], _, err = state.FromWire(m); err != nil {
			return nil, fmt.Errorf("forwarded command: %w", err)
		}
	}
	// What is known is told in time, rather than nothing of all.
	if end, limited := ctx.Deadline(); limited {
		earlier, cancel := context.WithDeadline(ctx, end.Add(-tellBefore))
		defer cancel()
		ctx = earlier
	}
	answer := &ecsv1.ForwardAnswer{Forwarded: make([]*ecsv1.Forwarded, len(commands))}
	for i, fate := range p.s.replica.ProposeAll(ctx, commands) {
		answer.Forwarded[i] = proposed(commands[i], fate)
	}
	return answer, nil
}

// proposed puts the fate of a command into a message.
func proposed(cmd state.Command, fate replica.Proposed) *ecsv1.Forwarded {
	switch {
	case fate.Err == nil:
	case errors.Is(fate.Err, replica.ErrNotLeader):
		return &ecsv1.Forwarded{Refusal: taskwire.FromError(errNoLeader)}
	case errors.Is(fate.Err, replica.ErrTooBig):
		return &ecsv1.Forwarded{Refusal: taskwire.FromError(tooLarge(fate.Err))}
	default:
		return &ecsv1.Forwarded{Refusal: taskwire.FromError(errUnknown)}
	}
	m := &ecsv1.Forwarded{Index: fate.Index, Existed: fate.Existed, Committed: int64(fate.Committed)}
	if t := fate.Task; t != nil {
		if _, ok := cmd.(state.Submit); ok && !fate.Existed {
			made := *t
			made.Spec = task.Spec{} // the other end has it
			m.Made = taskwire.FromTask(&made)
		} else {
			m.Task = string(t.ID)
		}
	}
	if fate.Node != nil {
		m.Node = taskwire.FromNode(fate.Node)
	}
	var refusal *task.Error
	if errors.As(fate.Outcome.Err, &refusal) {
		m.Refusal = taskwire.FromError(refusal)
	}
	return m
}
