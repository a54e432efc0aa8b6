package ecstest_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"ecs/internal/ecstest"
	"ecs/internal/task"
)

const large = 3 << 20

// left runs tasks with large output until the agents hold some, and gives the ids of
// those that one agent holds.
func left(t *testing.T, c *ecstest.Cluster, tasks int) (on *ecstest.Agent, ids []string) {
	t.Helper()
	held := map[task.NodeID][]string{}
	for i := range tasks {
		req := ecstest.Script("spew", fmt.Sprint(large), ";", "eprint", "said", ";", "mkdir", "/out", ";", "fill", "/out/f", "100000", ";", "exit", "0")
		req.MaxOutput, req.Outputs = large, []string{"/out"}
		done, err := c.Client.Run(c.Controls[i%len(c.Controls)], req)
		if err != nil {
			t.Fatal(err)
		}
		c.Settle(time.Minute)
		node := c.Leader().Holder(done.ID)
		held[node] = append(held[node], done.ID)
	}
	for _, a := range c.Agents {
		if len(held[a.ID()]) > len(ids) {
			on, ids = a, held[a.ID()]
		}
	}
	return on, ids
}

// wantOutput wants a task's output served whole and in ranges, by every control node.
func wantOutput(t *testing.T, c *ecstest.Cluster, id string, tar []byte) {
	t.Helper()
	want := ecstest.Spewed(large)
	for _, n := range c.Controls {
		if status, got, err := c.Client.Read(n, id, "output", ""); err != nil || status != http.StatusOK || !bytes.Equal(got, want) {
			t.Errorf("%s: output of %s: got %d, %d bytes, %v, want all of it", n.Name(), id, status, len(got), err)
		}
		if status, got, err := c.Client.Read(n, id, "output", "bytes=1000000-1000099"); err != nil || status != http.StatusPartialContent || !bytes.Equal(got, want[1_000_000:1_000_100]) {
			t.Errorf("%s: range of %s: got %d, %d bytes, %v", n.Name(), id, status, len(got), err)
		}
		if status, got, err := c.Client.Read(n, id, "outputs", ""); err != nil || status != http.StatusOK || !bytes.Equal(got, tar) {
			t.Errorf("%s: files of %s: got %d, %d bytes, %v, want %d", n.Name(), id, status, len(got), err, len(tar))
		}
	}
}

func tarOf(t *testing.T, c *ecstest.Cluster, id string) []byte {
	t.Helper()
	status, tar, err := c.Client.Read(c.Controls[0], id, "outputs", "")
	if err != nil || status != http.StatusOK || len(tar) < 100_000 {
		t.Fatalf("files of %s: got %d, %d bytes, %v", id, status, len(tar), err)
	}
	return tar
}

// What an agent holds is there after it has left, also in the middle of a reading
// that began before, and after the next one has left.
func TestOutputOutlivesAgentsThatLeave(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{}, func(c *ecstest.Cluster) {
		leaver, ids := left(t, c, 6)
		tar := tarOf(t, c, ids[0])
		open, err := c.Client.Open(c.Controls[0], ids[0], "output", "")
		if err != nil {
			t.Fatal(err)
		}
		defer open.Body.Close()
		got := make([]byte, 50_000)
		if _, err := io.ReadFull(open.Body, got); err != nil {
			t.Fatal(err)
		}
		c.RemoveAgent(leaver)
		rest, err := io.ReadAll(open.Body)
		if err != nil || !bytes.Equal(append(got, rest...), ecstest.Spewed(large)) {
			t.Errorf("a reading from before: got %d bytes, %v, want all of %d", len(got)+len(rest), err, large)
		}
		holders := map[task.NodeID]bool{}
		for _, id := range ids {
			wantOutput(t, c, id, tar)
			holders[c.Leader().Holder(id)] = true
			if ran := c.Leader().Snapshot().Task(task.ID(id)).Result.Node; ran != leaver.ID() {
				t.Errorf("got %s run by %s, want %s for ever", id, ran, leaver.ID())
			}
		}
		if holders[leaver.ID()] || len(ids) > 1 && len(holders) < 2 {
			t.Errorf("got %d outputs at %v, want them spread over both that stay", len(ids), holders)
		}
		c.RemoveAgent(c.Agents[0])
		for _, id := range ids {
			wantOutput(t, c, id, tar)
		}
		c.Settle(time.Minute)
		c.CheckInvariants()
	})
}

func TestOutputGoesToAnotherWhenItsReceiverDies(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{}, func(c *ecstest.Cluster) {
		leaver, ids := left(t, c, 6)
		tar := tarOf(t, c, ids[0])
		var stays, dies *ecstest.Agent
		for _, a := range c.Agents {
			switch {
			case a == leaver:
			case dies == nil:
				dies = a
			default:
				stays = a
			}
		}
		c.SlowBetween(leaver, dies, 20*time.Millisecond)
		gone := make(chan struct{})
		go func() { defer close(gone); c.RemoveAgent(leaver) }()
		time.Sleep(300 * time.Millisecond) // in the middle
		dies.Crash()
		<-gone
		for _, id := range ids {
			if at := c.Leader().Holder(id); at == stays.ID() {
				wantOutput(t, c, id, tar)
			} else if at != dies.ID() { // it had all of it before it died
				t.Errorf("got %s at %s, want it at one that took it", id, at)
			}
		}
		dies.Restart()
		c.Ready(time.Minute, 3)
		for _, id := range ids {
			wantOutput(t, c, id, tar)
		}
		c.Settle(time.Minute)
		c.CheckInvariants()
	})
}

func TestHandoverGoesOnUnderAnotherLeader(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{}, func(c *ecstest.Cluster) {
		leaver, ids := left(t, c, 6)
		tar := tarOf(t, c, ids[0])
		for _, a := range c.Agents {
			if a != leaver {
				c.SlowBetween(leaver, a, 20*time.Millisecond)
			}
		}
		gone := make(chan struct{})
		go func() { defer close(gone); c.RemoveAgent(leaver) }()
		time.Sleep(300 * time.Millisecond)
		old := c.Leader()
		old.Crash()
		<-gone
		old.Restart()
		c.Ready(time.Minute, 3)
		c.Settle(time.Minute)
		for _, id := range ids {
			if at := c.Leader().Holder(id); at == leaver.ID() {
				t.Errorf("the output of %s is gone with its agent", id)
			}
			wantOutput(t, c, id, tar)
		}
		c.CheckInvariants()
	})
}

// Killed while it leaves, an agent takes with it what nobody has.
func TestOutputIsGoneWithAnAgentThatIsKilledOrAlone(t *testing.T) {
	ecstest.Bubble(t, ecstest.Options{Agents: 1}, func(c *ecstest.Cluster) {
		leaver, ids := left(t, c, 1)
		c.RemoveAgent(leaver)
		status, _, err := c.Client.Read(c.Controls[0], ids[0], "output", "")
		if err != nil || status != http.StatusGone {
			t.Errorf("got %d, %v, want 410", status, err)
		}
		c.Settle(time.Minute)
		c.CheckInvariants()
	})
}
