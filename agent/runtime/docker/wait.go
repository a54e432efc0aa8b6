package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"ecs/agent/runtime"
	"ecs/internal/cgroup"
)

const (
	// pauseEvery is how often it is looked whether somebody has paused the
	// container: a frozen init can't say so. agreeing looks in a row must agree,
	// as a kill freezes too.
	pauseEvery = time.Second
	agreeing   = 4
)

// Reasons for an interruption.
const (
	engineLost = "the engine went away while the program ran"
	removed    = "somebody removed the container"
	paused     = "somebody paused the container"
	unheard    = "the program ended while nobody was there to hear how"
)

// exitNote is what the engine said of a container's end.
type exitNote struct {
	code int
	err  error // the wait broke: another engine may answer now
}

func (n exitNote) Error() string {
	if n.err != nil {
		return n.err.Error()
	}
	return fmt.Sprintf("the container ended with code %d", n.code)
}

// watch has the engine say when the container ends. What it says goes to exits.
// Nothing waits for it as long as init speaks.
func (c *attempt) watch(condition container.WaitCondition) {
	ctx, cancel := context.WithCancel(c.life)
	results, errs := c.r.client.ContainerWait(ctx, c.id, condition)
	c.spawn(func() {
		defer cancel()
		// The client sends either a result or an error, once; an error also when
		// life ends.
		select {
		case res := <-results:
			c.exits <- exitNote{code: int(res.StatusCode)}
		case err := <-errs:
			c.exits <- exitNote{err: err}
		}
	})
}

// Wait implements runtime.Container.
func (c *attempt) Wait(ctx context.Context) (runtime.Exit, error) {
	lost, err := c.await(ctx)
	if err != nil {
		return runtime.Exit{}, fmt.Errorf("wait for container %s: %w", short(c.id), err)
	}
	exit, err := c.verdict(ctx)
	if err != nil {
		return exit, fmt.Errorf("wait for container %s: %w", short(c.id), err)
	}
	if lost != "" {
		exit.Interrupted = lost
	}
	return exit, nil
}

// await waits until no process of the program is left. lost is not empty where
// somebody took the container away and it had to be ended.
func (c *attempt) await(ctx context.Context) (lost string, err error) {
	look := time.NewTicker(pauseEvery)
	defer look.Stop()
	for times := 0; ; {
		select {
		case <-c.over:
			if errors.Is(c.heard.lost, errLapsed) {
				return "", c.endAll(ctx)
			}
			return lost, nil
		case <-look.C:
			if times++; !isPaused(c.cgroup) {
				times = 0
			}
			if times >= agreeing {
				lost = paused
				if err := c.endAll(ctx); err != nil {
					return "", err
				}
			}
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// isPaused reports whether a cgroup is frozen.
func isPaused(dir string) bool {
	if rest, ok := strings.CutPrefix(dir, cgroup.Root+"/"); ok {
		if _, path, ok := strings.Cut(rest, "/"); ok {
			state, err := os.ReadFile(filepath.Join(cgroup.Root, "freezer", path, "freezer.state"))
			if err == nil {
				return strings.TrimSpace(string(state)) == "FROZEN"
			}
		}
	}
	events, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	return err == nil && strings.Contains(string(events), "frozen 1")
}

// state is what the engine says of the container now. It is not nil when there
// is no error.
func (c *attempt) state(ctx context.Context) (*container.State, error) {
	found, err := c.r.inspect(ctx, c.id)
	if err == nil && (found.ContainerJSONBase == nil || found.State == nil) {
		err = errors.New("the engine told no state")
	}
	if err != nil {
		return nil, err
	}
	return found.State, nil
}
