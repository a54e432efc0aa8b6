package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/client"

	"ecs/control/replica"
	"ecs/internal/daemon"
	"ecs/proto/api"
	"ecs/test/chaos/check"
)

const (
	readyWithin = time.Minute
	quietFor    = 10 * time.Second
	leftWithin  = time.Minute
)

// trial is one run, from a cluster that is not started to its history.
type trial struct {
	options
	c      *cluster
	engine *client.Client
	began  time.Time
}

func (r *trial) say(format string, args ...any) {
	fmt.Printf("%6.1fs  "+format+"\n", append([]any{time.Since(r.began).Seconds()}, args...)...)
}

// history has clients at work: first in peace, then under faults. Then it waits
// until all has settled, and asks everybody what there is to know. An error beside
// a history is something that could not be done or seen: what was seen counts all
// the same. Without one the run was cut short, and there is nothing to check.
func (r *trial) history(ctx context.Context, closeAll func() error) (*check.History, error) {
	r.began = time.Now()
	fmt.Printf("seed %d, faults for %s, in %s\n", r.seed, r.last, r.c.dir)
	for _, n := range r.c.nodes {
		if n.engine != nil {
			if err := n.engine.prepare(ctx); err != nil {
				return nil, err
			}
		}
	}
	for _, n := range r.c.nodes {
		if err := n.start(); err != nil {
			return nil, err
		}
	}
	starting, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	if err := r.c.ready(starting); err != nil {
		return nil, err
	}
	r.say("%d nodes are ready", len(r.c.nodes))
	h := &check.History{Before: r.sizes(), Nodes: len(r.c.nodes), Began: daemon.Boottime()}
	w := &workload{c: r.c, tasks: make(map[string]check.Task), asked: make(map[string]api.TaskRequest), lasting: fewLast, clients: clients}
	alone := 1
	if r.mistake != "" { // it is to be found in little time
		w.lasting, w.clients, alone = manyLast, fewClients, 8
	}
	working, stopWork := context.WithCancel(ctx)
	defer stopWork()
	var side sync.WaitGroup
	watching, stopWatch := context.WithCancel(ctx)
	defer func() { stopWatch(); side.Wait() }()
	var seen witnesses
	if r.containers {
		seen = append(seen, newContainerWitness(r.engine, r.c.name, false))
	}
	for _, n := range r.c.nodes {
		if n.engine != nil {
			seen = append(seen, newContainerWitness(n.engine.client, r.c.name, true))
		}
	}
	for _, w := range seen {
		side.Go(func() { w.run(watching) })
	}
	w.quiet.Store(true)
	var work sync.WaitGroup
	work.Go(func() { w.run(working, r.seed, r.containers) })
	_, term := r.c.leader(ctx)
	pauseFor(ctx, quietFor)
	_, later := r.c.leader(ctx)
	h.QuietTerms = []uint64{term, later}
	w.quiet.Store(false)
	m := &nemesis{c: r.c, say: r.say}
	if r.drill == "" {
		m.run(ctx, r.seed, alone, r.enough(m, w))
	} else {
		h.Resumed = m.drill(ctx, drills[r.drill], r.rounds, w)
	}
	h.Healed, h.HealedAt = daemon.Boottime(), time.Now()
	stopWork()
	work.Wait()
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(m.err, err)
	}
	errs := []error{m.err}
	h.Faults, h.Ops, h.Tasks = m.faults, w.ops, w.tasks
	r.say("%d calls of clients, %d faults; waiting for what they left", len(h.Ops), len(h.Faults))
	r.settle(ctx, h)
	if h.Settled > 0 {
		errs = append(errs, r.afterwards(ctx, h, w))
	}
	errs = append(errs, r.left(ctx, h, seen))
	h.After = r.sizes()
	stopWatch()
	side.Wait()
	errs = append(errs, r.lives(h, seen))
	for _, n := range r.c.nodes {
		n.mu.Lock()
		if n.endedByItself != nil {
			h.Left = append(h.Left, n.endedByItself.Error())
		}
		n.mu.Unlock()
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	errs = append(errs, closeAll())
	return h, errors.Join(append(errs, r.hashes(h))...)
}

// enough says when faults come to their end: not before their time, nor before
// there were as many and as much work as there have to be, unless that takes too long.
func (r *trial) enough(m *nemesis, w *workload) (over func() bool) {
	began := time.Now()
	return func() bool {
		took := time.Since(began)
		return took >= r.most || took >= r.last && w.accepted() >= r.floor.Tasks && m.bitten() >= r.floor.Faults
	}
}

// settle waits until every control node has the end of every task, and gossip is
// complete. What it still lacks then is for the checks to say.
func (r *trial) settle(ctx context.Context, h *check.History) {
	within, cancel := context.WithTimeout(ctx, check.SettleWithin(h.Tasks))
	defer cancel()
	err := until(within, "every task ended, on every control node", func() bool {
		finals := make(map[string][]check.Record)
		for _, n := range r.c.controls() {
			records, open, err := everything(within, n.client)
			if err != nil || open > 0 {
				return false
			}
			finals[n.name] = records
		}
		if !sameCounts(finals) {
			return false // one lags: it lacks what is open elsewhere
		}
		h.Finals = finals
		return true
	})
	if err == nil {
		h.Settled = daemon.Boottime()
	} else {
		r.say("%v", err)
		h.Finals = make(map[string][]check.Record)
		for _, n := range r.c.controls() {
			h.Finals[n.name], _, _ = everything(ctx, n.client)
		}
	}
	h.Members = make(map[string]int)
	within, cancel = context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_ = until(within, "gossip complete", func() bool {
		complete := true
		for _, n := range r.c.controls() {
			if info, err := n.client.Cluster(within); err == nil {
				h.Members[n.name] = len(info.Members)
			}
			complete = complete && h.Members[n.name] == h.Nodes
		}
		return complete
	})
}

