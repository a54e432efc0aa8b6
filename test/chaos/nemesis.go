package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"ecs/internal/daemon"
	"ecs/test/chaos/check"
)

// fault is one kind of thing that goes wrong. make breaks something of the node
// and gives what mends it, which says by what it knows that it was broken.
type fault struct {
	kind      string
	low, high time.Duration // how long it lasts
	make      func(context.Context, *cluster, *node) (mend func() (bit string, err error), err error)
	engine    bool // only of nodes with an engine of their own
}

const second = time.Second

func kill(ctx context.Context, _ *cluster, n *node) (func() (string, error), error) {
	state, err := n.end(ctx, syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	return func() (string, error) {
		bit := ""
		if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL {
			bit = "killed by SIGKILL"
		}
		return bit, n.start()
	}, nil
}

func pause(ctx context.Context, _ *cluster, n *node) (func() (string, error), error) {
	if err := n.process.Process.Signal(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	return func() (string, error) {
		bit := ""
		if n.stopped() {
			bit = "in state T to the end"
		}
		return bit, n.process.Process.Signal(syscall.SIGCONT)
	}, nil
}

// leave ends an agent in good order.
func leave(ctx context.Context, _ *cluster, n *node) (func() (string, error), error) {
	ctx, cancel := context.WithTimeout(ctx, 90*second) // as its unit gives it
	defer cancel()
	state, err := n.end(ctx, syscall.SIGTERM)
	if err != nil {
		// The run goes on, and needs an agent that works.
		killing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*second)
		defer cancel()
		_, late := n.end(killing, syscall.SIGKILL)
		return nil, errors.Join(err, late, n.start())
	}
	return func() (string, error) { return leftWell(state), n.start() }, nil
}

// leftWell is the proof that a process left in good order; empty: it did not.
func leftWell(state *os.ProcessState) string {
	if !state.Success() {
		return ""
	}
	return "left with status 0"
}

// filtered makes a fault of rules in the node's network.
func filtered(rules func(c *cluster, n *node) ([]rule, error)) func(context.Context, *cluster, *node) (func() (string, error), error) {
	return func(_ context.Context, c *cluster, n *node) (func() (string, error), error) {
		r, err := rules(c, n)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("chaos-%d", daemon.Boottime())
		if err := c.net.filter(n.name, name, r); err != nil {
			return nil, err
		}
		return func() (string, error) {
			packets, err := c.net.unfilter(n.name, name, r)
			if packets == 0 {
				return "", err
			}
			return fmt.Sprintf("%d packets dropped", packets), err
		}, nil
	}
}

func (c *cluster) addrsBut(self *node, which []*node) (addrs []string) {
	for _, n := range which {
		if n != self {
			addrs = append(addrs, n.addr)
		}
	}
	return addrs
}

func from(which func(*cluster) []*node, make func(...string) []rule) func(c *cluster, n *node) ([]rule, error) {
	return func(c *cluster, n *node) ([]rule, error) { return make(c.addrsBut(n, which(c))...), nil }
}

func all(c *cluster) []*node { return c.nodes }

// halfOpen waits for connections to drop the packets of: a node that was started
// just now has none, or only such as gossip opens for a moment. What it waits for is
// always at work: an agent's session, or what Raft sends to a follower.
func halfOpen(c *cluster, n *node) (rules []rule, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*second)
	defer cancel()
	late := until(ctx, n.name+" is connected", func() bool {
		if !n.control {
			if leader, _ := n.follows(ctx); leader == "" {
				return false
			}
		}
		rules, err = c.net.halfOpen(n.name, c.addrsBut(n, c.controls())...)
		return err != nil || slices.ContainsFunc(rules, func(r rule) bool {
			return !n.control && r.about(rpcPort) || n.control && r.about(raftPort)
		})
	})
	return rules, cmp.Or(err, late)
}

// controlFaults befall one control node at a time: with fewer than a majority
// nothing moves, which is another test's.
var controlFaults = []fault{
	{kind: "kill a control node", low: second / 2, high: 6 * second, make: kill},
	{kind: "kill a control node", low: second / 2, high: 6 * second, make: kill}, // twice as often
	{kind: "pause a control node", low: second, high: 12 * second, make: pause},
	{kind: "cut a control node off", low: 2 * second, high: 10 * second, make: filtered(from(all, cut))},
	{kind: "cut a control node off from the others", low: 2 * second, high: 10 * second, make: filtered(from((*cluster).controls, cut))},
	{kind: "a control node hears none of the others", low: 2 * second, high: 10 * second, make: filtered(from((*cluster).controls, deafen))},
	{kind: "a control node loses packets", low: 3 * second, high: 10 * second, make: filtered(from(all, lossy))},
	{kind: "half-open connections of a control node", low: 3 * second, high: 8 * second, make: filtered(halfOpen)},
}

// agentFaults befall one agent.
var agentFaults = []fault{
	{kind: "kill an agent", low: second / 5, high: 4 * second, make: kill},
	{kind: "kill an agent", low: second / 5, high: 4 * second, make: kill},
	{kind: check.AgentGone, low: 20 * second, high: 26 * second, make: kill}, // longer than L3 takes; see peace
	{kind: "pause an agent", low: second, high: 8 * second, make: pause},
	{kind: "pause an agent for long", low: 12 * second, high: 18 * second, make: pause},
	{kind: "cut an agent off", low: second, high: 18 * second, make: filtered(from((*cluster).controls, cut))},
	{kind: "an agent hears nothing", low: 2 * second, high: 16 * second, make: filtered(from((*cluster).controls, deafen))},
	{kind: "an agent loses packets", low: 3 * second, high: 12 * second, make: filtered(from((*cluster).controls, lossy))},
	{kind: "half-open connections of an agent", low: 3 * second, high: 14 * second, make: filtered(halfOpen)},
	{kind: "an agent leaves and comes back", low: second, high: 5 * second, make: leave},
}

