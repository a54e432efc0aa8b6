package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// rudder is raft as autopilot steers it. Autopilot decides on a look that may be
// seconds old, so each of its changes takes a turn and looks again: it must not
// bring back a node that was removed since, nor take the vote that the majority
// has come to hang on.
type rudder struct {
	*raft.Raft
	node *Node
	ctx  context.Context // autopilot gives its calls none
}

// errOutdated says that autopilot decided on what is no longer so. It looks again
// soon.
var errOutdated = errors.New("no longer so")

// AddVoter implements autopilot.Raft.
func (r *rudder) AddVoter(id raft.ServerID, addr raft.ServerAddress, _ uint64, _ time.Duration) raft.IndexFuture {
	return r.turn(func(t *Turn) error {
		if s, ok := t.up.member(id); !ok || s.Address != addr || s.Suffrage == raft.Voter {
			return fmt.Errorf("give a vote to %s at %s: %w", id, addr, errOutdated)
		}
		failed, ok := inPlaceOf(t.up.ballots(raft.ServerID(r.node.cfg.ID)))
		if heard, answers := t.up.contact(string(id)); !ok || !answers || heard.Heard > t.up.fresh() {
			return fmt.Errorf("give a vote to %s: it or too many voters do not answer: %w", id, errOutdated)
		}
		if failed != "" {
			if err := t.demote(failed); err != nil {
				return err
			}
		}
		return t.Promote(string(id), string(addr))
	})
}

// ballots is what the leader, self, heard of every voter.
func (up *running) ballots(self raft.ServerID) (voters []ballot) {
	for _, s := range up.servers() {
		if s.Suffrage != raft.Voter {
			continue
		}
		heard, ok := up.contact(string(s.ID))
		leads := s.ID == self
		voters = append(voters, ballot{id: string(s.ID), answers: leads || ok && heard.Heard <= up.fresh(),
			failed: !leads && (!ok || heard.Heard >= quietFor)})
	}
	return voters
}

// fresh is how old the last word may be of a node that lives: a heartbeat may be late.
func (up *running) fresh() time.Duration { return 2*up.transport.beat + 100*time.Millisecond }

// DemoteVoter implements autopilot.Raft.
func (r *rudder) DemoteVoter(id raft.ServerID, _ uint64, _ time.Duration) raft.IndexFuture {
	return r.turn(func(t *Turn) error {
		voters, alive := t.up.without(id, raft.ServerID(r.node.cfg.ID))
		if s, ok := t.up.member(id); !ok || s.Suffrage != raft.Voter || voters < leastVoters || 2*alive <= voters {
			return fmt.Errorf("take the vote from %s, with %d of %d others alive: %w", id, alive, voters, errOutdated)
		}
		return t.demote(string(id))
	})
}

// AddNonvoter implements autopilot.Raft; nothing has autopilot call it.
func (r *rudder) AddNonvoter(id raft.ServerID, addr raft.ServerAddress, _ uint64, _ time.Duration) raft.IndexFuture {
	return r.turn(func(t *Turn) error { return t.Add(string(id), string(addr)) })
}

// RemoveServer implements autopilot.Raft; see cockpit.RemoveFailedServer.
func (r *rudder) RemoveServer(id raft.ServerID, _ uint64, _ time.Duration) raft.IndexFuture {
	return r.turn(func(*Turn) error {
		return fmt.Errorf("remove %s: nothing removes a node but an operator, or the node itself", id)
	})
}

func (r *rudder) turn(f func(*Turn) error) raft.IndexFuture {
	return done{r.node.Reconfigure(r.ctx, f)}
}

// done is the future of a change that is over.
type done struct{ err error }

// Error implements raft.Future.
func (d done) Error() error { return d.err }

// Index implements raft.IndexFuture; nobody asks for it.
func (done) Index() uint64 { return 0 }

// member finds a node in the configuration.
func (up *running) member(id raft.ServerID) (raft.Server, bool) {
	for _, s := range up.servers() {
		if s.ID == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

// without counts the voters there would be without one, and those of them that
// answered the leader, self, lately.
func (up *running) without(id, self raft.ServerID) (voters, alive int) {
	for _, s := range up.servers() {
		if s.Suffrage != raft.Voter || s.ID == id {
			continue
		}
		voters++
		if heard, ok := up.contact(string(s.ID)); s.ID == self || ok && heard.Heard < quietFor {
			alive++
		}
	}
	return voters, alive
}
