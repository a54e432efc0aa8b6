package agent

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"ecs/agent/images"
	"ecs/agent/warm"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

const (
	// wishAgain is how often wishes are looked after while there are any: their
	// images may have gone or moved, and the pool may have forgotten them.
	wishAgain = 10 * time.Second
	// wishPull bounds one pull for a wish.
	wishPull = task.DefaultPull
	// maxWishes bounds what is taken of a leader's word.
	maxWishes = 64
)

// wish is this node's share of what is wished to be started ahead.
type wish struct {
	spec  task.Spec
	owner string
	count int
}

// wishes keeps the pool to what the leader last said that is wished of this node,
// and gets the images for it. Its methods are safe for concurrent use.
type wishes struct {
	images  Images
	pool    *warm.Pool
	log     *slog.Logger
	changed chan struct{} // one slot

	mu  sync.Mutex
	all []wish // not changed but replaced
}

func newWishes(images Images, pool *warm.Pool, log *slog.Logger) *wishes {
	return &wishes{images: images, pool: pool, log: log, changed: make(chan struct{}, 1)}
}

// hear takes what a heartbeat's answer said. It does not block.
func (w *wishes) hear(list []*ecsv1.Wish) {
	var all []wish
	for _, m := range list[:min(len(list), maxWishes)] {
		all = append(all, wish{spec: taskwire.ToSpec(m.GetSpec()), owner: m.GetOwner(), count: int(min(m.GetCount(), MaxWarmCount))})
	}
	w.mu.Lock()
	same := slices.EqualFunc(all, w.all, func(a, b wish) bool {
		return a.spec.Shape() == b.spec.Shape() && a.owner == b.owner && a.count == b.count
	})
	w.all = all
	w.mu.Unlock()
	if !same {
		poke(w.changed)
	}
}

func (w *wishes) present() []wish {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all
}

// run fulfils wishes until ctx ends. A change of them ends what is under way for
// those before.
func (w *wishes) run(ctx context.Context) {
	ids := map[string]string{}
	for ctx.Err() == nil {
		work, stop := context.WithCancel(ctx)
		all := w.present()
		maps.DeleteFunc(ids, func(image, _ string) bool {
			return !slices.ContainsFunc(all, func(one wish) bool { return one.spec.Image == image })
		})
		done := make(chan struct{})
		go func() { // every way on waits for it
			defer close(done)
			w.fulfil(work, all, ids)
		}()
		w.rest(ctx, len(all) > 0, done)
		stop()
		<-done
	}
}

// rest waits until there is something to do anew.
func (w *wishes) rest(ctx context.Context, any bool, done <-chan struct{}) {
	select {
	case <-w.changed:
		return
	case <-done:
	case <-ctx.Done():
		return
	}
	var again <-chan time.Time // never, where nothing is wished for
	if any {
		timer := time.NewTimer(wishAgain)
		defer timer.Stop()
		again = timer.C
	}
	select {
	case <-w.changed:
	case <-again:
	case <-ctx.Done():
	}
}

// fulfil wishes at once for containers of the images whose ids are known, and for
// those of the others as they come.
func (w *wishes) fulfil(ctx context.Context, all []wish, ids map[string]string) {
	var mu sync.Mutex // of ids
	tell := func() {
		var found []warm.Wish
		for _, one := range all {
			if id := ids[one.spec.Image]; id != "" {
				found = append(found, warm.Wish{Spec: one.spec, Image: id, Count: one.count})
			}
		}
		w.pool.Wish(found)
	}
	tell()
	var pulls sync.WaitGroup
	defer pulls.Wait()
	for _, one := range all {
		pulls.Go(func() {
			limited, cancel := context.WithTimeout(ctx, wishPull)
			defer cancel()
			image, err := w.images.Ensure(limited, images.Request{Ref: one.spec.Image, Owner: one.owner})
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				w.log.Warn("no containers started ahead as wished", "image", one.spec.Image, "err", err)
			}
			mu.Lock()
			defer mu.Unlock()
			ids[one.spec.Image] = image.ID // none: it is parked no more
			tell()
		})
	}
}