func sameCounts(finals map[string][]check.Record) bool {
	count := -1
	for _, records := range finals {
		if count >= 0 && len(records) != count {
			return false
		}
		count = len(records)
	}
	return true
}

// everything reads all tasks of one control node, and counts those without an end.
func everything(ctx context.Context, c *api.Client) (records []check.Record, open int, err error) {
	o := api.ListOptions{Limit: api.MaxList}
	for {
		page, err := c.List(ctx, o)
		if err != nil {
			return records, open, err
		}
		for i := range page.Tasks {
			if !page.Tasks[i].Finished() {
				open++
			}
			records = append(records, recordOf(&page.Tasks[i]))
		}
		if page.Next == "" {
			return records, open, nil
		}
		o.Cursor = page.Next
	}
}

// left waits until nothing of the tasks is left, and notes what is.
func (r *trial) left(ctx context.Context, h *check.History, seen witnesses) error {
	within, cancel := context.WithTimeout(ctx, leftWithin)
	defer cancel()
	var failed error
	_ = until(within, "nothing left", func() bool {
		h.Left, failed = nil, nil
		for _, n := range r.c.agents() {
			attempts, err := filepath.Glob(filepath.Join(n.dir, "data", "attempts", "*"))
			failed = errors.Join(failed, err)
			h.Left = append(h.Left, attempts...)
		}
		h.Left = append(h.Left, r.programs()...)
		containers, err := seen.left(ctx)
		failed = errors.Join(failed, err)
		h.Left = append(h.Left, containers...)
		return failed == nil && len(h.Left) == 0
	})
	return failed
}

// programs lists the processes of tasks that run.
func (r *trial) programs() (names []string) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is right
	for _, name := range lines {
		if line, err := os.ReadFile(name); err == nil && strings.Contains(string(line), "\x00"+programCommand+"\x00"+r.c.dir) {
			names = append(names, "process "+filepath.Base(filepath.Dir(name)))
		}
	}
	return names
}

// sizes counts what the processes hold.
func (r *trial) sizes() map[string]int {
	sizes := make(map[string]int)
	for _, n := range r.c.nodes {
		for _, what := range []string{"fd", "task"} {
			if entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", n.process.Process.Pid, what)); err == nil {
				sizes[n.name+" "+what] = len(entries)
			}
		}
	}
	return sizes
}

func (r *trial) lives(h *check.History, seen witnesses) (err error) {
	if h.Lives, err = processLives(r.c.witness); err != nil {
		return err
	}
	contained, err := seen.all()
	h.Lives = append(h.Lives, contained...)
	return err
}

// hashes makes the record again from each control node's disk, its newest snapshot
// and the log after that, as far as all of them have it.
func (r *trial) hashes(h *check.History) error {
	common := ^uint64(0)
	for _, n := range r.c.controls() {
		_, last, err := replica.Replay(raftDir(n), 0)
		if err != nil {
			return fmt.Errorf("replay the log of %s: %w", n.name, err)
		}
		common = min(common, last)
	}
	h.Hashes, h.Snapshots = make(map[string]string), make(map[string]int)
	for _, n := range r.c.controls() {
		sn, _, err := replica.Replay(raftDir(n), common)
		if err != nil {
			return fmt.Errorf("replay the log of %s: %w", n.name, err)
		}
		snapshots, err := filepath.Glob(filepath.Join(raftDir(n), "snapshots", "*-*[0-9]")) // not those that were not finished
		if err != nil {
			return err
		}
		h.Snapshots[n.name] = len(snapshots)
		h.Hashes[n.name] = fmt.Sprintf("%x at %d", sn.Hash(), sn.Index())
	}
	return nil
}

// summary says how much was done.
func (r *trial) summary(h *check.History) {
	results, kinds, outcomes := make(map[string]int), make(map[string]int), make(map[string]int)
	for _, op := range h.Ops {
		results[op.Kind+" "+op.Result]++
	}
	for _, f := range h.Faults {
		kinds[f.Kind]++
	}
	again := 0
	for _, t := range h.Finals[r.c.nodes[0].name] {
		outcomes[t.Outcome]++
		if len(t.Attempts) > 1 {
			again++
		}
	}
	r.say("calls %v\n         outcomes %v, %d tasks had more than one attempt; %d programs lived\n         "+
		"%d replacements judged, snapshots %v of every %d entries, %d streams read\n         %d faults of %d kinds %v", results, outcomes, again,
		len(h.Lives), check.Replaced(h), h.Snapshots, r.c.snapshotEntries, len(h.Fetches), len(h.Faults), len(kinds), kinds)
}

func raftDir(n *node) string { return filepath.Join(n.dir, "data", "raft") }
