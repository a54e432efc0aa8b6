// Package sim places tasks on thousands of simulated nodes with the replicated
// state and placement alone: no log, no network, no agents.
package sim

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"ecs/control/place"
	"ecs/control/state"
	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

// batch is how many tasks one command places, as the leader's scheduler does.
const batch = 500

// Result is what placing all tasks cost.
type Result struct {
	Nodes, Tasks int
	Placed       int
	Decide       time.Duration // looking at the newest record, and choosing
	Apply        time.Duration // changing the record
	Steps        int           // comparisons; see place.Planner
}

// Each is what one placement cost.
func (r Result) Each(total time.Duration) time.Duration {
	return total / time.Duration(max(1, r.Placed))
}

// cluster is a record under simulation.
type cluster struct {
	store *state.Store
	index uint64
	now   time.Time
}

// apply commits commands as one entry and gives the outcomes and the time it
// took. Encoding is the proposer's work and not counted.
func (c *cluster) apply(commands ...state.Command) ([]state.Outcome, time.Duration, error) {
	c.index++
	c.now = c.now.Add(time.Millisecond)
	entry := &ecsv1.Entry{}
	for _, cmd := range commands {
		entry.Commands = append(entry.Commands, state.ToWire(cmd, c.now))
	}
	b, err := proto.Marshal(entry)
	if err != nil {
		return nil, 0, err
	}
	began := time.Now()
	out, err := c.store.Apply(c.index, b)
	return out, time.Since(began), err
}

// Run places tasks, all of which wait at the beginning, on nodes of different
// sizes in three zones. What was placed ends a moment later, so that there is
// room for all.
func Run(nodes, tasks int) (Result, error) {
	c := &cluster{store: state.NewStore(state.Limits{MaxPending: tasks}), now: time.Unix(1_700_000_000, 0)}
	if err := c.fill(nodes, tasks); err != nil {
		return Result{}, err
	}
	r := Result{Nodes: nodes, Tasks: tasks}
	planner := place.NewPlanner(c.store.Snapshot(), place.Hints{})
	for r.Placed < tasks {
		began := time.Now()
		planner.See(c.store.Snapshot())
		decisions := planner.Place(batch)
		r.Decide += time.Since(began)
		out, took, err := c.apply(state.Place{Decisions: decisions})
		if err != nil {
			return r, err
		}
		r.Apply += took
		if len(out[0].Placed) != len(decisions) || len(decisions) == 0 {
			return r, fmt.Errorf("%d nodes: %d of %d decisions were accepted after %d tasks", nodes, len(out[0].Placed), len(decisions), r.Placed)
		}
		r.Placed += len(decisions)
		if err := c.end(decisions); err != nil {
			return r, err
		}
	}
	r.Steps = planner.Steps()
	return r, nil
}

// fill registers the nodes and submits the tasks.
func (c *cluster) fill(nodes, tasks int) error {
	var commands []state.Command
	flush := func() error {
		_, _, err := c.apply(commands...)
		commands = commands[:0]
		return err
	}
	add := func(cmd state.Command) error {
		if commands = append(commands, cmd); len(commands) < batch {
			return nil
		}
		return flush()
	}
	for i := range nodes {
		n := task.Node{ID: task.NodeID(fmt.Sprintf("node%05d", i)), Zone: string(rune('a' + i%3)),
			Capacity: task.Capacity{MilliCPU: int64(4+4*(i%4)) * 1000, Memory: int64(16+16*(i%4)) << 30}}
		if err := add(state.Register{Node: n}); err != nil {
			return err
		}
	}
	for i := range tasks {
		spec := task.Spec{Image: "docker.io/library/busybox:1",
			Resources: task.Resources{MilliCPU: int64(1+i%3) * 250, Memory: int64(1+i%5) << 28}}.WithDefaults(task.V2, false)
		t := &task.Task{ID: task.ID(fmt.Sprintf("task%08d", i)), Owner: "sim", API: task.V2, Spec: spec}
		if err := add(state.Submit{Task: t}); err != nil {
			return err
		}
	}
	return flush()
}

// end finishes tasks.
func (c *cluster) end(decisions []state.Decision) error {
	var ends []state.Command
	for _, d := range decisions {
		ends = append(ends, state.Finish{Token: task.Token{Task: d.Task, Attempt: d.Attempt, Epoch: d.Epoch},
			Result: task.Result{Outcome: task.Exited, HasExit: true}})
	}
	_, _, err := c.apply(ends...)
	return err
}
