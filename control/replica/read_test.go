package replica

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"ecs/internal/task"
)

func TestReadsAtAFollowerSeeWhatWasAcknowledged(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		l := c.leader()
		f := c.follower(l)
		c.net.Delay(l.name, f.name, 30*time.Millisecond, 30*time.Millisecond)
		for i := range 50 {
			id := fmt.Sprint(i)
			l.mustSubmit(id)
			index, err := l.node.ReadIndex(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := f.node.WaitApplied(t.Context(), index); err != nil {
				t.Fatal(err)
			}
			if f.store.Snapshot().Task(task.ID(id)) == nil {
				t.Fatalf("the follower at index %d lacks task %s", index, id)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := f.node.WaitApplied(ctx, 1_000_000); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for what never comes: got %v, want the deadline", err)
		}
	})
}

// Raft alone tells followers with the next entry, or 50 to 100 ms later.
func TestFollowersLearnOfACommitAtOnce(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		l := c.leader()
		for _, f := range c.nodes {
			if f != l {
				c.net.Delay(l.name, f.name, time.Millisecond, 0)
			}
		}
		time.Sleep(time.Second)
		var worst time.Duration
		for i := range 50 {
			out := l.mustSubmit(fmt.Sprint(i))
			start := time.Now()
			for _, f := range c.nodes {
				if err := f.node.WaitApplied(t.Context(), out.Index); err != nil {
					t.Fatal(err)
				}
			}
			worst = max(worst, time.Since(start))
			time.Sleep(300 * time.Millisecond)
		}
		if worst > 10*time.Millisecond {
			t.Errorf("a follower had it %v later, want 10ms at most", worst)
		}
	})
}

func TestReadIndexIsRefusedOnceAnotherMayLead(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		old := c.leader()
		c.net.Isolate(old.name)
		if _, err := old.node.ReadIndex(t.Context()); !errors.Is(err, ErrNotLeader) {
			t.Errorf("got %v, want ErrNotLeader", err)
		}
	})
}

// What a paused leader finds waiting must not count: see Node.Verify.
func TestAnswersToEarlierQuestionsDoNotConfirmLeadership(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		l := c.leader()
		term := l.node.Term()
		up := l.node.up.Load()
		begun := up.transport.asked.Load()
		if up.transport.confirmed(up.servers(), l.name, term, begun) {
			t.Error("answers from before confirmed it")
		}
		time.Sleep(time.Second)
		if !up.transport.confirmed(up.servers(), l.name, term, begun) {
			t.Error("some heartbeats later it is not confirmed")
		}
		if up.transport.confirmed(up.servers(), l.name, term+1, begun) {
			t.Error("a later term is confirmed by answers of this one")
		}
	})
}
