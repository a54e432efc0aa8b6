package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/semaphore"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"ecs/control/state"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

const (
	// maxEntry is raft's own advice for the size of an entry in bytes: a larger
	// one delays heartbeats.
	maxEntry = raft.SuggestedMaxDataSize
	// maxCommands bounds an entry's commands: go-immutable-radix notifies
	// watchers less precisely beyond 8,192 changes in one transaction.
	maxCommands = 1000
	// inFlight is how many entries are on their way at once. One would leave
	// the disk idle while answers travel; many make small entries of what could
	// be one large. Measured with 128 clients: 1 gave 11,000 commands a second,
	// 2 gave 13,600, 3 gave 10,900, 6 gave 9,800.
	inFlight = 2
	// enqueueWithin is how long raft may take to begin with an entry.
	enqueueWithin = 2 * time.Second

	// maxWaiting bounds the bytes of proposals that are not answered yet.
	// Beyond it Propose waits.
	maxWaiting = 64 << 20
	// minCost is what a proposal counts at least, so that their number is
	// bounded too.
	minCost = 4 << 10
)

type proposal struct {
	plain   state.Command
	command *ecsv1.Command // the same for the log
	size    int            // bytes it adds to an entry at most
	start   time.Time
	done    chan answer
}

// placementRoom is how many bytes a Submit may grow by when Config.Compose says
// where its task runs. A placement that needs more is left out.
const placementRoom = 128

func (p *proposal) cost() int64 { return int64(max(p.size, minCost)) }

type answer struct {
	outcome state.Outcome
	err     error
}

// proposals are waiting to become entries.
type proposals struct {
	room  *semaphore.Weighted
	queue chan *proposal // never full: room bounds it
	held  *proposal      // did not fit into the last batch; the proposer's own
}

func (q *proposals) init() {
	q.room = semaphore.NewWeighted(maxWaiting)
	q.queue = make(chan *proposal, maxWaiting/minCost)
}

// Propose commits cmd and gives what applying it decided, which may be a
// refusal (Outcome.Err). Commands proposed at the same time share an entry of
// the log; each is stamped with the time at which its entry was made.
//
// ErrNotLeader and ErrTooBig: nothing was written. ErrUnknown: it may have
// been, or may be yet. Cancelling ctx abandons the wait, not the write.
func (n *Node) Propose(ctx context.Context, cmd state.Command) (state.Outcome, error) {
	p, err := n.enqueue(ctx, cmd)
	if err != nil {
		return state.Outcome{}, err
	}
	return n.await(ctx, p)
}

// Proposed is what became of one command of ProposeAll, as Propose gives it.
type Proposed struct {
	state.Outcome
	Err error
}

// ProposeAll is Propose for commands that do not depend on each other. It
// returns once the fate of each is known, in their order.
func (n *Node) ProposeAll(ctx context.Context, commands []state.Command) []Proposed {
	waiting := make([]*proposal, len(commands))
	fates := make([]Proposed, len(commands))
	for i, cmd := range commands {
		waiting[i], fates[i].Err = n.enqueue(ctx, cmd)
	}
	for i, p := range waiting {
		if p != nil {
			fates[i].Outcome, fates[i].Err = n.await(ctx, p)
		}
	}
	return fates
}

// enqueue hands a command to the proposer. On an error nothing was written.
func (n *Node) enqueue(ctx context.Context, cmd state.Command) (*proposal, error) {
	if _, leading, _ := n.Leadership(); !leading {
		return nil, ErrNotLeader
	}
	start := time.Now()
	p := &proposal{plain: cmd, command: state.ToWire(cmd, start), start: start, done: make(chan answer, 1)}
	size := proto.Size(p.command)
	p.size = protowire.SizeTag(1) + protowire.SizeBytes(size)
	if p.size > maxEntry {
		return nil, fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrTooBig, size, maxEntry)
	}
	if _, grows := cmd.(state.Submit); grows {
		p.size += placementRoom
	}
	if err := n.proposals.room.Acquire(ctx, p.cost()); err != nil {
		return nil, fmt.Errorf("%w: too much is waiting: %w", ErrNotLeader, err)
	}
	n.proposals.queue <- p
	return p, nil
}

// await gives what became of a proposal.
func (n *Node) await(ctx context.Context, p *proposal) (state.Outcome, error) {
	select {
	case a := <-p.done:
		a.outcome.Committed = time.Since(p.start)
		return a.outcome, a.err
	case <-ctx.Done():
		return state.Outcome{}, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	case <-n.stopped:
	}
	select {
	case a := <-p.done:
		return a.outcome, a.err
	default:
		return state.Outcome{}, fmt.Errorf("%w: this node has stopped", ErrUnknown)
	}
}

