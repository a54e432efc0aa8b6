package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"ecs/agent/images"
	"ecs/agent/runtime"
	"ecs/internal/task"
)

// engine is a container engine whose every call can be made to hang or fail.
// Its programs are the words of Spec.Command: print TEXT, sleep DURATION,
// spew BYTES, exit CODE, oom, vanish; several steps separated by ";".
type engine struct {
	mu         sync.Mutex
	containers map[task.Token]*container
	runs       []*ran
	calls      []string // "create", "kill", ... in order
	faults     map[string]func(context.Context) error
	takes      map[string]time.Duration
	engine     runtime.Engine
}

// ran is one run of a program.
type ran struct {
	token      task.Token
	start, end time.Time // end is zero while it runs
}

func newEngine() *engine {
	return &engine{containers: map[task.Token]*container{}, faults: map[string]func(context.Context) error{},
		takes: map[string]time.Duration{}, engine: runtime.Engine{Description: "scripted", Egress: true}}
}

// fail makes every call of that name fail; nil heals it.
func (e *engine) fail(call string, err error) {
	e.fault(call, func(context.Context) error { return err })
}

// hang makes every call of that name wait for its context.
func (e *engine) hang(call string) {
	e.fault(call, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
}

func (e *engine) heal(call string) { e.fault(call, nil) }

func (e *engine) fault(call string, f func(context.Context) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults[call] = f
}

// slow makes every call of that name take that long.
func (e *engine) slow(call string, d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.takes[call] = d
}

func (e *engine) enter(ctx context.Context, call string) error {
	e.mu.Lock()
	e.calls = append(e.calls, call)
	fault, takes := e.faults[call], e.takes[call]
	e.mu.Unlock()
	if takes > 0 {
		sleep(ctx, takes)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if fault != nil {
		return fault(ctx)
	}
	return ctx.Err()
}

func (e *engine) count(call string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.calls {
		if c == call {
			n++
		}
	}
	return n
}

// left is how many containers the engine holds.
func (e *engine) left() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.containers)
}

// alive names the attempts whose program runs.
func (e *engine) alive() (tokens []task.Token) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.runs {
		if r.end.IsZero() {
			tokens = append(tokens, r.token)
		}
	}
	return tokens
}

// history gives the runs of an attempt.
func (e *engine) history(tok task.Token) (runs []ran) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.runs {
		if r.token == tok {
			runs = append(runs, *r)
		}
	}
	return runs
}

func (e *engine) Probe(ctx context.Context) (runtime.Engine, error) {
	return e.engine, e.enter(ctx, "probe")
}

func (e *engine) Create(ctx context.Context, o runtime.Order) (runtime.Container, error) {
	if err := e.enter(ctx, "create"); err != nil {
		return nil, err
	}
	c := &container{engine: e, order: o, killed: make(chan struct{}), ended: make(chan struct{})}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.containers[o.Token] = c
	return c, nil
}

// Park is never possible: what the pool does is tested with the fake runtime.
func (e *engine) Park(ctx context.Context, _ runtime.Parking) (runtime.Parked, error) {
	if err := e.enter(ctx, "park"); err != nil {
		return nil, err
	}
	return nil, errors.New("nothing can be parked here")
}

func (e *engine) Reap(ctx context.Context, keep func(task.Token) bool) (int, error) {
	if err := e.enter(ctx, "reap"); err != nil {
		return 0, err
	}
	e.mu.Lock()
	var gone []*container
	for tok, c := range e.containers {
		if !keep(tok) {
			gone = append(gone, c)
		}
	}
	e.mu.Unlock()
	for _, c := range gone {
		c.remove()
	}
	return len(gone), nil
}

func (e *engine) Adopt(context.Context, runtime.Adoption) (runtime.Container, error) {
	return nil, runtime.ErrGone
}

func (c *container) Renew(time.Duration)                          {}
func (c *container) Input(context.Context, []byte, bool) error    { return runtime.ErrNoInput }
func (c *container) Resize(context.Context, uint16, uint16) error { return nil }
func (c *container) Signal(context.Context, syscall.Signal) error { return nil }
func (c *container) CopyOut(context.Context, string) (io.ReadCloser, error) {
	return nil, runtime.ErrNoPath
}

type container struct {
	engine *engine
	order  runtime.Order
	once   sync.Once
	killed chan struct{}
	ended  chan struct{}
	begun  bool // under engine.mu
	exit   runtime.Exit
}

