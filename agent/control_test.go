package agent

import (
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// control is one control node.
type control struct {
	rpc.UnimplementedSessionsServer
	*cluster
	name string
}

func (n *control) Session(stream rpc.Sessions_SessionServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	c := n.cluster
	c.mu.Lock()
	c.visits = append(c.visits, n.name)
	if c.leader != n.name {
		addr := ""
		if c.believed != "" {
			addr = c.believed + ":7448"
		}
		c.mu.Unlock()
		return stream.Send(&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Redirect{Redirect: &ecsv1.Redirect{RpcAddr: addr}}})
	}
	h := first.GetHello()
	said := hello{at: time.Now(), control: n.name, epoch: h.GetEpoch(),
		running: taskwire.ToTokens(h.GetRunning()), node: taskwire.ToNode(h.GetNode())}
	c.hellos, c.parked = append(c.hellos, said), nil
	if c.onHello != nil {
		c.onHello(said)
	}
	c.judgeLease()
	answer := &ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Welcome{Welcome: &ecsv1.Welcome{
		Lease: int64(task.DefaultLease), Forget: taskwire.FromTokens(c.forget)}}}
	switch {
	case c.refuse != "":
		answer = &ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Refused{Refused: &ecsv1.Refused{Reason: c.refuse}}}
	case h.GetEpoch() != 0 && (h.GetEpoch() != c.epoch || c.expired):
		answer = &ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Refused{Refused: &ecsv1.Refused{Expired: true}}}
	case h.GetEpoch() == 0:
		c.epoch += 10
		c.expired = false
		c.answered[c.epoch] = time.Now()
	}
	answer.Term, answer.Epoch = c.term, c.epoch
	if c.lateTerms {
		answer.Term--
	}
	welcomed := answer.GetWelcome() != nil
	slow := c.slowWelcome
	c.mu.Unlock()
	sleep(stream.Context(), slow)
	c.mu.Lock()
	if welcomed && stream.Context().Err() == nil {
		c.line = stream
	}
	c.mu.Unlock()
	c.send(stream, answer)
	if !welcomed {
		return nil
	}
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.line == stream {
			c.line = nil
		}
	}()
	for {
		m, err := stream.Recv()
		if err != nil {
			c.settings(func() { c.broken++ })
			return err
		}
		if c.hear(stream, m) {
			return nil
		}
	}
}

// hear acts on a message and reports whether it was a goodbye.
func (c *cluster) hear(stream rpc.Sessions_SessionServer, m *ecsv1.AgentMessage) bool {
	c.mu.Lock()
	answer := &ecsv1.ControlMessage{Term: c.term, Epoch: c.epoch}
	switch {
	case m.GetHeartbeat() != nil:
		c.beats = append(c.beats, m.GetHeartbeat())
		if m.GetHeartbeat().GetHasParked() {
			c.parked = map[uint64]int{}
			for _, p := range m.GetHeartbeat().GetParked() {
				c.parked[p.GetShape()] = int(p.GetCount())
			}
		}
		if c.judgeLease(); c.expired {
			answer.Kind = &ecsv1.ControlMessage_Refused{Refused: &ecsv1.Refused{Expired: true}}
		} else if !c.mute {
			c.answered[c.epoch] = time.Now()
			answer.Kind = &ecsv1.ControlMessage_Heartbeat{Heartbeat: &ecsv1.HeartbeatAnswer{Number: m.GetHeartbeat().GetNumber(), Drain: c.drain, Wishes: c.wishes}}
		}
	case m.GetStatus() != nil:
		st := m.GetStatus()
		c.statuses = append(c.statuses, status{at: time.Now(), token: taskwire.ToToken(st.GetToken()),
			startedAt: taskwire.ToTime(st.GetStartedAt()), result: taskwire.ToResult(st.GetResult()), bill: taskwire.ToBill(st.GetBill())})
		if !c.noAcks {
			answer.Kind = &ecsv1.ControlMessage_Status{Status: &ecsv1.StatusAnswer{Token: st.GetToken(),
				Final: st.GetResult() != nil || c.stale, Stale: c.stale}}
		}
	case m.GetGoodbye() != nil:
		c.goodbye = time.Now()
		c.mu.Unlock()
		return true
	}
	c.mu.Unlock()
	if answer.Kind != nil {
		c.send(stream, answer)
	}
	return false
}

// cutOff parts the agent from every control node.
func (c *cluster) cutOff() { c.net.Isolate("a1") }

// elect makes another control node the leader of the next term. The old one is
// gone without a word if dead, else it ends its sessions.
func (c *cluster) elect(name string, dead bool) {
	c.mu.Lock()
	old := c.leader
	c.leader, c.believed = name, name
	c.term++
	c.line = nil
	c.mu.Unlock()
	if dead {
		c.net.Host(old).Crash(true)
		return
	}
	synctest.Wait() // a server that does not serve yet can't be stopped
	c.servers[old].Stop()
	c.serve(old)
}

// command is a task that runs a script, see engine.
func command(script string) task.Spec {
	return task.Spec{Image: "program", Command: strings.Fields(strings.ReplaceAll(script, ";", " ; "))}
}

func withLease(s task.Spec, lease time.Duration) task.Spec {
	s.Lease = lease
	return s
}

func has(tokens []task.Token, tok task.Token) bool { return slices.Contains(tokens, tok) }

// judgeLease ends the epoch as a leader does.
func (c *cluster) judgeLease() {
	if c.strict && time.Since(c.answered[c.epoch]) >= task.DefaultLease+task.LeaseMargin {
		c.expired = true
	}
}
