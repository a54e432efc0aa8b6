package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"ecs/test/images"
)

// errInSwarm says that the engine belongs to somebody's swarm already.
var errInSwarm = errors.New("the engine is in a swarm already, which is left alone")

// bridge is the network that an engine makes for a swarm and does not remove.
const bridge = "docker_gwbridge"

// swarmJobs runs replicated jobs on a swarm that it made itself.
type swarmJobs struct {
	engine *client.Client
	bridge bool // was there before
	number atomic.Int64
}

// joinSwarm makes a swarm of this engine alone. leave undoes it, on every path.
func joinSwarm(ctx context.Context, engine *client.Client) (s *swarmJobs, err error) {
	info, err := engine.Info(ctx)
	if err != nil {
		return nil, err
	}
	if info.Swarm.LocalNodeState != swarm.LocalNodeStateInactive {
		return nil, errInSwarm
	}
	s = &swarmJobs{engine: engine}
	_, err = engine.NetworkInspect(ctx, bridge, network.InspectOptions{})
	s.bridge = err == nil
	if _, err := engine.SwarmInit(ctx, swarm.InitRequest{ListenAddr: "127.0.0.1:2377", AdvertiseAddr: "127.0.0.1"}); err != nil {
		return nil, fmt.Errorf("make a swarm: %w", err)
	}
	return s, nil
}

func (s *swarmJobs) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := s.engine.SwarmLeave(ctx, true); err != nil {
		warn("leave the swarm that was made for this; `docker swarm leave --force` does: %v", err)
	}
	if !s.bridge {
		if err := s.engine.NetworkRemove(ctx, bridge); err != nil {
			warn("remove network %s: %v", bridge, err)
		}
	}
}

func (s *swarmJobs) way() way { return way{name: "Swarm replicated job", do: s.run} }

// run makes a job, waits until its task has completed and removes it. The output
// is not asked for: it would be another call.
func (s *swarmJobs) run(ctx context.Context) error {
	one := uint64(1)
	made, err := s.engine.ServiceCreate(ctx, swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: fmt.Sprintf("ecs-bench-%d", s.number.Add(1))},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{Image: images.Busybox, Command: []string{"echo", "hi"}},
			RestartPolicy: &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionNone},
		},
		Mode: swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &one, TotalCompletions: &one}},
	}, swarm.ServiceCreateOptions{})
	if err != nil {
		return fmt.Errorf("create a job: %w", err)
	}
	defer func() { _ = s.engine.ServiceRemove(context.WithoutCancel(ctx), made.ID) }() // leaving removes what is left
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	which := filters.NewArgs(filters.Arg("service", made.ID))
	for {
		// There is nothing to wait on: its own client polls, less often.
		tasks, err := s.engine.TaskList(ctx, swarm.TaskListOptions{Filters: which})
		if err != nil {
			return fmt.Errorf("look at the job: %w", err)
		}
		for _, t := range tasks {
			switch t.Status.State {
			case swarm.TaskStateComplete:
				return nil
			case swarm.TaskStateFailed, swarm.TaskStateRejected:
				return fmt.Errorf("the job's task %s: %s", t.Status.State, t.Status.Err)
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}
