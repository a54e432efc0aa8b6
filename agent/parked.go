package agent

import (
	"context"
	"time"

	"ecs/agent/warm"
)

// takeParked takes a container that was started ahead, if the pool has one. What
// goes wrong with that costs the attempt nothing but some time.
func (r *runner) takeParked() bool {
	parked, why := r.warm.Take(&r.spec, r.image.ID)
	r.bill.Warm = why
	if parked == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(r.life, createTimeout)
	defer cancel()
	container, err := parked.Bind(ctx, r.what())
	if err != nil {
		r.warm.Drop(parked)
		r.bill.Warm = warm.Ended
		r.log.Debug("parked container not bound", "err", err)
		return false
	}
	r.container = container
	return true
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
	err = r.create()
	r.bill.Create += time.Since(began)
	if err != nil {
		return err
	}
	return r.start()
}
