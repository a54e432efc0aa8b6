package docker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"ecs/agent/runtime"
)

const (
	// lookupFor is how long a look-up of an image is believed at most: Engine 20.10
	// says nothing when BuildKit gives a name to another image. refresh is how often
	// it is looked up anew, beside the tasks, while any has asked for it within
	// wantedFor.
	lookupFor = 1500 * time.Millisecond
	refresh   = time.Second
	wantedFor = time.Minute
	// maxLookups bounds those that are remembered.
	maxLookups = 256
	// rewatch is how long it takes until an engine that broke off is listened to
	// again.
	rewatch = time.Second
)

// lookups remembers which images the engine holds under which names, for as long
// as it listens to the engine and the engine says of no image that anything
// happened to it: a name that means another image, or none, is asked for anew. The
// zero value remembers nothing until watch runs.
type lookups struct {
	mu        sync.Mutex
	started   bool
	listening bool
	version   uint64 // of all that was forgotten
	known     map[string]*lookup
}

type lookup struct {
	image  runtime.StoredImage
	until  time.Time
	wanted time.Time // when a task asked for it last
}

// get also gives the version that put has to name.
func (l *lookups) get(ref string) (image runtime.StoredImage, known bool, version uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	found := l.known[ref]
	if found == nil {
		return runtime.StoredImage{}, false, l.version
	}
	found.wanted = now
	return found.image, now.Before(found.until), l.version
}

// put remembers what the engine said since get or wanted gave the version, unless
// something happened meanwhile.
func (l *lookups) put(ref string, image runtime.StoredImage, version uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.listening || l.version != version {
		return
	}
	now := time.Now()
	found := l.known[ref]
	if found == nil {
		if l.known == nil || len(l.known) >= maxLookups {
			l.known = map[string]*lookup{}
		}
		found = &lookup{wanted: now}
		l.known[ref] = found
	}
	found.image, found.until = image, now.Add(lookupFor)
}

// wanted gives what is worth looking up anew, and forgets the rest.
func (l *lookups) wanted() (refs []string, version uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ref, found := range l.known {
		if time.Since(found.wanted) > wantedFor {
			delete(l.known, ref)
		} else {
			refs = append(refs, ref)
		}
	}
	return refs, l.version
}

// forget forgets all of them.
func (l *lookups) forget() { l.hear(nil) }

// hear forgets all, and notes whether the engine is listened to from now on; nil:
// as before.
func (l *lookups) hear(listening *bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if listening != nil {
		l.listening = *listening
	}
	l.version++
	clear(l.known)
}

// begin reports whether the caller is the one to watch.
func (l *lookups) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := !l.started
	l.started = true
	return first
}

// watchImages begins to listen to what happens to images, once. It ends with the
// Runtime.
func (r *Runtime) watchImages() {
	if r.life.Err() != nil || !r.lookups.begin() {
		return
	}
	r.tasks.Go(func() {
		for r.life.Err() == nil {
			err := r.hearImages(r.life)
			r.log.Debug("the engine is not listened to", "err", err)
			sleep(r.life, rewatch)
		}
	})
}

// hearImages listens until the engine breaks off.
func (r *Runtime) hearImages(ctx context.Context) error {
	// The client must know the engine's version by then: Events reads it beside
	// whatever call learns it.
	err := r.call(ctx, "version", shortCall, func(ctx context.Context) error {
		_, err := r.client.ServerVersion(ctx)
		return err
	})
	if err != nil {
		return err
	}
	// The engine answers before it listens itself. What happened since this moment
	// it tells all the same.
	now := time.Now()
	heard, broken := r.client.Events(ctx, events.ListOptions{
		Since:   fmt.Sprintf("%d.%09d", now.Unix(), now.Nanosecond()),
		Filters: filters.NewArgs(filters.Arg("type", string(events.ImageEventType))),
	})
	select {
	case err := <-broken:
		return err
	default:
	}
	listening := true
	r.lookups.hear(&listening)
	defer func() {
		listening = false
		r.lookups.hear(&listening)
	}()
	again := time.NewTicker(refresh)
	defer again.Stop()
	for {
		select {
		case <-heard:
			r.lookups.forget()
		case <-again.C:
			refs, version := r.lookups.wanted()
			for _, ref := range refs {
				if found, err := r.lookUp(ctx, ref); err == nil {
					r.lookups.put(ref, found, version)
				} else {
					r.lookups.forget()
				}
			}
		case err := <-broken:
			return err
		}
	}
}
