package agent

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// maxMessages bounds those of one stream that are tried.
const maxMessages = 16

// controlMessages reads what can be read of messages in one string of bytes.
func controlMessages(text []byte) (all []*ecsv1.ControlMessage) {
	for len(text) > 0 && len(all) < maxMessages {
		b, n := protowire.ConsumeBytes(text)
		if n < 0 {
			return all
		}
		m := &ecsv1.ControlMessage{}
		if proto.Unmarshal(b, m) == nil {
			all = append(all, m)
		}
		text = text[n:]
	}
	return all
}

// FuzzControlStream has a leader say whatever it could on a session: the agent lives,
// comes back to it, and runs what it is given then.
func FuzzControlStream(f *testing.F) {
	tok := &ecsv1.Token{Task: "t1", Attempt: 1, Epoch: 10}
	spec := taskwire.FromSpec(command("exit 0").WithDefaults(task.V2, false))
	assignment := &ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Assignment{Assignment: &ecsv1.Assignment{Token: tok, Spec: spec, Cid: "c", Owner: "o"}}}
	held := &ecsv1.Held{Bytes: 3, Kept: 3, Sha256: make([]byte, 32)}
	add := func(all ...*ecsv1.ControlMessage) {
		var text []byte
		for _, m := range all {
			b, err := proto.Marshal(m)
			if err != nil {
				f.Fatal(err)
			}
			text = protowire.AppendBytes(text, b)
		}
		f.Add(text)
	}
	add(assignment, &ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Stop{Stop: &ecsv1.StopAttempt{Token: tok, Outcome: string(task.Cancelled)}}},
		&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Status{Status: &ecsv1.StatusAnswer{Token: tok, Final: true}}})
	add(&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Heartbeat{Heartbeat: &ecsv1.HeartbeatAnswer{Number: 1, Drain: true,
		Wishes: []*ecsv1.Wish{{Spec: spec, Count: 2, Owner: "o"}}}}}, &ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Leave{Leave: &ecsv1.Leave{}}})
	add(&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Take{Take: &ecsv1.Take{Token: tok, Addr: "a2:9", Stdout: held}}},
		&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Grant{Grant: &ecsv1.Grant{Token: tok, Node: "n2"}}},
		&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_HandedOn{HandedOn: &ecsv1.HandedOn{Total: 1, Over: true}}})
	add(&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Redirect{Redirect: &ecsv1.Redirect{RpcAddr: "c2:7448"}}})
	add(&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Refused{Refused: &ecsv1.Refused{Expired: true}}})
	add(&ecsv1.ControlMessage{Term: 9, Epoch: 1}, &ecsv1.ControlMessage{})
	f.Fuzz(func(t *testing.T, text []byte) {
		all := controlMessages(text)
		inBubble(t, func(c *cluster) {
			c.connected(10 * time.Second)
			c.engine.fail("create", errors.New("nothing runs here")) // what programs do is not asked
			for _, m := range all {
				c.mu.Lock()
				line := c.line
				if m.Term == 0 {
					m.Term, m.Epoch = c.term, c.epoch
				}
				c.mu.Unlock()
				c.send(line, m)
				synctest.Wait()
			}
			c.engine.heal("create")
			time.Sleep(2 * time.Minute)
			after := c.assign("after-all", command("exit 3"))
			if got := c.result(after, time.Minute).result; got.ExitCode != 3 {
				t.Errorf("afterwards a program ended %+v, want code 3", got)
			}
		})
	})
}
