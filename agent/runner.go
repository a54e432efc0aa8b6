package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/armon/go-metrics"

	"ecs/agent/images"
	"ecs/agent/journal"
	"ecs/agent/runtime"
	"ecs/agent/spool"
	"ecs/agent/warm"
	"ecs/internal/task"
	"ecs/internal/telemetry"
)

const (
	// runningAfter is how long a program runs before the leader is told that it
	// does: a shorter one costs the log one entry less.
	runningAfter = 500 * time.Millisecond
	// createTimeout and startTimeout bound one call to an engine that hangs. A
	// start waits for its turn without limit other than the lease.
	createTimeout = time.Minute
	startTimeout  = time.Minute
	// drainTimeout is how long the runtime may take to deliver the end of a
	// program that was killed.
	drainTimeout = 10 * time.Second
	// limitSlack is how much later than its container the runner ends a
	// program at its run limit.
	limitSlack = time.Second
)

// order is one attempt as it was assigned.
type order struct {
	token   task.Token
	spec    task.Spec
	secrets task.Secrets
	cid     string
	owner   string
	trace   string // W3C traceparent, or empty
}

// kit is what every runner works with.
type kit struct {
	node       task.NodeID
	outputAddr string
	engine     runtime.Runtime
	images     Images
	warm       *warm.Pool
	spool      *spool.Spool
	journal    *journal.Journal
	lease      *lease
	reporter   *reporter
	health     *health
	removing   chan struct{} // one slot for each removal under way
	collecting chan struct{} // and for each attempt whose files are being collected
	log        *slog.Logger
	metrics    *metrics.Metrics
}

// runner takes one attempt from its image to its removal. Its fields belong to
// the goroutine of run; stop, abandon and part may be called by anyone.
type runner struct {
	*kit
	order
	log *slog.Logger

	// base outlives the attempt: what must be ended is ended under it. life
	// ends when the attempt is abandoned, work also when it is stopped.
	base    context.Context
	life    context.Context
	work    context.Context
	abandon context.CancelCauseFunc // no report
	stop    context.CancelCauseFunc // with a *stopped

	image     runtime.Image
	calm      func() // lets the pool park others beside the attempt
	entry     *spool.Entry
	securing  sync.WaitGroup                    // whoever is at entry.Secure
	container runtime.Container                 // nil until created
	live      atomic.Pointer[runtime.Container] // the same, once the program runs
	// hurry cuts the collecting of its files short; nil until that has begun.
	hurry atomic.Pointer[context.CancelCauseFunc]
	// left is what an earlier process wrote down; nil: the attempt is new.
	left *journal.Record
	// astray: there may be a container that has not been adopted yet.
	astray bool
	// begun is when the journal was told that the program may begin; zero:
	// it was not, and the attempt leaves no trace there.
	begun time.Time
	turn  func() // called when the start's turn has come
	// unsure: the engine did not say whether it started the program, and might
	// still do so.
	unsure bool
	// quiet: nothing of the program runs, and the engine has said so.
	quiet   bool
	removed bool
	// patience is when the report no longer waits for the engine to say so.
	patience time.Time
	// litter: the engine may hold a container that there is no handle for.
	litter bool

	digest    string
	startedAt time.Time
	endedAt   time.Time
	bill      task.Bill
}

// stopped is why an attempt is stopped, and what it is to end as.
type stopped struct {
	outcome task.Outcome
	reason  string
}

func (s *stopped) Error() string { return s.reason }

// Limits of the caller's that an attempt ran into.
var (
	errPullTime = errors.New("the image was not there in time")
	errRunTime  = errors.New("the program ran over its limit")
)

var errStartTime = errors.New("the engine did not start it in time")

var errImageGone = errors.New("the image vanished between its pull and its use")

func newRunner(k *kit, base context.Context, o order) *runner {
	r := &runner{kit: k, order: o, base: base,
		log: k.log.With("task", o.token.Task, "attempt", o.token.Attempt, "cid", o.cid, "owner", o.owner)}
	if id := telemetry.TraceID(o.trace); id != "" {
		r.log = r.log.With("trace", id)
	}
	r.life, r.abandon = context.WithCancelCause(base)
	r.work, r.stop = context.WithCancelCause(r.life)
	return r
}

