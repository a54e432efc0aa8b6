package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"ecs/agent/runtime"
)

// CopyOut implements runtime.Container. The engine reads the container's file
// system itself, within the container's root, whether anything of it runs or not.
func (c *attempt) CopyOut(ctx context.Context, path string) (io.ReadCloser, error) {
	content, err := c.r.copyFrom(ctx, c.id, path)
	if err == nil {
		return content, nil
	}
	if errdefs.IsNotFound(err) {
		// The engine says the same of a container that is gone.
		if _, gone := c.r.inspect(ctx, c.id); gone != nil {
			return nil, fmt.Errorf("copy from container %s: %w", short(c.id), gone)
		}
		return nil, runtime.ErrNoPath
	}
	if noWay(err, path) {
		return nil, runtime.ErrNoPath
	}
	return nil, fmt.Errorf("copy from container %s: %w", short(c.id), err)
}

// tooManyLinks begins what the engine says of a loop of links, which it finds
// itself.
const tooManyLinks = "Error response from daemon: evalSymlinksInScope: too many links in "

// noWay reports whether the program left something that no path leads through.
// The engine has only words for that, with names in them that are the caller's
// to choose: a cause stands at the end, behind them.
func noWay(err error, path string) bool {
	if !answered(err) {
		return false
	}
	text := strings.ReplaceAll(err.Error(), path, "")
	if strings.HasPrefix(text, tooManyLinks) {
		return true
	}
	for _, errno := range []syscall.Errno{syscall.ENOTDIR, syscall.ELOOP, syscall.ENAMETOOLONG} {
		if strings.HasSuffix(text, ": "+errno.Error()) {
			return true
		}
	}
	return false
}

// copyFrom asks the engine, which has to begin its answer in the time of a
// short call. The rest ends with ctx or Close, whichever comes first.
func (r *Runtime) copyFrom(ctx context.Context, id, path string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	late := fmt.Errorf("no answer from the engine in %s", shortCall)
	hangs := time.AfterFunc(shortCall, func() { cancel(late) })
	begun := time.Now()
	content, _, err := r.client.CopyFromContainer(ctx, id, path)
	if !hangs.Stop() && err == nil {
		err = errors.Join(late, content.Close())
	}
	r.measure("copy", begun, err)
	if err != nil {
		defer cancel(nil)
		if context.Cause(ctx) == late {
			r.hung.Add(1)
			return nil, late
		}
		if ctx.Err() == nil {
			r.hung.Store(0)
		}
		return nil, err
	}
	r.hung.Store(0)
	return &copying{content, cancel}, nil
}

// copying is an answer that is being read.
type copying struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

// Close ends the answer, also one whose sender hangs: closing alone would wait
// for the rest.
func (c *copying) Close() error {
	c.cancel(nil)
	return c.ReadCloser.Close()
}
