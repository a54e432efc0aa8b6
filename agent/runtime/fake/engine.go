// Package fake is a container engine in memory for tests of whole clusters. It
// passes the same conformance suite as the real one, uses the package time
// only, and so runs inside testing/synctest.
//
// A program is Spec.Command read as a script: steps of words, parted by ";".
//
//	print WORD...    the words on stdout, no newline
//	eprint WORD...   the same on stderr
//	echo WORD...     the same on stdout with a newline
//	bytes            every byte value once
//	lines N          N numbered lines, even ones on stdout, odd ones on stderr
//	spew N           N bytes on stdout
//	sleep DURATION
//	exit CODE
//	signal NAME      ended by that signal
//	oom              killed for want of memory
//	cat              copies the standard input to the standard output
//	size             the terminal's rows and columns on stdout
//	write PATH WORD...  makes a file of the words, with its directories
//	fill PATH N      a file of N bytes
//	mkdir PATH
//	link PATH TARGET a symbolic link
//
// A first word that is none of these is a command that the image does not have.
//
// Programs and what they write outlive the agent: see Orphan.
package fake

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

// defaultNode is whose containers the Engine's own methods make.
const defaultNode = "node"

// Engine is one engine on one machine. It is safe for concurrent use.
type Engine struct {
	mu struct {
		sync.Mutex
		containers map[name]*container
		history    []*Run // in the order of their starts
		processes  map[string]*process
		now        func() time.Duration
		down       error
		create     time.Duration
		start      time.Duration
		copying    time.Duration
		kill       time.Duration // the longest
		rand       *rand.Rand
		made       int64 // containers so far
	}
	images *Images
}

// name is what an engine knows a container by: one at a time for each.
type name struct {
	task    task.ID
	attempt int
}

// Run is one run of a program.
type Run struct {
	Token     task.Token
	Container int64 // the number of the container that it ran in
	StartedAt time.Time
	EndedAt   time.Time // zero while it runs
	// Lease is when the attempt's lease ended as the container last knew it;
	// zero without one.
	Lease time.Time
}

// process is one life of an agent.
type process struct{ dead chan struct{} }

var _ runtime.Runtime = (*Engine)(nil)

// NewEngine makes an engine without containers.
func NewEngine() *Engine {
	e := &Engine{images: newImages()}
	e.mu.containers, e.mu.processes = map[name]*container{}, map[string]*process{}
	began := time.Now()
	e.mu.now = func() time.Duration { return time.Since(began) }
	return e
}

// SetClock sets the clock that leases are counted by.
func (e *Engine) SetClock(now func() time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.now = now
}

// Now reads that clock: the time since the engine was made, unless it was set.
func (e *Engine) Now() time.Duration {
	e.mu.Lock()
	now := e.mu.now
	e.mu.Unlock()
	return now()
}

// For gives another agent's view of the engine, in its present life.
func (e *Engine) For(node string) runtime.Runtime {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.processes[node] == nil {
		e.mu.processes[node] = &process{dead: make(chan struct{})}
	}
	return view{e, node, e.mu.processes[node]}
}

// Orphan is the end of an agent's process: whatever it has under way, or begins,
// hangs until its context ends, and what its programs write waits for the next
// process to adopt them. The engine's own methods are that of an agent "".
func (e *Engine) Orphan(node string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if node == "" {
		node = defaultNode
	}
	if p := e.mu.processes[node]; p != nil {
		close(p.dead)
		delete(e.mu.processes, node)
	}
	for _, c := range e.mu.containers {
		if c.node == node {
			for _, s := range c.streams {
				s.detach()
			}
		}
	}
}

// Images is what takes the place of package images.
func (e *Engine) Images() *Images { return e.images }

// History tells every run there was, crashes or not, in the order of their
// starts: the witness of what really ran when.
func (e *Engine) History() []Run {
	e.mu.Lock()
	defer e.mu.Unlock()
	runs := make([]Run, len(e.mu.history))
	for i, r := range e.mu.history {
		runs[i] = *r
	}
	return runs
}