// run takes the attempt through. ended is called once when it is over: with
// the result that is about to be reported, or nil when it was abandoned and
// nothing of it runs any more. What remains after that is removal.
func (r *runner) run(ended func(*task.Result)) {
	defer r.abandon(nil) // frees the contexts
	defer r.securing.Wait()
	r.calm = r.warm.Hurry()
	defer r.calm()
	exit, err := r.execute()
	result := r.conclude(exit, err)
	ended(result)
	var answered <-chan struct{}
	if result != nil {
		answered = r.reporter.finished(r.token, r.startedAt, result, r.bill, r.endedAt)
	}
	r.clean(answered)
}

// execute runs the attempt until its program has ended or it can't go on. An
// error is a *stopped, a limit, a *runtime.Failure, an abandonment, or the
// engine's.
func (r *runner) execute() (runtime.Exit, error) {
	if r.left != nil {
		r.calm()
		if err := r.adopt(); err != nil {
			return runtime.Exit{}, err
		}
		return r.wait()
	}
	r.entry = r.spool.Create(r.token, r.spec.MaxOutput)
	err := r.make()
	if errors.Is(err, errImageGone) {
		err = r.make()
	}
	if err == nil {
		err = r.start()
	}
	if errors.Is(err, runtime.ErrSpent) {
		err = r.startCold()
	}
	if err != nil {
		return runtime.Exit{}, err
	}
	return r.wait()
}

// may asks before every step whether the attempt may go on.
func (r *runner) may() error {
	if !r.lease.holds(r.token) {
		r.abandon(errLapsed)
	}
	return context.Cause(r.work)
}

// mayStart is asked when the start's turn has come, which can be long after it
// was asked for.
func (r *runner) mayStart() error {
	if err := r.may(); err != nil {
		return err
	}
	r.begun = time.Now()
	if err := r.writeDown(nil); err != nil {
		return err
	}
	if err := r.may(); err != nil {
		return err
	}
	r.turn()
	return nil
}

// make gets the image and a container: a parked one, or else a new one.
func (r *runner) make() error {
	if err := r.fetch(); err != nil {
		return err
	}
	taken, err := r.takeParked()
	if err != nil {
		return fmt.Errorf("create the container: %w", err)
	}
	if taken {
		return nil
	}
	return r.create()
}

// fetch gets the image.
func (r *runner) fetch() (err error) {
	if err := r.may(); err != nil {
		return err
	}
	if r.image, err = r.pull(); err != nil {
		return err
	}
	return r.may()
}

// what is the attempt as its container is to have it.
func (r *runner) what() runtime.Order {
	return runtime.Order{Token: r.token, CID: r.cid, Spec: r.spec, SecretEnv: r.secrets.Env, Image: r.image,
		Output: r.sink(), Deadline: r.deadline, May: r.mayStart}
}

// create makes a container for the attempt alone.
func (r *runner) create() (err error) {
	began := time.Now()
	defer func() { r.bill.Create += time.Since(began) }()
	ctx, cancel := context.WithTimeout(r.life, createTimeout)
	defer cancel()
	r.container, err = r.engine.Create(ctx, r.what())
	if err != nil {
		r.container = nil
		var known *runtime.Failure
		r.litter = !errors.As(err, &known)
		if errors.Is(err, runtime.ErrNoImage) {
			// No fault of the caller's: somebody cleaned up in between.
			return fmt.Errorf("create the container: %w", errImageGone)
		}
		return fmt.Errorf("create the container: %w", err)
	}
	return nil
}

// pull makes sure that the image is there and that the caller may use it.
func (r *runner) pull() (runtime.Image, error) {
	ctx := r.work
	if limit := r.spec.Timeouts.Pull; limit > 0 {
		limited, cancel := context.WithTimeoutCause(ctx, limit, errPullTime)
		defer cancel()
		ctx = limited
	}
	began := time.Now()
	image, err := r.images.Ensure(ctx, images.Request{Ref: r.spec.Image, Owner: r.owner, Auth: r.secrets.Auth})
	r.bill.Image += time.Since(began)
	switch {
	case err != nil && ctx.Err() != nil:
		return image, context.Cause(ctx)
	case err != nil:
		return image, fmt.Errorf("get image %s: %w", r.spec.Image, err)
	}
	r.digest = image.Digest
	r.health.used(r.spec.Image)
	return image, nil
}

