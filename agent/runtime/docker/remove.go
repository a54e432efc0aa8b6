package docker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"golang.org/x/sys/unix"

	"ecs/internal/task"
)

const (
	// removeWithin bounds the tries at one removal when the caller's context
	// does not.
	removeWithin = 2 * time.Minute
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	// reapers is how many containers Reap removes at once.
	reapers = 4
)

// remove removes a container in whatever state it is, with its volumes, and
// tries again until it is gone or ctx ends: a busy mount or a removal under
// way elsewhere is a matter of time.
func (r *Runtime) remove(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, removeWithin)
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := r.call(ctx, "remove", longCall, func(ctx context.Context) error {
			return r.client.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		})
		if err == nil || errdefs.IsNotFound(err) {
			return nil
		}
		if !sleep(ctx, pause) {
			r.cfg.Metrics.IncrCounter(metricLeaked, 1)
			return fmt.Errorf("remove container %s: %w", short(id), err)
		}
	}
}

// Reap implements runtime.Runtime.
func (r *Runtime) Reap(ctx context.Context, keep func(task.Token) bool) (int, error) {
	var found []container.Summary
	err := r.call(ctx, "list", shortCall, func(ctx context.Context) (err error) {
		found, err = r.client.ContainerList(ctx, container.ListOptions{All: true, Filters: r.own()})
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("list containers: %w", err)
	}
	unclaimed, unread := r.unclaimed(found, keep)
	if unread != nil {
		unread = fmt.Errorf("read whose containers are: %w", unread)
	}
	gone, err := r.removeAll(ctx, unclaimed)
	err = errors.Join(unread, err)
	if left := r.homes.sweep(func(t task.Token) bool {
		if isParking(t) {
			_, parked := r.parking.owner(t)
			return parked
		}
		return keep(t)
	}); left != nil {
		err = errors.Join(err, fmt.Errorf("remove directories of attempts: %w", left))
	}
	return gone, err
}

// unclaimed are the containers that are nobody's. What was parked is its
// attempt's, by this process's word or by the record. With an error it does not
// name what was parked by an earlier process: that may be an attempt's.
func (r *Runtime) unclaimed(found []container.Summary, keep func(task.Token) bool) (ids []string, err error) {
	var recorded map[string]task.Token // read once, if need be
	for _, c := range found {
		t, ok := tokenOf(c.Labels)
		if ok && isParking(t) {
			owner, known := r.parking.owner(t)
			if known && owner == (task.Token{}) {
				continue
			}
			if !known && recorded == nil && err == nil {
				recorded, err = r.homes.owners(keep)
			}
			if !known && err != nil {
				continue
			}
			switch {
			case !known:
				t, ok = recorded[c.ID]
			case !keep(owner):
				r.parking.drop(t) // what can't be removed now is nobody's the next time
				ok = false
			default:
				t = owner
			}
		}
		// Labels that make no token can be no attempt's.
		if !ok || !keep(t) {
			ids = append(ids, c.ID)
		}
	}
	return ids, err
}

// removeAll removes containers, a few at once, and says how many are gone.
func (r *Runtime) removeAll(ctx context.Context, ids []string) (int, error) {
	errs := make([]error, len(ids))
	slots := make(chan struct{}, reapers)
	var all sync.WaitGroup
	for i, id := range ids {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			errs[i] = r.remove(ctx, id)
		})
	}
	all.Wait()
	gone := 0
	for _, err := range errs {
		if err == nil {
			gone++
		}
	}
	return gone, errors.Join(errs...)
}

// sleep waits and reports whether it slept to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// boottime is the clock of leases.
func boottime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		panic(err) // every Linux has it; a lease by another clock would be a lie
	}
	return time.Duration(now.Nano())
}

// short is how people see a container's id.
func short(id string) string { return id[:min(12, len(id))] }
