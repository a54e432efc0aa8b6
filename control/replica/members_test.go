package replica

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
)

// Two who look first and then remove must not both go by the same look: each
// would leave a majority, both together none.
func TestChangesOfTheConfigurationTakeTurns(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		l := c.leader()
		errNeeded := errors.New("too few would be left")
		var others []string
		for _, m := range c.nodes {
			if m != l {
				others = append(others, m.name)
			}
		}
		results := make([]error, len(others))
		var both sync.WaitGroup
		for i, id := range others {
			both.Go(func() {
				results[i] = l.node.Reconfigure(t.Context(), func(turn *Turn) error {
					if len(l.node.Voters()) < 3 {
						return errNeeded
					}
					return turn.Remove(id)
				})
			})
		}
		both.Wait()
		if n := len(l.node.Voters()); n != 2 || errors.Is(results[0], errNeeded) == errors.Is(results[1], errNeeded) {
			t.Errorf("got %d voters, %v, want one removed and one refused", n, results)
		}
		c.leader().mustSubmit("after")
	})
}

func TestOnlyTheLeaderHasTurns(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		follower := c.follower(c.leader())
		err := follower.node.Reconfigure(t.Context(), func(*Turn) error {
			t.Error("a follower had a turn")
			return nil
		})
		if !errors.Is(err, ErrNotLeader) {
			t.Errorf("got %v, want %v", err, ErrNotLeader)
		}
		l := c.leader()
		taken := make(chan struct{})
		release := make(chan struct{})
		ended := make(chan error, 1)
		go func() {
			ended <- l.node.Reconfigure(t.Context(), func(*Turn) error { close(taken); <-release; return nil })
		}()
		<-taken
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.node.Reconfigure(ctx, func(*Turn) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v while another has the turn", err, context.Canceled)
		}
		close(release)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// What autopilot decided on an old look is not done.
func TestAutopilotLooksAgainBeforeEachChange(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		l := c.leader()
		r := &rudder{Raft: l.node.up.Load().raft, node: l.node, ctx: t.Context()}
		gone := c.follower(l)
		addr := gone.node.cfg.Stream.Addr().String()
		if err := r.DemoteVoter(raft.ServerID(gone.name), 0, 0).Error(); !errors.Is(err, errOutdated) {
			t.Errorf("demote one of three: got %v, want %v", err, errOutdated)
		}
		if err := l.node.Reconfigure(t.Context(), func(turn *Turn) error { return turn.Remove(gone.name) }); err != nil {
			t.Fatal(err)
		}
		if err := r.AddVoter(raft.ServerID(gone.name), raft.ServerAddress(addr), 0, 0).Error(); !errors.Is(err, errOutdated) {
			t.Errorf("a vote for one that was removed: got %v, want %v", err, errOutdated)
		}
		if n := len(l.node.Voters()); n != 2 {
			t.Errorf("got %d voters, want 2", n)
		}
	})
}
