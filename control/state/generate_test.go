package state_test

import (
	"fmt"
	"time"

	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/task"
)

// command draws the next command: most are what a control plane would do now,
// some come late, twice, or from nowhere.
func (m *model) command() state.Command {
	switch n := m.rng.IntN(100); {
	case n < 22:
		return m.submit()
	case n < 44:
		return m.place()
	case n < 54:
		return state.Progress{Token: m.token(), StartedAt: m.w.now}
	case n < 72:
		return m.finish()
	case n < 77:
		return m.stop()
	case n < 83:
		return m.register()
	case n < 86:
		return m.loseNode()
	case n < 90:
		return state.LoseAttempt{Token: m.token(), Reason: "drawn"}
	case n < 93:
		return m.setNode()
	case n < 95:
		return state.Expire{Tasks: m.some(2)}
	case n < 96:
		return state.Wish{Spec: task.Spec{Image: fmt.Sprint("i", m.rng.IntN(6))}, Count: m.rng.IntN(4), Owner: "ann"}
	case n < 98:
		return state.Resume{Tasks: m.resting(), Waited: m.waited()}
	default:
		return state.Forget{Tasks: m.some(8)}
	}
}

// submit places a third of the tasks at once, some where that does not hold.
func (m *model) submit() state.Command {
	c := state.Submit{Task: m.newTask(), Quota: m.rng.IntN(2) * 10}
	if m.rng.IntN(3) == 0 {
		c.Node = m.nodeID()
		if n := m.w.sn().Node(c.Node); n != nil {
			c.Epoch = n.Epoch - uint64(m.rng.IntN(8)/7)
		}
	}
	return c
}

// access draws a change of keys, join tokens and certificates.
func (m *model) access() state.Command {
	id := fmt.Sprint("k", m.rng.IntN(6))
	hash := [32]byte{byte(1 + m.w.index/100), byte(m.rng.IntN(2))}
	switch m.rng.IntN(5) {
	case 0:
		return state.PutKey{Key: aKey(id, pick(m, access.Roles()...)), First: m.rng.IntN(4) == 0}
	case 1:
		return state.RevokeKey{ID: id, By: "k0"}
	case 2:
		return state.PutToken{Token: access.Token{Hash: hash, Role: pick(m, "agent", "control"), ExpiresAt: m.w.now.Add(time.Duration(m.rng.IntN(200)) * time.Second)}}
	case 3:
		return state.SpendToken{Hash: hash, Role: pick(m, "agent", "control"), Node: string(m.nodeID()), Request: [32]byte{byte(1 + m.rng.IntN(2))}}
	default:
		return state.RevokeCertificate{Certificate: access.Revoked{Serial: pick(m, "", "ab", "cd"), Node: string(m.nodeID()), ExpiresAt: m.w.now.Add(time.Minute)}}
	}
}

// gossip draws a part of a rotation of the gossip key.
func (m *model) gossip() state.Command {
	g := m.w.sn().GossipKeys()
	if g == nil || m.rng.IntN(8) == 0 {
		return rotation(m.w.sn(), fmt.Sprint("g", m.w.index))
	}
	if m.rng.IntN(3) > 0 {
		return state.ConfirmGossipKey{Node: string(m.nodeID()), Version: g.Version - uint64(m.rng.IntN(4)/3)}
	}
	c := state.AdvanceGossipKey{Version: g.Version, Step: g.Step}
	for n := range m.w.sn().Nodes() {
		if m.rng.IntN(8) > 0 {
			c.Skipped = append(c.Skipped, string(n.ID))
		}
	}
	return c
}

func (m *model) newTask() *task.Task {
	id := task.ID(fmt.Sprintf("t%d", m.rng.IntN(1<<30)))
	if m.rng.IntN(10) == 0 {
		id = m.someTask() // the same request again
	}
	t := aTask(id, owned(pick(m, "ann", "bob")), body(pick(m, "x", "y")))
	if m.rng.IntN(2) == 0 {
		t.Key = fmt.Sprint("k", m.rng.IntN(40))
	}
	t.Spec.InfrastructureRetries = m.rng.IntN(4)
	t.Spec.ProgramRetries = m.rng.IntN(4)
	t.Spec.RetryBackoff = pick(m, time.Millisecond, time.Second, time.Minute)
	if m.rng.IntN(3) == 0 {
		t.Spec.RetryExitCodes = []int{2, task.ExitTimedOut, task.ExitOOMKilled}
	}
	t.Spec.Delivery = pick(m, task.AtLeastOnce, task.AtLeastOnce, task.AtMostOnce)
	t.Spec.Lease = pick(m, 10*time.Second, time.Minute, 10*time.Minute)
	t.Spec.Resources.MilliCPU = int64(1 + m.rng.IntN(2*taskCPU))
	t.Spec.Resources.Memory = int64(1+m.rng.IntN(4)) * (taskMemory / 2)
	t.Spec.Timeouts.Total = pick(m, 0, time.Minute)
	return t
}