// Crash is the end of the machine: every program ends at once, nobody is told,
// and the engine comes back with nothing. Waits under way go on until their
// context ends or their container is killed.
func (e *Engine) Crash() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.mu.containers {
		c.crash()
		if c.berth != nil {
			c.berth.leave()
		}
	}
	clear(e.mu.containers)
}

// SetDown makes every call fail with err until it is set to nil. Programs go
// on.
func (e *Engine) SetDown(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.down = err
}

// Slow makes every create and start take as long.
func (e *Engine) Slow(create, start time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.create, e.mu.start = create, start
}

// SlowCopy makes every piece of what is copied out of a container take as long.
func (e *Engine) SlowCopy(piece time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.copying = piece
}

// SlowKill makes every end of a program that somebody else brings about take up
// to most, drawn from seed; the program goes on meanwhile.
func (e *Engine) SlowKill(most time.Duration, seed uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.kill, e.mu.rand = most, rand.New(rand.NewPCG(seed, seed))
}

// KillFromOutside ends a program as somebody else with access to the engine
// may, and reports whether it ran.
func (e *Engine) KillFromOutside(tok task.Token) bool {
	c := e.find(tok)
	return c != nil && c.interrupt("somebody killed the container (SIGKILL)")
}

// RemoveFromOutside does the same and removes the container too.
func (e *Engine) RemoveFromOutside(tok task.Token) bool {
	c := e.find(tok)
	if c == nil {
		return false
	}
	c.interrupt("somebody removed the container")
	e.drop(c)
	return true
}

// Forget keeps a container from hearing of its lease any more.
func (e *Engine) Forget(tok task.Token) {
	if c := e.find(tok); c != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.mu.deaf = true
	}
}

// Containers are a node's attempts that have one, or everybody's when node is
// empty.
func (e *Engine) Containers(node string) []task.Token {
	e.mu.Lock()
	defer e.mu.Unlock()
	var tokens []task.Token
	for _, c := range e.mu.containers {
		if node == "" || c.node == node {
			tokens = append(tokens, c.tok)
		}
	}
	slices.SortFunc(tokens, compare)
	return tokens
}

func compare(a, b task.Token) int {
	return cmp.Or(cmp.Compare(a.Task, b.Task), cmp.Compare(a.Attempt, b.Attempt))
}

func (e *Engine) find(tok task.Token) *container {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mu.containers[name{tok.Task, tok.Attempt}]
}

// drop forgets a container.
func (e *Engine) drop(c *container) {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := name{c.tok.Task, c.tok.Attempt}
	if e.mu.containers[key] == c {
		delete(e.mu.containers, key)
	}
}

// Probe implements runtime.Runtime.
func (e *Engine) Probe(ctx context.Context) (runtime.Engine, error) {
	return e.For(defaultNode).Probe(ctx)
}

// Create implements runtime.Runtime.
func (e *Engine) Create(ctx context.Context, o runtime.Order) (runtime.Container, error) {
	return e.For(defaultNode).Create(ctx, o)
}

// Park implements runtime.Runtime.
func (e *Engine) Park(ctx context.Context, p runtime.Parking) (runtime.Parked, error) {
	return e.For(defaultNode).Park(ctx, p)
}

// Adopt implements runtime.Runtime.
func (e *Engine) Adopt(ctx context.Context, a runtime.Adoption) (runtime.Container, error) {
	return e.For(defaultNode).Adopt(ctx, a)
}

// Reap implements runtime.Runtime.
func (e *Engine) Reap(ctx context.Context, keep func(task.Token) bool) (int, error) {
	return e.For(defaultNode).Reap(ctx, keep)
}

// delays are how long calls take now.
type delays struct{ create, start, copying time.Duration }

func (e *Engine) delays() delays {
	e.mu.Lock()
	defer e.mu.Unlock()
	return delays{create: e.mu.create, start: e.mu.start, copying: e.mu.copying}
}

// lingers draws how long a program takes to end.
func (e *Engine) lingers() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.kill <= 0 {
		return 0
	}
	return time.Duration(e.mu.rand.Int64N(int64(e.mu.kill) + 1))
}

// sleep waits, also for no time at all, unless ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func startFailed(reason string) *runtime.Failure {
	return &runtime.Failure{Outcome: task.StartFailed, Reason: reason}
}
