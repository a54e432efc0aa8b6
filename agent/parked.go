package agent

import (
	"context"
	"errors"
	"time"

	"ecs/agent/runtime"
	"ecs/agent/warm"
)

// takeParked takes a container that was started ahead, if the pool has one. What
// goes wrong with that costs the attempt nothing but some time; an error is a
// *runtime.Failure.
func (r *runner) takeParked() (taken bool, err error) {
	parked, why := r.warm.Take(&r.spec, r.image.ID)
	r.bill.Warm = why
	if parked == nil {
		return false, nil
	}
	began := time.Now()
	defer func() { r.bill.Create += time.Since(began) }()
	ctx, cancel := context.WithTimeout(r.life, createTimeout)
	defer cancel()
	container, err := parked.Bind(ctx, r.what())
	if f := new(runtime.Failure); errors.As(err, &f) && !errors.Is(err, runtime.ErrNoImage) {
		if !r.warm.Return(parked, &r.spec, r.image.ID) {
			if err := parked.Remove(ctx); err != nil { // the sweeper looks for it then
				r.log.Warn("parked container not removed", "err", err)
			}
		}
		r.bill.Warm = "" // none was used
		return false, f
	}
	if err != nil {
		r.warm.Drop(parked)
		r.bill.Warm = warm.Ended
		r.log.Debug("parked container not bound", "err", err)
		return false, nil
	}
	r.container = container
	return true, nil
}

// startCold takes the place of the start of a parked container that has ended
// before the program could begin.
func (r *runner) startCold() error {
	if err := r.may(); err != nil {
		return err
	}
	r.log.Info("parked container ended before its task began")
	r.bill.Warm = warm.Ended
	began := time.Now()
	ctx, cancel := context.WithTimeout(r.life, removeTimeout)
	err := r.container.Remove(ctx)
	cancel()
	if err != nil {
		r.litter = true
		r.log.Warn("parked container not removed", "err", err)
	}
	r.unsure = false
	r.bill.Create += time.Since(began)
	if err = r.create(); errors.Is(err, errImageGone) {
		if err = r.fetch(); err == nil {
			err = r.create()
		}
	}
	if err != nil {
		return err
	}
	return r.start()
}
