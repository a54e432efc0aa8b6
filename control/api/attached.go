package api

import (
	"net/http"
	"slices"
	"strings"
	"sync"
)

// attached counts who is attached to tasks, and sends them away.
type attached struct {
	closing chan struct{} // closed when this node stops
	mu      sync.Mutex
	n       int
	closed  bool
	here    sync.WaitGroup
}

// enter lets one more in, or reports that there is no room.
func (a *attached) enter() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.n == maxAttached {
		return false
	}
	a.n++
	a.here.Add(1)
	return true
}

func (a *attached) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n--
	a.here.Done()
}

func (a *attached) close() {
	a.mu.Lock()
	if !a.closed {
		a.closed = true
		close(a.closing)
	}
	a.mu.Unlock()
	a.here.Wait()
}

// headerHas reports whether a header lists a word, in whatever case.
func headerHas(header http.Header, name, word string) bool {
	return slices.ContainsFunc(header.Values(name), func(list string) bool {
		return slices.ContainsFunc(strings.Split(list, ","), func(w string) bool { return strings.EqualFold(strings.TrimSpace(w), word) })
	})
}
