package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ecs/agent"
	"ecs/internal/admin"
	"ecs/internal/daemon"
	"ecs/internal/gossip"
)

// leaving is the end of this agent's part in its cluster, for good.
type leaving struct {
	cancel context.CancelCauseFunc
	once   sync.Once
	begun  chan struct{}
	done   chan struct{}
	err    error // once done is closed
}

// withLeaving gives a context that a leave ends.
func withLeaving(ctx context.Context) (context.Context, *leaving) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &leaving{cancel: cancel, begun: make(chan struct{}), done: make(chan struct{})}
}

// begin reports false when the agent leaves already.
func (l *leaving) begin() (began bool) {
	l.once.Do(func() {
		began = true
		close(l.begun)
		l.cancel(agent.ErrForGood)
	})
	return began
}

func (l *leaving) ended(err error) {
	l.err = err
	l.cancel(nil)
	close(l.done)
}

// left reports, once ended, whether the agent left for good.
func (l *leaving) left() bool {
	select {
	case <-l.begun:
		return l.err == nil
	default:
		return false
	}
}

// operated is an agent as its operator changes it.
type operated struct {
	o       *options
	agent   *agent.Agent
	members *gossip.Members
	rings   *daemon.RingWatch
	leaving *leaving
}

// lookEvery is how often progress is looked at while an operator waits.
const lookEvery = 200 * time.Millisecond

// About implements admin.Node.
func (n *operated) About() admin.About {
	id := n.o.node.Identity()
	state := "no session with a leader; it looks for one, or waits for ecsctl join"
	if s := n.agent.Status(); s.Connected {
		state = "connected to the leader at " + s.Leader
	}
	return admin.About{Role: string(id.Role), ID: id.ID, Name: n.o.Name, Cluster: id.Cluster, State: state}
}

// Join implements admin.Node.
func (n *operated) Join(ctx context.Context, addrs []string, say func(string)) error {
	if n.agent.Status().Connected {
		say("it is a member already")
		return nil
	}
	say("looking for the cluster")
	if err := n.rings.Join(ctx, addrs, func() error { return n.members.Join(ctx, addrs) }); err != nil {
		return err
	}
	say(fmt.Sprintf("gossip shows %d nodes; registering with the leader", len(n.members.Snapshot())))
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for !n.agent.Status().Connected {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-n.leaving.done:
			return errors.New("the agent ended")
		}
	}
	say("registered; it takes tasks now")
	return nil
}

// Leave implements admin.Node. An agent never refuses: its tasks move.
func (n *operated) Leave(ctx context.Context, _ bool, say func(string)) error {
	if !n.leaving.begin() {
		return errors.New("the agent is leaving already")
	}
	say(fmt.Sprintf("it takes nothing new; %d tasks run, for up to %s", n.agent.Status().Running, n.o.grace))
	tell := progress{say: say, running: n.agent.Status().Running}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			tell.look(n.agent.Status())
		case <-n.leaving.done:
			tell.look(n.agent.Status())
			return n.leaving.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// progress tells an operator what is new of a leave.
type progress struct {
	say      func(string)
	running  int
	handover agent.Handover
}

func (p *progress) look(s agent.Status) {
	if s.Running != p.running {
		p.running = s.Running
		p.say(fmt.Sprintf("%d tasks run", s.Running))
	}
	before, now := p.handover, s.Handover
	if p.handover = now; now == before {
		return
	}
	if before.Within == 0 {
		p.say(fmt.Sprintf("its output goes to other agents, the newest first, within %s", now.Within))
	}
	switch {
	case now.Over && now.Lost > 0:
		p.say(fmt.Sprintf("%s; for %d there was no agent with room, they are gone", now, now.Lost))
	case now.Over || now.Moved != before.Moved:
		p.say(now.String())
	}
}