// runProposer turns proposals into entries: it takes everything that waits,
// sends it off, and while that is committed the next entry gathers.
func (n *Node) runProposer(ctx context.Context, r *raft.Raft) {
	slots := make(chan struct{}, inFlight)
	defer n.refuseWaiting()
	for {
		first := n.proposals.next(ctx)
		if first == nil {
			return
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			n.answer([]*proposal{first}, nil, ErrNotLeader)
			return
		}
		batch := n.proposals.gather(first)
		settled := n.compose(batch)
		sent := time.Now()
		future, err := n.send(r, batch)
		if err != nil {
			settled(nil)
			n.answer(batch, nil, err)
			<-slots
			continue
		}
		n.futures.Go(func() {
			outcomes, err := settle(future)
			n.cfg.Metrics.MeasureSince([]string{"replica", "commit"}, sent)
			settled(outcomes)
			n.answer(batch, outcomes, err)
			<-slots
		})
	}
}

// next waits for a proposal; nil when ctx ends.
func (q *proposals) next(ctx context.Context) *proposal {
	if p := q.held; p != nil {
		q.held = nil
		return p
	}
	select {
	case p := <-q.queue:
		return p
	case <-ctx.Done():
		return nil
	}
}

// gather takes what waits behind first, as much as one entry holds.
func (q *proposals) gather(first *proposal) []*proposal {
	batch, size := []*proposal{first}, first.size
	for len(batch) < maxCommands {
		select {
		case p := <-q.queue:
			if size+p.size > maxEntry {
				q.held = p
				return batch
			}
			batch, size = append(batch, p), size+p.size
		default:
			return batch
		}
	}
	return batch
}

// compose lets Config.Compose complete a batch.
func (n *Node) compose(batch []*proposal) (settled func([]state.Outcome)) {
	if n.cfg.Compose == nil {
		return func([]state.Outcome) {}
	}
	commands := make([]state.Command, len(batch))
	for i, p := range batch {
		commands[i] = p.plain
	}
	settled = n.cfg.Compose(commands)
	for i, p := range batch {
		c, ok := commands[i].(state.Submit)
		if !ok || c.Node == "" {
			continue
		}
		// Only that has changed: the task need not be put into a message again.
		m := p.command.GetSubmit()
		m.Node, m.Epoch = string(c.Node), c.Epoch
		if protowire.SizeTag(1)+protowire.SizeBytes(proto.Size(p.command)) > p.size {
			m.Node, m.Epoch = "", 0
		}
	}
	return settled
}

// send stamps a batch and gives it to raft.
func (n *Node) send(r *raft.Raft, batch []*proposal) (raft.ApplyFuture, error) {
	now := taskwire.FromTime(time.Now())
	entry := &ecsv1.Entry{Commands: make([]*ecsv1.Command, len(batch))}
	for i, p := range batch {
		p.command.Now = now
		entry.Commands[i] = p.command
	}
	data, err := proto.Marshal(entry)
	if err != nil {
		return nil, fmt.Errorf("%w: encode an entry: %w", ErrNotLeader, err)
	}
	n.cfg.Metrics.AddSample([]string{"replica", "batch", "commands"}, float32(len(batch)))
	n.cfg.Metrics.AddSample([]string{"replica", "batch", "bytes"}, float32(len(data)))
	return r.Apply(data, enqueueWithin), nil
}

// settle waits for an entry's fate.
func settle(future raft.ApplyFuture) ([]state.Outcome, error) {
	switch err := future.Error(); {
	case err == nil:
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout),
		errors.Is(err, raft.ErrLeadershipTransferInProgress):
		// Raft answers these only before it touches the log.
		return nil, fmt.Errorf("%w: %w", ErrNotLeader, err)
	default:
		return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	switch r := future.Response().(type) {
	case []state.Outcome:
		return r, nil
	case error:
		return nil, fmt.Errorf("%w: %w", ErrUnknown, r)
	default:
		return nil, fmt.Errorf("%w: applying answered with a %T", ErrUnknown, r)
	}
}

// answer tells each proposal of a batch what became of it.
func (n *Node) answer(batch []*proposal, outcomes []state.Outcome, err error) {
	if err == nil && len(outcomes) != len(batch) {
		err = fmt.Errorf("%w: %d commands had %d outcomes", ErrUnknown, len(batch), len(outcomes))
	}
	for i, p := range batch {
		a := answer{err: err}
		if err == nil {
			a.outcome = outcomes[i]
		}
		p.done <- a
		n.proposals.room.Release(p.cost())
	}
}

// refuseWaiting answers those whose entry will never be made.
func (n *Node) refuseWaiting() {
	if p := n.proposals.held; p != nil {
		n.proposals.held = nil
		n.answer([]*proposal{p}, nil, ErrNotLeader)
	}
	for {
		select {
		case p := <-n.proposals.queue:
			n.answer([]*proposal{p}, nil, ErrNotLeader)
		default:
			return
		}
	}
}
