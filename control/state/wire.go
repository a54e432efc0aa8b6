package state

import (
	"fmt"
	"time"

	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// The rules by which a command is decided, as its proposer knew them. An entry of
// an earlier version must make the same record for ever, so what decides otherwise
// than it did gets a number.
const (
	pausesLosses = 1 // infrastructure retries pause from the second one on
	// A key's share of what backs off is of programs that failed, and the queue clock
	// of what has backed off begins when it is in the queue.
	sharesFailures = 2
	present        = sharesFailures
)

// ToWire gives the log's form of a command, stamped with the proposer's wall
// clock.
func ToWire(c Command, now time.Time) *ecsv1.Command {
	m := &ecsv1.Command{Now: taskwire.FromTime(now), Rules: present}
	switch c := c.(type) {
	case Submit:
		m.Kind = &ecsv1.Command_Submit{Submit: &ecsv1.Submit{
			Task:  taskwire.FromTask(c.Task),
			Node:  string(c.Node),
			Epoch: c.Epoch,
			Quota: int64(c.Quota),
		}}
	case Register:
		m.Kind = &ecsv1.Command_Register{Register: &ecsv1.Register{
			Node:    taskwire.FromNode(&c.Node),
			Running: taskwire.FromTokens(c.Running),
		}}
	case Place:
		m.Kind = &ecsv1.Command_Place{Place: &ecsv1.Place{Decisions: fromDecisions(c.Decisions)}}
	case Progress:
		m.Kind = &ecsv1.Command_Progress{Progress: &ecsv1.Progress{
			Token:     taskwire.FromToken(c.Token),
			Node:      string(c.Node),
			StartedAt: taskwire.FromTime(c.StartedAt),
		}}
	case Finish:
		m.Kind = &ecsv1.Command_Finish{Finish: &ecsv1.Finish{
			Token:     taskwire.FromToken(c.Token),
			Node:      string(c.Node),
			Result:    taskwire.FromResult(&c.Result),
			Bill:      taskwire.FromBill(c.Bill),
			StartedAt: taskwire.FromTime(c.StartedAt),
		}}
	case Stop:
		m.Kind = &ecsv1.Command_Stop{Stop: &ecsv1.Stop{
			Task:    string(c.Task),
			Outcome: string(c.Outcome),
			Reason:  c.Reason,
			Owner:   c.Owner,
		}}
	case LoseNode:
		m.Kind = &ecsv1.Command_LoseNode{LoseNode: &ecsv1.LoseNode{
			Node:  string(c.Node),
			Epoch: c.Epoch,
			Left:  c.Left,
			Lease: int64(c.Lease),
		}}
	case LoseAttempt:
		m.Kind = &ecsv1.Command_LoseAttempt{LoseAttempt: &ecsv1.LoseAttempt{
			Token:  taskwire.FromToken(c.Token),
			Reason: c.Reason,
		}}
	case SetNode:
		m.Kind = &ecsv1.Command_SetNode{SetNode: fromSetNode(c)}
	case Expire:
		m.Kind = &ecsv1.Command_Expire{Expire: &ecsv1.Expire{Tasks: toStrings(c.Tasks), Held: c.Held}}
	case Forget:
		m.Kind = &ecsv1.Command_Forget{Forget: &ecsv1.Forget{Tasks: toStrings(c.Tasks)}}
	case Wish:
		m.Kind = &ecsv1.Command_Wish{Wish: FromWish(c)}
	case Resume:
		m.Kind = &ecsv1.Command_Resume{Resume: fromResume(c)}
	case Found:
		m.Kind = &ecsv1.Command_Found{Found: &ecsv1.Found{Cluster: c.Cluster}}
	case ForgetNodes:
		m.Kind = &ecsv1.Command_ForgetNodes{ForgetNodes: fromForgetNodes(c)}
	case MoveOutputs:
		m.Kind = &ecsv1.Command_MoveOutputs{MoveOutputs: fromMoveOutputs(c)}
	default:
		accessToWire(c, m)
		gossipKeysToWire(c, m)
	}
	return m
}

// FromWish gives the message of a wish.
func FromWish(w Wish) *ecsv1.Wish {
	return &ecsv1.Wish{Spec: taskwire.FromSpec(w.Spec), Count: uint32(max(0, w.Count)), Owner: w.Owner}
}

func toWish(m *ecsv1.Wish) Wish {
	return Wish{Spec: taskwire.ToSpec(m.GetSpec()), Count: int(m.GetCount()), Owner: m.GetOwner()}
}

// FromWire is the inverse of ToWire. A command of a kind it does not know is an
// error: a replica that skipped it would differ from the others, so it halts.
func FromWire(m *ecsv1.Command) (Command, time.Time, error) {
	now := taskwire.ToTime(m.GetNow())
	switch k := m.GetKind().(type) {
	case *ecsv1.Command_Submit:
		return Submit{
			Task:  taskwire.ToTask(k.Submit.GetTask()),
			Node:  task.NodeID(k.Submit.GetNode()),
			Epoch: k.Submit.GetEpoch(),
			Quota: int(k.Submit.GetQuota()),
		}, now, nil
	case *ecsv1.Command_Register:
		c := Register{Running: taskwire.ToTokens(k.Register.GetRunning())}
		if n := taskwire.ToNode(k.Register.GetNode()); n != nil {
			c.Node = *n
		}
		return c, now, nil
	case *ecsv1.Command_Place:
		return Place{Decisions: toDecisions(k.Place.GetDecisions())}, now, nil
	case *ecsv1.Command_Progress:
		return Progress{
			Token:     taskwire.ToToken(k.Progress.GetToken()),
			Node:      task.NodeID(k.Progress.GetNode()),
			StartedAt: taskwire.ToTime(k.Progress.GetStartedAt()),
		}, now, nil
	case *ecsv1.Command_Finish:
		c := Finish{
			Token:     taskwire.ToToken(k.Finish.GetToken()),
			Node:      task.NodeID(k.Finish.GetNode()),
			Bill:      taskwire.ToBill(k.Finish.GetBill()),
			StartedAt: taskwire.ToTime(k.Finish.GetStartedAt()),
		}
		if r := taskwire.ToResult(k.Finish.GetResult()); r != nil {
			c.Result = *r
		}
		return c, now, nil
	case *ecsv1.Command_Stop:
		return Stop{
			Task:    task.ID(k.Stop.GetTask()),
			Outcome: task.Outcome(k.Stop.GetOutcome()),
			Reason:  k.Stop.GetReason(),
			Owner:   k.Stop.GetOwner(),
		}, now, nil
	case *ecsv1.Command_LoseNode:
		return LoseNode{
			Node:  task.NodeID(k.LoseNode.GetNode()),
			Epoch: k.LoseNode.GetEpoch(),
			Left:  k.LoseNode.GetLeft(),
			Lease: time.Duration(k.LoseNode.GetLease()),
		}, now, nil
	case *ecsv1.Command_LoseAttempt:
		return LoseAttempt{
			Token:  taskwire.ToToken(k.LoseAttempt.GetToken()),
			Reason: k.LoseAttempt.GetReason(),
		}, now, nil
	case *ecsv1.Command_SetNode:
		return toSetNode(k.SetNode), now, nil
	case *ecsv1.Command_Expire:
		return Expire{Tasks: toIDs(k.Expire.GetTasks()), Held: k.Expire.GetHeld()}, now, nil
	case *ecsv1.Command_Forget:
		return Forget{Tasks: toIDs(k.Forget.GetTasks())}, now, nil
	case *ecsv1.Command_Wish:
		return toWish(k.Wish), now, nil
	case *ecsv1.Command_Resume:
		return toResume(k.Resume), now, nil
	case *ecsv1.Command_Found:
		return Found{Cluster: k.Found.GetCluster()}, now, nil
	case *ecsv1.Command_ForgetNodes:
		return toForgetNodes(k.ForgetNodes), now, nil
	case *ecsv1.Command_MoveOutputs:
		return toMoveOutputs(k.MoveOutputs), now, nil
	}
	if c := accessFromWire(m); c != nil {
		return c, now, nil
	}
	if c := gossipKeysFromWire(m); c != nil {
		return c, now, nil
	}
	return nil, now, fmt.Errorf("command of a kind this version does not know: %T", m.GetKind())
}

func fromDecisions(decisions []Decision) []*ecsv1.Decision {
	out := make([]*ecsv1.Decision, len(decisions))
	for i, d := range decisions {
		out[i] = &ecsv1.Decision{
			Task:    string(d.Task),
			Attempt: int32(d.Attempt),
			Node:    string(d.Node),
			Epoch:   d.Epoch,
			Queued:  int64(d.Queued),
		}
	}
	return out
}

func toDecisions(messages []*ecsv1.Decision) []Decision {
	out := make([]Decision, len(messages))
	for i, m := range messages {
		out[i] = Decision{
			Task:    task.ID(m.GetTask()),
			Attempt: int(m.GetAttempt()),
			Node:    task.NodeID(m.GetNode()),
			Epoch:   m.GetEpoch(),
			Queued:  time.Duration(m.GetQueued()),
		}
	}
	return out
}

func fromSetNode(c SetNode) *ecsv1.SetNode {
	m := &ecsv1.SetNode{Node: string(c.Node), Epoch: c.Epoch}
	if c.Drain != nil {
		m.HasDrain, m.Drain = true, *c.Drain
	}
	if c.Unfit != nil {
		m.HasUnfit, m.Unfit = true, *c.Unfit
	}
	return m
}

func toSetNode(m *ecsv1.SetNode) SetNode {
	c := SetNode{Node: task.NodeID(m.GetNode()), Epoch: m.GetEpoch()}
	if m.GetHasDrain() {
		c.Drain = new(m.GetDrain())
	}
	if m.GetHasUnfit() {
		c.Unfit = new(m.GetUnfit())
	}
	return c
}

func fromForgetNodes(c ForgetNodes) *ecsv1.ForgetNodes {
	m := &ecsv1.ForgetNodes{}
	for _, n := range c.Nodes {
		m.Nodes = append(m.Nodes, &ecsv1.GoneNode{Node: string(n.Node), Epoch: n.Epoch})
	}
	return m
}

func toForgetNodes(m *ecsv1.ForgetNodes) ForgetNodes {
	var c ForgetNodes
	for _, n := range m.GetNodes() {
		c.Nodes = append(c.Nodes, GoneNode{Node: task.NodeID(n.GetNode()), Epoch: n.GetEpoch()})
	}
	return c
}

func fromResume(c Resume) *ecsv1.Resume {
	m := &ecsv1.Resume{Tasks: toStrings(c.Tasks)}
	for _, w := range c.Waited {
		m.Waited = append(m.Waited, &ecsv1.Waited{Task: string(w.Task), Attempt: int32(w.Attempt)})
	}
	return m
}

func toResume(m *ecsv1.Resume) Resume {
	c := Resume{Tasks: toIDs(m.GetTasks())}
	for _, w := range m.GetWaited() {
		c.Waited = append(c.Waited, Waited{Task: task.ID(w.GetTask()), Attempt: int(w.GetAttempt())})
	}
	return c
}

func toStrings(ids []task.ID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}

func toIDs(names []string) []task.ID {
	out := make([]task.ID, len(names))
	for i, name := range names {
		out[i] = task.ID(name)
	}
	return out
}
