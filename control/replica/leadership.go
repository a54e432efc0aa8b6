package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// Voter is a member of the cluster's configuration.
type Voter struct {
	ID    string
	Addr  string // raft's
	Voter bool   // false: it receives the log but has no vote
}

// leads reports whether r leads in term at one moment during the call.
func leads(r *raft.Raft, term uint64) bool {
	now, leading := leadership(r)
	return leading && now == term
}

// leadership reads the term and whether r leads in it, as of one moment. Terms
// only grow, so a state read between two equal terms was of that term.
func leadership(r *raft.Raft) (term uint64, leading bool) {
	for {
		term = r.CurrentTerm()
		leading = r.State() == raft.Leader
		if r.CurrentTerm() == term {
			return term, leading
		}
	}
}

// Leadership tells whether this node leads and in which term, and gives a
// channel that closes when that may have changed; it may close without a
// change. Quick changes may be seen as one: leadership lost and won again
// shows as a higher term.
func (n *Node) Leadership() (term uint64, leading bool, changed <-chan struct{}) {
	changed = n.lead.wait()
	if up := n.up.Load(); up != nil {
		term, leading = leadership(up.raft)
	}
	return term, leading, changed
}

// watchLeadership passes raft's notices on: of this node's leadership, which
// holds only the latest change, and of who leads, which need not be kept apart.
func (n *Node) watchLeadership(ctx context.Context, r *raft.Raft) {
	leaders := make(chan raft.Observation, 1)
	observer := raft.NewObserver(leaders, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	r.RegisterObserver(observer)
	defer r.DeregisterObserver(observer)
	for {
		select {
		case <-r.LeaderCh():
			n.lead.fire()
			n.leader.fire() // also covers what came before the observer
		case <-leaders:
			n.leader.fire()
		case <-ctx.Done():
			return
		}
	}
}

// Term is the newest term this node knows of.
func (n *Node) Term() uint64 {
	if up := n.up.Load(); up != nil {
		return up.raft.CurrentTerm()
	}
	return 0
}

// Leader is the leader as far as this node knows; empty when it knows none.
func (n *Node) Leader() (id, raftAddr string) {
	if up := n.up.Load(); up != nil {
		addr, id := up.raft.LeaderWithID()
		return string(id), string(addr)
	}
	return "", ""
}

// LeaderChanged gives a channel that closes when Leader may next give another
// answer. Take it before asking Leader.
func (n *Node) LeaderChanged() <-chan struct{} { return n.leader.wait() }

// LastContact is how long ago this node heard from a leader, 0 when it leads.
// Before the first contact it is how long the node has been up.
func (n *Node) LastContact() time.Duration {
	up := n.up.Load()
	if up == nil {
		return 0
	}
	if _, leading := leadership(up.raft); leading {
		return 0
	}
	last := up.raft.LastContact()
	if last.Before(n.started) {
		last = n.started
	}
	return time.Since(last)
}

// Voters are the members of the newest configuration this node knows, by ID.
func (n *Node) Voters() []Voter {
	up := n.up.Load()
	if up == nil {
		return nil
	}
	var voters []Voter
	for _, s := range up.servers() {
		voters = append(voters, Voter{ID: string(s.ID), Addr: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	slices.SortFunc(voters, func(a, b Voter) int { return strings.Compare(a.ID, b.ID) })
	return voters
}

func (up *running) servers() []raft.Server {
	// GetConfiguration's future is settled already and has no error.
	return up.raft.GetConfiguration().Configuration().Servers
}

// Stats are raft's own, for people.
func (n *Node) Stats() map[string]string {
	if up := n.up.Load(); up != nil {
		return up.raft.Stats()
	}
	return map[string]string{}
}

// HasState reports whether this node has something of a cluster's record: an entry
// of its log or a snapshot. A term alone is nothing: a restore that broke off leaves
// one, and so does a leader whose first entry never came. It means nothing before
// Ready.
func (n *Node) HasState() bool {
	up := n.up.Load()
	return up != nil && up.hasState()
}

func (up *running) hasState() bool { return up.raft.LastIndex() > 0 } // a snapshot's counts too

// Bootstrap forms a new cluster of the servers, by their addresses, this node
// among them. Several of them may do it, if all name the same servers. It is
// refused once the node HasState, or has been in a term.
func (n *Node) Bootstrap(servers map[string]string) error {
	up := n.up.Load()
	switch {
	case up == nil:
		return errors.New("bootstrap: raft does not run yet")
	case up.hasState():
		return fmt.Errorf("bootstrap: %w", raft.ErrCantBootstrap)
	case up.raft.CurrentTerm() > 0:
		return fmt.Errorf("bootstrap: %w: there is a term and no record, as a restore leaves that broke off: "+
			"repeat it, or empty the data directory", raft.ErrCantBootstrap)
	}
	var c raft.Configuration
	for id, addr := range servers {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(addr)})
	}
	// Equal on all who bootstrap, or their first entries would differ.
	slices.SortFunc(c.Servers, func(a, b raft.Server) int { return strings.Compare(string(a.ID), string(b.ID)) })
	if err := up.raft.BootstrapCluster(c).Error(); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	up.gate.open.Store(true)
	return nil
}

// TransferLeadership hands leadership to the voter that is furthest along, and
// returns when it has left this node. Proposals meanwhile get ErrNotLeader.
func (n *Node) TransferLeadership(ctx context.Context) error {
	err := n.call(ctx, func(up *running) error { return up.raft.LeadershipTransfer().Error() })
	if err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	return nil
}
