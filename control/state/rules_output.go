package state

import (
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

// MoveOutputs says that the output of finished tasks is held by other nodes from
// now on. Results stay what they are otherwise.
type MoveOutputs struct {
	Moves []MovedOutput
}

// MovedOutput is one result's output that was on From, at FromAddr, and is on To.
// It holds only while the record says the former, and To takes tasks: one that
// leaves would take it along.
type MovedOutput struct {
	Task     task.ID
	Attempt  int // whose result stands
	From     task.NodeID
	FromAddr string
	To       task.NodeID
}

func (cmd MoveOutputs) apply(c *change) Outcome {
	var out Outcome
	for _, m := range cmd.Moves {
		t, to := c.task(m.Task), c.node(m.To)
		if t == nil || !heldAt(t.Result, m) || to == nil || to.OutputAddr == "" || !to.Takes() {
			continue
		}
		next, result := *t, *t.Result
		result.OutputNode, result.OutputAddr = to.ID, to.OutputAddr
		next.Result = &result
		c.put(t, &next)
		out.Ended = append(out.Ended, t.ID)
	}
	return out
}

// heldAt reports whether the result's output is where a move says it was.
func heldAt(r *task.Result, m MovedOutput) bool {
	return r != nil && r.Attempt == m.Attempt && r.Holder() == m.From && r.OutputAddr != "" && r.OutputAddr == m.FromAddr
}

func fromMoveOutputs(c MoveOutputs) *ecsv1.MoveOutputs {
	m := &ecsv1.MoveOutputs{}
	for _, o := range c.Moves {
		m.Moves = append(m.Moves, &ecsv1.MovedOutput{Task: string(o.Task), Attempt: int32(o.Attempt),
			From: string(o.From), FromAddr: o.FromAddr, To: string(o.To)})
	}
	return m
}

func toMoveOutputs(m *ecsv1.MoveOutputs) MoveOutputs {
	var c MoveOutputs
	for _, o := range m.GetMoves() {
		c.Moves = append(c.Moves, MovedOutput{Task: task.ID(o.GetTask()), Attempt: int(o.GetAttempt()),
			From: task.NodeID(o.GetFrom()), FromAddr: o.GetFromAddr(), To: task.NodeID(o.GetTo())})
	}
	return c
}
