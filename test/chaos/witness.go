package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"ecs/test/chaos/check"
)

// beatFile is where a program in a container tells of its life. It is in the
// container's own layer, which the machine sees from outside.
const beatFile = "/beats"

// processLives reads what processes told of their lives: each one has a file
// TASK.ATTEMPT.NODE.PROCESS.
func processLives(dir string) (lives []check.Life, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		parts := strings.Split(e.Name(), ".")
		if len(parts) != 4 {
			return nil, fmt.Errorf("%s is nobody's life", e.Name())
		}
		attempt, err := strconv.Atoi(parts[1])
		if err != nil {
			return nil, fmt.Errorf("%s is nobody's life: %w", e.Name(), err)
		}
		life := check.Life{Task: parts[0], Attempt: attempt, Node: parts[2]}
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		err = eachLine(f, func(line string) {
			if nanos, err := strconv.ParseInt(line, 10, 64); err == nil { // the last may be cut short
				life.Beat(time.Duration(nanos))
			}
		})
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		if life.Last > 0 {
			lives = append(lives, life)
		}
	}
	return lives, nil
}

func eachLine(r io.Reader, do func(string)) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		do(lines.Text())
	}
	return lines.Err()
}

// containerWitness watches the containers of a cluster. It holds each one's file
// open, so that what was written last is read also when it is gone.
type containerWitness struct {
	engine  *client.Client
	cluster string
	killed  bool // the engine may be, and comes back
	mu      sync.Mutex
	open    map[string]*os.File // by container; nil: it is being opened
	lives   map[string]check.Life
	err     error
	opening sync.WaitGroup
}

func newContainerWitness(engine *client.Client, cluster string, killed bool) *containerWitness {
	return &containerWitness{engine: engine, cluster: cluster, killed: killed, open: make(map[string]*os.File), lives: make(map[string]check.Life)}
}

// run watches until ctx ends.
func (w *containerWitness) run(ctx context.Context) {
	defer w.opening.Wait()
	for {
		err := w.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if !w.killed {
			w.note(fmt.Errorf("watch the engine: %w", err))
			return
		}
		// What it started since then is still listed when it answers again.
		_ = until(ctx, "the engine answers", func() bool { _, err := w.engine.Ping(ctx); return err == nil }) // ctx ends both
	}
}

// follow watches for as long as the engine lives.
func (w *containerWitness) follow(ctx context.Context) error {
	ours := filters.Arg("label", clusterLabel+"="+w.cluster)
	started, failed := w.engine.Events(ctx, events.ListOptions{Filters: filters.NewArgs(filters.Arg("type", "container"), filters.Arg("event", "start"), ours)})
	list, err := w.engine.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(ours)})
	if err != nil {
		return err
	}
	for _, c := range list {
		w.begin(ctx, c.ID)
	}
	for {
		select {
		case e := <-started:
			w.begin(ctx, e.Actor.ID)
		case err := <-failed:
			return err
		}
	}
}

// begin watches one container, once.
func (w *containerWitness) begin(ctx context.Context, id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.open[id]; known {
		return
	}
	w.open[id] = nil
	w.opening.Go(func() {
		err := w.watch(ctx, id)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.open[id] == nil {
			delete(w.open, id)
		}
		if err != nil && w.err == nil && !w.killed { // an engine that is killed gives no answers; it is listed again
			w.err = err
		}
	})
}

func (w *containerWitness) note(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

// watch opens the file of one container once its program has begun.
func (w *containerWitness) watch(ctx context.Context, id string) error {
	c, err := w.engine.ContainerInspect(ctx, id)
	if cerrdefs.IsNotFound(err) || ctx.Err() != nil {
		return nil // it is gone: its program never lived
	}
	if err != nil {
		return fmt.Errorf("inspect container %s: %w", id, err)
	}
	attempt, err := strconv.Atoi(c.Config.Labels["ecs.attempt"])
	if err != nil {
		return fmt.Errorf("container %s is no attempt's: %w", id, err)
	}
	upper := c.GraphDriver.Data["UpperDir"]
	for {
		f, err := os.Open(filepath.Join(upper, beatFile))
		if err == nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.open[id] = f
			w.lives[id] = check.Life{Task: c.Config.Labels["ecs.task"], Attempt: attempt, Node: c.Config.Labels["ecs.node"]}
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if _, err := os.Stat(upper); err != nil {
			return nil // removed before it began
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil
		}
	}
}

// all reads the lives, after run.
func (w *containerWitness) all() (lives []check.Life, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	err = w.err
	for id, f := range w.open {
		life := w.lives[id]
		err = errors.Join(err, eachLine(f, func(line string) {
			if uptime, err := time.ParseDuration(line + "s"); err == nil {
				life.Beat(uptime)
			}
		}), f.Close())
		if life.Last > 0 {
			lives = append(lives, life)
		}
	}
	return lives, err
}

// left lists the containers of the cluster that are still there.
func (w *containerWitness) left(ctx context.Context) ([]string, error) {
	list, err := w.engine.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", clusterLabel+"="+w.cluster))})
	var names []string
	for _, c := range list {
		names = append(names, "container "+strings.Join(c.Names, " "))
	}
	return names, err
}

// witnesses are those of all engines of a run.
type witnesses []*containerWitness

func (all witnesses) all() (lives []check.Life, err error) {
	for _, w := range all {
		some, failed := w.all()
		lives, err = append(lives, some...), errors.Join(err, failed)
	}
	return lives, err
}

func (all witnesses) left(ctx context.Context) (names []string, err error) {
	for _, w := range all {
		some, failed := w.left(ctx)
		names, err = append(names, some...), errors.Join(err, failed)
	}
	return names, err
}