// containerFaults befall an agent that has containers.
var containerFaults = append(slices.Clone(agentFaults), []fault{
	{kind: "kill an engine", low: second, high: 6 * second, make: killEngine, engine: true},
	{kind: "kill an engine", low: second, high: 6 * second, make: killEngine, engine: true},
}...)

// nemesis makes faults until its time is over, and keeps a record of them.
type nemesis struct {
	c      *cluster
	say    func(format string, args ...any)
	mu     sync.Mutex
	faults []check.Fault
	busy   map[*node]bool
	err    error
	// peace is held by who makes a fault of a control node, and by one of the lanes
	// while an agent of its is gone for long: a leader that is lost begins to count
	// anew, and how soon attempts are replaced could never be judged.
	peace chan struct{}
}

// run makes faults on several lanes at once, so that they come alone and in pairs:
// one of control nodes, one of agents of either kind each. The seed says which,
// of whom, when and for how long; who leads then, and what it meets, it can't.
//
// First so many agents (alone) are gone for long, one after the other, while nothing
// else is the matter: what is owed then can be judged.
func (m *nemesis) run(ctx context.Context, seed uint64, alone int, over func() bool) {
	m.busy, m.peace = make(map[*node]bool), make(chan struct{}, 1)
	var processes, containers []*node
	for _, n := range m.c.agents() {
		if n.containers {
			containers = append(containers, n)
		} else {
			processes = append(processes, n)
		}
	}
	gone := agentFaults[slices.IndexFunc(agentFaults, func(f fault) bool { return f.kind == check.AgentGone })]
	for i := range uint64(alone) {
		m.one(ctx, gone, processes[(seed+i)%uint64(len(processes))], gone.low)
	}
	var lanes sync.WaitGroup
	for i, lane := range []struct {
		kinds   []fault
		targets []*node
	}{{controlFaults, m.c.controls()}, {agentFaults, processes}, {agentFaults, processes}, {containerFaults, containers}} {
		if len(lane.targets) == 0 {
			continue
		}
		lanes.Go(func() {
			m.lane(ctx, rand.New(rand.NewPCG(seed, uint64(i))), lane.kinds, lane.targets, over, func(f fault) bool {
				return i == 0 || i == 1 && f.kind == check.AgentGone
			})
		})
	}
	lanes.Wait()
}

// lane makes one fault after the other: every kind once in an order that is drawn,
// then again. alone says for which it holds the peace.
func (m *nemesis) lane(ctx context.Context, rng *rand.Rand, kinds []fault, targets []*node, over func() bool, alone func(fault) bool) {
	var order []int
	for !over() && ctx.Err() == nil {
		if len(order) == 0 {
			order = rng.Perm(len(kinds))
		}
		f := kinds[order[0]]
		order = order[1:]
		last := f.low + time.Duration(rng.Int64N(int64(f.high-f.low)))
		pause := second + time.Duration(rng.Int64N(int64(3*second)))
		if alone(f) {
			select {
			case m.peace <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
		n, err := m.take(ctx, rng, slices.DeleteFunc(slices.Clone(targets), func(n *node) bool { return f.engine && n.engine == nil }))
		if err == nil {
			m.one(ctx, f, n, last)
		}
		if alone(f) {
			<-m.peace
		}
		if err != nil {
			m.fail(err)
			return
		}
		select {
		case <-time.After(pause): // faults have their times
		case <-ctx.Done():
		}
	}
}

// take chooses a target that no other lane has: of control nodes the leader, half
// of the time.
func (m *nemesis) take(ctx context.Context, rng *rand.Rand, targets []*node) (*node, error) {
	drawn, order := rng.IntN(2), rng.Perm(len(targets))
	if targets[0].control && drawn == 0 {
		if l, _ := m.c.leader(ctx); l != nil {
			return l, nil // it has a lane of its own
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range order {
		if !m.busy[targets[i]] {
			m.busy[targets[i]] = true
			return targets[i], nil
		}
	}
	return nil, fmt.Errorf("each of %d targets has a fault: there are more lanes than that", len(targets))
}

func (m *nemesis) one(ctx context.Context, f fault, n *node, last time.Duration) {
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.busy, n)
	}()
	note := check.Fault{Kind: f.kind, Target: n.name, Begin: daemon.Boottime(), Leader: n.control}
	mend, err := f.make(ctx, m.c, n)
	if err != nil {
		m.fail(fmt.Errorf("%s of %s: %w", f.kind, n.name, err))
		return
	}
	select {
	case <-time.After(last):
	case <-ctx.Done():
	}
	note.Bit, err = mend()
	note.End = daemon.Boottime()
	m.say("%-40s %s for %5.1fs: %s", f.kind, n.name, (note.End - note.Begin).Seconds(), note.Bit)
	if err != nil {
		m.fail(fmt.Errorf("mend %s of %s: %w", f.kind, n.name, err))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = append(m.faults, note)
}

// bitten counts the faults that did what they say.
func (m *nemesis) bitten() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.faults {
		if f.Bit != "" {
			n++
		}
	}
	return n
}

func (m *nemesis) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.err = err
	}
}