func (c *container) Start(ctx context.Context) error {
	if err := c.engine.enter(ctx, "turn"); err != nil {
		return err
	}
	if c.order.May != nil {
		if err := c.order.May(); err != nil {
			return err
		}
	}
	err := c.engine.enter(ctx, "start")
	var known *runtime.Failure
	if errors.As(err, &known) {
		return err
	}
	if err != nil && !errors.Is(err, errLateStart) {
		return err
	}
	if err == nil {
		c.begin()
		return nil
	}
	// The answer is lost, and the engine gets to it later.
	go func() {
		time.Sleep(3 * time.Second)
		c.begin()
	}()
	return err
}

// errLateStart makes Start fail while the engine starts the program later.
var errLateStart = errors.New("the answer was lost")

func (c *container) begin() {
	e := c.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.containers[c.order.Token] != c || c.begun {
		return
	}
	c.begun = true
	r := &ran{token: c.order.Token, start: time.Now()}
	e.runs = append(e.runs, r)
	go func() {
		exit := c.program()
		e.mu.Lock()
		r.end = time.Now()
		c.exit = exit
		c.exit.StartedAt, c.exit.Run = r.start, r.end.Sub(r.start)
		e.mu.Unlock()
		close(c.ended)
	}()
}

func (c *container) program() runtime.Exit {
	for _, step := range strings.Split(strings.Join(c.order.Spec.Command, " "), ";") {
		words := strings.Fields(step)
		switch words[0] {
		case "print":
			fmt.Fprint(c.order.Output.Stdout, words[1])
		case "spew":
			n, _ := strconv.Atoi(words[1])
			_, _ = c.order.Output.Stdout.Write(make([]byte, n))
		case "sleep":
			d, _ := time.ParseDuration(words[1])
			timer := time.NewTimer(d)
			select {
			case <-timer.C:
			case <-c.killed:
				timer.Stop()
				return runtime.Exit{Code: sigkilled, Signal: "SIGKILL"}
			}
		case "exit":
			code, _ := strconv.Atoi(words[1])
			return runtime.Exit{Code: code}
		case "oom":
			return runtime.Exit{Code: sigkilled, Signal: "SIGKILL", OOMKilled: true}
		case "vanish":
			return runtime.Exit{Interrupted: "somebody removed the container"}
		}
	}
	return runtime.Exit{}
}

func (c *container) Wait(ctx context.Context) (runtime.Exit, error) {
	if err := c.engine.enter(ctx, "wait"); err != nil {
		return runtime.Exit{}, err
	}
	select {
	case <-c.ended:
		return c.exit, nil
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	}
}

func (c *container) Kill(ctx context.Context) error {
	if err := c.engine.enter(ctx, "kill"); err != nil {
		return err
	}
	c.end()
	return nil
}

func (c *container) Remove(ctx context.Context) error {
	if err := c.engine.enter(ctx, "remove"); err != nil {
		return err
	}
	c.remove()
	return nil
}

func (c *container) remove() {
	c.engine.mu.Lock()
	if c.engine.containers[c.order.Token] == c {
		delete(c.engine.containers, c.order.Token)
	}
	c.engine.mu.Unlock()
	c.end()
}

func (c *container) end() {
	c.once.Do(func() { close(c.killed) })
	c.engine.mu.Lock()
	begun := c.begun
	c.engine.mu.Unlock()
	if begun {
		<-c.ended
	}
}

// library is a set of images: "slow" never comes, "missing" is missing, and
// whatever else is asked for is there.
type library struct {
	mu   sync.Mutex
	held []string
}

func (l *library) Ensure(ctx context.Context, r images.Request) (runtime.Image, error) {
	switch r.Ref {
	case "slow":
		<-ctx.Done()
		return runtime.Image{}, fmt.Errorf("pull: %w", ctx.Err())
	case "missing":
		return runtime.Image{}, &runtime.Failure{Outcome: task.ImageNotFound, Reason: "no such image"}
	case "broken":
		return runtime.Image{}, errors.New("the engine fell over")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.held, r.Ref) {
		l.held = append(l.held, r.Ref)
	}
	return runtime.Image{ID: "sha256:id", Digest: "sha256:" + r.Ref}, nil
}

func (l *library) Present(context.Context) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.held)
}
