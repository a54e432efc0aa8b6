package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/docker/docker/client"

	"ecs/internal/devcluster"
	"ecs/test/images"
)

// run measures what was asked for and prints it.
func run(ctx context.Context, o options) error {
	rep := newReport()
	if o.wants("controlplane") {
		found, err := measureControlPlane(ctx, o)
		if err != nil {
			return fmt.Errorf("the control plane alone: %w", err)
		}
		rep.ControlPlane = found
		if found.Plain, err = plainRaft(ctx, o); ctx.Err() != nil {
			return context.Cause(ctx)
		} else if err != nil {
			rep.note("plain Raft beside the control plane: %v", err)
		}
	}
	if o.wants("door") {
		found, err := measureDoor(ctx, o)
		if err != nil {
			return fmt.Errorf("the door: %w", err)
		}
		rep.Door = found
	}
	if o.wants("single") || o.wants("parked") || o.wants("throughput") || o.wants("operations") || o.wants("idle") || o.wants("swarm") || o.wants("nomad") || o.wants("prototype") {
		if err := withEngine(ctx, o, rep); err != nil {
			return err
		}
	}
	setAgainstRaw(rep.Rows)
	setAgainstRaw(rep.Prototype)
	fmt.Print(rep.text())
	return rep.write(o)
}

// withEngine measures what runs containers.
func withEngine(ctx context.Context, o options, rep *report) error {
	engine, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	defer engine.Close()
	if err := images.Ensure(ctx, engine); err != nil {
		return fmt.Errorf("make the images: %w", err)
	}
	info, err := engine.Info(ctx)
	if err != nil {
		return fmt.Errorf("ask the engine: %w", err)
	}
	rep.Engine = "Docker " + info.ServerVersion + ", cgroup v" + info.CgroupVersion
	if o.wants("single") || o.wants("throughput") || o.wants("operations") || o.wants("idle") {
		if err := measureECS(ctx, o, rep, engine); err != nil {
			return err
		}
	}
	if o.wants("parked") {
		if err := measureParked(ctx, o, rep, engine); err != nil {
			return fmt.Errorf("parked containers: %w", err)
		}
	}
	if o.wants("swarm") {
		if err := measureSwarm(ctx, o, rep, engine); err != nil {
			return err
		}
	}
	if o.wants("nomad") {
		if err := measureNomad(ctx, o, rep); err != nil {
			return err
		}
	}
	if o.wants("prototype") {
		return measurePrototype(ctx, o, rep, engine)
	}
	return nil
}

// measureECS sets ECS against the raw engine.
func measureECS(ctx context.Context, o options, rep *report, engine *client.Client) error {
	dir, err := os.MkdirTemp("", "ecs-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := up(ctx, filepath.Join(dir, "cold"), engine, devcluster.Options{HTTPPort: o.port, Binaries: o.bin})
	if err != nil {
		return err
	}
	defer c.down(ctx)
	byHand := newRaw(engine).way()
	if o.wants("single") {
		if err := measureSingle(ctx, o, rep, c, filepath.Join(dir, "warm")); err != nil {
			return err
		}
	}
	if o.wants("throughput") {
		ways := []way{byHand, {name: "ECS cold", do: c.all.one, wait: c.removed(ctx)}}
		if rep.Throughput, err = saturate(ctx, ways, o.batch); err != nil {
			return err
		}
	}
	if o.wants("operations") {
		if rep.Operations, err = c.operations(ctx, o.rounds); err != nil {
			return err
		}
	}
	if o.wants("idle") {
		rep.Idle, err = c.watchIdle(ctx, o.idleFor)
	}
	return err
}

// measureSingle measures one at a time, with a cluster beside the cold one that
// starts containers ahead; it is ended before anything else is measured.
func measureSingle(ctx context.Context, o options, rep *report, cold *cluster, dir string) error {
	warm, err := up(ctx, dir, cold.engine, devcluster.Options{HTTPPort: o.port + len(cold.Endpoints), Binaries: o.bin, WarmCount: warmEach})
	if err != nil {
		return err
	}
	defer warm.down(ctx)
	if err := warm.prime(ctx); err != nil {
		return err
	}
	byHand := newRaw(cold.engine).way()
	ways := slices.Concat([]way{{name: "docker run --rm", do: dockerRun}, byHand, newBareRaw(cold.engine).way()}, cold.ways(ctx), warm.warmWays())
	rows, err := oneAtATime(ctx, ways, o.warmups, o.rounds)
	if err != nil {
		return err
	}
	rep.Rows = append(rep.Rows, rows...)
	return nil
}

// measureSwarm measures jobs of a swarm that is made for it and left after.
func measureSwarm(ctx context.Context, o options, rep *report, engine *client.Client) error {
	s, err := joinSwarm(ctx, engine)
	if err != nil {
		rep.note("no Swarm row: %v", err)
		return nil
	}
	defer s.leave(ctx)
	return rep.peer(ctx, s.way(), o)
}

// measurePrototype sets the engine against what it calls itself.
func measurePrototype(ctx context.Context, o options, rep *report, engine *client.Client) error {
	dir, err := os.MkdirTemp("", "ecs-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p, err := newPrototype(ctx, engine, dir)
	if err != nil {
		rep.note("no row of runc: %v", err)
		return nil
	}
	ways := []way{newRaw(engine).way(), newBareRaw(engine).way(), p.way()}
	if rep.Prototype, err = oneAtATime(ctx, ways, o.warmups, o.rounds/2); err != nil {
		return err
	}
	rep.PrototypeThroughput, err = saturate(ctx, ways, o.batch)
	return err
}

// measureNomad measures the Nomad binary that was named, if any.
func measureNomad(ctx context.Context, o options, rep *report) error {
	if o.nomad == "" {
		rep.note("no Nomad row: PEER_NOMAD names no binary")
		return nil
	}
	n, err := startNomad(ctx, o.nomad)
	if err != nil {
		rep.note("no Nomad row: %v", err)
		return nil
	}
	defer n.stop()
	return rep.peer(ctx, n.way(), o)
}

// peer adds a row of a peer, which takes its time.
func (r *report) peer(ctx context.Context, w way, o options) error {
	rows, err := oneAtATime(ctx, []way{w}, 2, max(10, o.rounds/4))
	if ctx.Err() != nil {
		return err
	}
	if err != nil {
		r.note("no row: %v", err)
		return nil
	}
	r.Rows = append(r.Rows, rows...)
	return nil
}

func warn(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