func (r *runner) start() error {
	if err := r.may(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(r.life)
	defer cancel(nil)
	hung := time.AfterFunc(startTimeout, func() { cancel(errStartTime) })
	defer hung.Stop()
	hung.Stop() // until its turn has come
	r.turn = func() { hung.Reset(startTimeout) }
	began := time.Now()
	r.lease.bind(r.token, r.container.Renew) // a start may take as long as a lease
	err := r.container.Start(ctx)
	r.bill.Start = time.Since(began)
	if err == nil {
		r.startedAt = time.Now()
		r.goesOn()
		return nil
	}
	var known *runtime.Failure
	r.unsure = !errors.As(err, &known)
	if context.Cause(ctx) == errStartTime {
		err = fmt.Errorf("%w: %w", errStartTime, err)
	}
	return fmt.Errorf("start the container: %w", err)
}

// end is what a container's Wait gave.
type end struct {
	exit runtime.Exit
	err  error
}

// wait stays with the program until it has ended, by itself or because its
// time is up, it is stopped or it is abandoned.
func (r *runner) wait() (runtime.Exit, error) {
	ctx, cancel := context.WithCancel(r.base)
	defer cancel()
	ended := make(chan end, 1)
	go func() { // every path below receives from ended
		exit, err := r.container.Wait(ctx)
		ended <- end{exit, err}
	}()
	var limit <-chan time.Time
	if r.spec.Timeouts.Run > 0 {
		timer := time.NewTimer(r.backstop())
		defer timer.Stop()
		limit = timer.C
	}
	running := time.NewTimer(runningAfter)
	defer running.Stop()
	for {
		select {
		case e := <-ended:
			return e.exit, r.over(e)
		case <-running.C:
			r.calm()
			r.reporter.running(r.token, r.startedAt)
			r.securing.Go(r.entry.Secure) // should the agent end and then the container
		case <-limit:
			return r.cut(ended, cancel, errRunTime), errRunTime
		case <-r.work.Done():
			why := context.Cause(r.work)
			return r.cut(ended, cancel, why), why
		}
	}
}

// backstop is how long the program may go on before the runner ends it, should
// its container not do so at the run limit.
func (r *runner) backstop() time.Duration {
	left := r.spec.Timeouts.Run + limitSlack - time.Since(r.startedAt)
	if r.left != nil {
		left = max(left, drainTimeout) // it may have ended long ago
	}
	return left
}

// over takes the end of a program that nobody here brought about.
func (r *runner) over(e end) error {
	r.note(e)
	if e.err != nil {
		return fmt.Errorf("wait for the program: %w", e.err)
	}
	r.quiet = e.exit.Interrupted == ""
	if e.exit.Lapsed {
		r.lease.lapse(r.token)
		r.abandon(errLapsed)
		return errLapsed
	}
	return nil
}

// cut ends the program and waits for the rest of what it wrote.
func (r *runner) cut(ended <-chan end, giveUp context.CancelFunc, why error) runtime.Exit {
	r.writeStop(why)
	r.quenchSoon()
	if !r.quiet {
		giveUp()
	}
	drain := time.NewTimer(drainTimeout)
	defer drain.Stop()
	var e end
	select {
	case e = <-ended:
	case <-drain.C:
		giveUp()
		e = <-ended
	case <-r.life.Done():
		giveUp() // nobody wants the output of an abandoned attempt
		e = <-ended
	}
	r.note(e)
	return e.exit
}

// note fills the program's part of the bill. The engine's answer to a start may
// come after the program began, even after its end, and its word of the end
// some time after that; no moment is counted twice.
func (r *runner) note(e end) {
	asked, now := r.startedAt.Add(-r.bill.Start), time.Now()
	r.bill.Run, r.bill.Output = e.exit.Run, e.exit.Output
	if r.bill.Run <= 0 {
		r.bill.Run = now.Sub(r.startedAt)
	}
	r.endedAt = now
	if began := e.exit.StartedAt; !began.IsZero() {
		r.startedAt = began
		if last := began.Add(r.bill.Run + r.bill.Output); last.After(asked) && last.Before(now) {
			r.endedAt = now.Add(-now.Sub(last))
		}
	}
	r.bill.Start = max(0, min(r.bill.Start, r.endedAt.Sub(asked)-r.bill.Run-r.bill.Output))
}
