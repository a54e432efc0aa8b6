package images

import (
	"context"
	"sync"
)

// flights lets callers who want the same thing at the same time share one
// attempt at it. The zero value is ready.
type flights[K comparable, V any] struct {
	mu    sync.Mutex
	under map[K]*flight[V]
}

// flight is one attempt. It lives as long as somebody waits for it.
type flight[V any] struct {
	waiters int // under flights.mu
	cancel  context.CancelFunc
	done    chan struct{}
	value   V // valid once done is closed, as is err
	err     error
}

// do returns what work says, run now or already under way for another caller of
// the same key. It returns at ctx's end, with ctx's error; the work goes on for
// whoever else waits, and when nobody does its own context ends and do waits
// for it.
func (f *flights[K, V]) do(ctx context.Context, key K, work func(context.Context) (V, error)) (V, error) {
	f.mu.Lock()
	if f.under == nil {
		f.under = map[K]*flight[V]{}
	}
	fl, ok := f.under[key]
	if !ok {
		shared, cancel := context.WithCancel(context.WithoutCancel(ctx))
		fl = &flight[V]{cancel: cancel, done: make(chan struct{})}
		f.under[key] = fl
		go func() {
			fl.value, fl.err = work(shared)
			f.mu.Lock()
			f.forget(key, fl)
			f.mu.Unlock()
			close(fl.done)
		}()
	}
	fl.waiters++
	f.mu.Unlock()

	var ended error
	select {
	case <-fl.done:
	case <-ctx.Done():
		ended = ctx.Err()
	}
	f.mu.Lock()
	fl.waiters--
	last := fl.waiters == 0
	if last {
		f.forget(key, fl)
	}
	f.mu.Unlock()
	if last {
		fl.cancel()
		<-fl.done
	}
	if ended != nil {
		var none V
		return none, ended
	}
	return fl.value, fl.err
}

// forget keeps newcomers from joining fl. It needs mu.
func (f *flights[K, V]) forget(key K, fl *flight[V]) {
	if f.under[key] == fl {
		delete(f.under, key)
	}
}