func (m *model) place() state.Command {
	sn := m.w.sn()
	var c state.Place
	for t := range sn.Pending() {
		if m.rng.IntN(3) == 0 {
			continue
		}
		d := state.Decision{Task: t.ID, Attempt: len(t.Attempts) + 1, Node: m.nodeID(), Queued: time.Second}
		if n := sn.Node(d.Node); n != nil {
			d.Epoch = n.Epoch
		}
		switch m.rng.IntN(20) {
		case 0:
			d.Epoch--
		case 1:
			d.Attempt += m.rng.IntN(3) - 1
		case 2:
			d.Task = m.someTask()
		}
		c.Decisions = append(c.Decisions, d)
		if len(c.Decisions) == 5 {
			break
		}
	}
	return c
}

func (m *model) finish() state.Command {
	all := task.Outcomes()
	o := pick(m, task.Exited, task.Exited, task.Exited, task.Interrupted, task.Cancelled, all[m.rng.IntN(len(all))])
	return state.Finish{
		Token:     m.token(),
		Result:    task.Result{Outcome: o, ExitCode: m.rng.IntN(3), HasExit: o == task.Exited, Reason: "drawn", Stdout: task.Stream{Head: []byte("out"), Bytes: 3, Kept: 3}},
		Bill:      task.Bill{Run: time.Duration(m.rng.IntN(1000))},
		StartedAt: time.Unix(int64(m.rng.IntN(3)), 0).UTC(),
	}
}

func (m *model) stop() state.Command {
	c := state.Stop{Task: m.someTask(), Outcome: pick(m, task.Cancelled, task.DeadlineExceeded)}
	if m.rng.IntN(3) == 0 {
		c.Owner = pick(m, "ann", "bob")
	}
	return c
}

func (m *model) register() state.Command {
	n := aNode(m.nodeID())
	if m.rng.IntN(4) == 0 {
		n.Capacity.MilliCPU /= 2 // part of the machine was taken away
	}
	c := state.Register{Node: n}
	for t := range m.w.sn().On(n.ID) {
		if m.rng.IntN(4) > 0 {
			c.Running = append(c.Running, t.Live().Token(t.ID))
		}
	}
	if m.rng.IntN(4) == 0 {
		c.Running = append(c.Running, m.token())
	}
	return c
}

func (m *model) loseNode() state.Command {
	c := state.LoseNode{Node: m.nodeID(), Lease: pick(m, 10*time.Second, time.Minute), Left: m.rng.IntN(4) == 0}
	if n := m.w.sn().Node(c.Node); n != nil {
		c.Epoch = n.Epoch
	}
	if m.rng.IntN(4) == 0 {
		c.Epoch--
	}
	return c
}

func (m *model) setNode() state.Command {
	c := state.SetNode{Node: m.nodeID()}
	if n := m.w.sn().Node(c.Node); n != nil {
		c.Epoch = n.Epoch
	}
	if m.rng.IntN(2) == 0 {
		c.Drain = new(m.rng.IntN(4) == 0)
	}
	if m.rng.IntN(2) == 0 {
		c.Unfit = new(pick(m, "", "", "", "disk full"))
	}
	return c
}

func (m *model) nodeID() task.NodeID { return pick[task.NodeID](m, "n1", "n2", "n3", "n4", "n12") }

// token draws one that is live, if there is any, or one that was once.
func (m *model) token() task.Token {
	if len(m.tokens) == 0 {
		return task.Token{Task: "t1", Attempt: 1, Epoch: 1}
	}
	if m.rng.IntN(4) > 0 {
		node := m.nodeID()
		for t := range m.w.sn().On(node) {
			if m.rng.IntN(3) == 0 {
				return t.Live().Token(t.ID)
			}
		}
	}
	tok := m.tokens[m.rng.IntN(len(m.tokens))]
	switch m.rng.IntN(8) {
	case 0:
		tok.Epoch++
	case 1:
		tok.Attempt++
	}
	return tok
}

// someTask draws a task of the record, most often an unfinished one.
func (m *model) someTask() task.ID {
	sn := m.w.sn()
	for range 3 {
		for t := range sn.Newest(m.rng.Uint64N(m.w.index+2) << 12) {
			if t.State != task.Finished {
				return t.ID
			}
			break
		}
	}
	for t := range sn.Newest(m.rng.Uint64N(m.w.index+2) << 12) {
		return t.ID
	}
	return "none"
}

// resting draws tasks that back off, whether or not they have done so for long
// enough.
func (m *model) resting() []task.ID {
	list := m.some(2)
	for t := range m.w.sn().Newest(0) {
		if t.BackingOff && m.rng.IntN(4) > 0 {
			list = append(list, t.ID)
		}
	}
	return list
}

// waited draws tasks that back off, some after another attempt than is named.
func (m *model) waited() (list []state.Waited) {
	for _, id := range m.resting() {
		if t := m.w.sn().Task(id); t != nil && m.rng.IntN(3) == 0 {
			list = append(list, state.Waited{Task: id, Attempt: len(t.Attempts) - m.rng.IntN(4)/3})
		}
	}
	return list
}

func (m *model) some(n int) []task.ID {
	list := make([]task.ID, n)
	for i := range list {
		list[i] = m.someTask()
	}
	// The oldest finished ones too, or the record grows for ever.
	for t := range m.w.sn().Ended() {
		list = append(list, t.ID)
		if len(list) == 2*n {
			break
		}
	}
	return list
}

func pick[T any](m *model, of ...T) T { return of[m.rng.IntN(len(of))] }
