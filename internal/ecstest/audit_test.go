package ecstest_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"ecs/internal/ecstest"
)

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// Every end is in the audit stream of one node alone, also when leaders change
// and a node applies its whole log anew.
func TestEveryEndIsAuditedOnce(t *testing.T) {
	var stream lockedBuffer
	ecstest.Bubble(t, ecstest.Options{Audit: &stream}, func(c *ecstest.Cluster) {
		ran := map[string]int{}
		run := func(n *ecstest.Control) {
			t.Helper()
			done, err := c.Client.Run(n, ecstest.Script("exit", "0"))
			if err != nil {
				t.Fatal(err)
			}
			ran[done.ID] = 0
		}
		for _, n := range c.Controls {
			run(n)
		}
		c.Settle(time.Minute)
		old := c.Leader()
		old.Crash()
		c.Until(time.Minute, "another leader", func() bool { l := c.Leader(); return l != nil && l != old })
		run(c.Leader())
		old.Restart()
		c.Until(time.Minute, "the old leader caught up", func() bool { return old.Snapshot().Index() >= c.Leader().Snapshot().Index() })
		run(old)
		c.Settle(time.Minute)
		// The record has an end before anybody has told of it: only the leader does,
		// in its own time, and may not have when a follower answers.
		c.Until(time.Minute, "every end is told", func() bool {
			stream.mu.Lock()
			defer stream.mu.Unlock()
			return strings.Count(stream.buf.String(), `"msg":"task ended"`) >= len(ran)
		})
		time.Sleep(time.Second) // so that what is told twice shows
		stream.mu.Lock()
		defer stream.mu.Unlock()
		for line := range strings.Lines(stream.buf.String()) {
			var r struct{ Msg, Task, Outcome, Owner, CID, Image_digest string }
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("record %s: %v", line, err)
			}
			if r.Msg != "task ended" {
				continue
			}
			ran[r.Task]++
			if r.Outcome != "exited" || r.Owner != "user" || r.CID == "" || r.Image_digest == "" {
				t.Errorf("got %s, want the outcome, the owner, the correlation id and the digest", line)
			}
		}
		for id, n := range ran {
			if n != 1 {
				t.Errorf("the end of task %s is audited %d times, want once", id, n)
			}
		}
		c.CheckInvariants()
	})
}
