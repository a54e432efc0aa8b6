package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ecs/internal/daemon"
	"ecs/proto/api"
	"ecs/test/chaos/check"
	"ecs/test/chaos/procs"
)

const (
	clients          = 16                         // of tasks that are processes, at most
	fewClients       = 6                          // with whom a program starts at once
	containerClients = 3                          // of tasks in containers, one at a time each
	prober           = clients + containerClients // the client that looks when submissions are accepted again
	// mostOnAKey bounds the calls for one key: the search for their order grows
	// with them.
	mostOnAKey = 25
	callWithin = 6 * time.Second
	image      = "ecs-test/busybox:1"
)

// workload is what clients do, and the record of it.
type workload struct {
	c     *cluster
	quiet atomic.Bool // no fault yet
	mu    sync.Mutex
	ops   []check.Op
	tasks map[string]check.Task
	asked map[string]api.TaskRequest // by key
	// lasting: one task in so many may outlast a lease.
	lasting int
	clients int // of tasks that are processes
	told    int // tasks that clients have an id of
}

// accepted counts the tasks that clients were told of.
func (w *workload) accepted() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.told
}

// job is one task as a client asks for it.
type job struct {
	key     string
	request api.TaskRequest
	ids     string // "" until one is known
	calls   int
}

// run has all clients at work until ctx ends, and waits for them.
func (w *workload) run(ctx context.Context, seed uint64, withContainers bool) {
	var all sync.WaitGroup
	for i := range clients + containerClients {
		contained := i >= clients
		if contained && !withContainers {
			break
		}
		if i >= w.clients && !contained {
			continue
		}
		rng := rand.New(rand.NewPCG(seed, uint64(1000+i)))
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				w.task(ctx, rng, i, fmt.Sprintf("k%d-%d", i, n), contained)
			}
		})
	}
	all.Wait()
}

// task submits one and then does with it what clients do: post it again through
// other nodes, with another body, read it, cancel it, wait for it.
func (w *workload) task(ctx context.Context, rng *rand.Rand, client int, key string, contained bool) {
	j := &job{key: key}
	var want check.Task
	j.request, want = draw(rng, key, contained, w.lasting)
	w.mu.Lock()
	w.tasks[key], w.asked[key] = want, j.request
	w.mu.Unlock()
	// Some ask once only: where that was refused, there must be no task.
	most := mostOnAKey
	if rng.IntN(4) == 0 {
		most = 1
	}
	for ctx.Err() == nil && j.ids == "" && j.calls < most {
		w.submit(ctx, rng, client, j, "body")
		if j.ids == "" {
			pauseFor(ctx, time.Duration(100+rng.IntN(200))*time.Millisecond)
		}
	}
	if j.ids == "" {
		return
	}
	if rng.IntN(5) == 0 { // as one does whose connection broke
		var again sync.WaitGroup
		for range 2 {
			r := rand.New(rand.NewPCG(rng.Uint64(), 1))
			copied := *j
			again.Go(func() { w.submit(ctx, r, client, &copied, "body") })
		}
		again.Wait()
	}
	if rng.IntN(15) == 0 {
		w.submit(ctx, rng, client, j, "another body")
	}
	reads, between := rng.IntN(3), 700
	if contained {
		reads, between = 15, 2500 // until it has ended: the engine does a few at a time
	}
	for range reads {
		pauseFor(ctx, time.Duration(50+rng.IntN(between))*time.Millisecond)
		if w.get(ctx, rng, client, j) == finished && contained {
			return
		}
		if contained && rng.IntN(60) == 0 {
			break // and cancel it, perhaps
		}
	}
	if rng.IntN(15) == 0 {
		w.cancel(ctx, rng, client, j)
		w.get(ctx, rng, client, j)
	}
	pauseFor(ctx, time.Duration(rng.IntN(1500))*time.Millisecond)
	// A machine that is slower than the clients is to have a queue of some tasks, not
	// one of minutes: then every task would be late, and no fault's doing.
	for ctx.Err() == nil && j.calls < mostOnAKey && w.get(ctx, rng, client, j) == pending {
		pauseFor(ctx, second)
	}
}

// One task in so many may outlast a lease: usually, and where the end of leases is
// what is looked for.
const fewLast, manyLast = 8, 2

// draw chooses a task. One in lasting runs for so long that its lease may end first.
func draw(rng *rand.Rand, key string, contained bool, lasting int) (api.TaskRequest, check.Task) {
	length := time.Duration(100+rng.IntN(1900)) * time.Millisecond
	if rng.IntN(lasting) == 0 {
		length = time.Duration(5+rng.IntN(15)) * time.Second
	}
	want := check.Task{Key: key, Lease: 10 * time.Second, Infrastructure: 10}
	// Nothing is to end for want of tries.
	r := api.TaskRequest{Labels: map[string]string{"key": key}, Retry: api.Retry{Infrastructure: &want.Infrastructure},
		Timeouts: api.Timeouts{Queue: api.Duration(time.Hour), Run: api.Duration(10 * time.Minute)}}
	switch rng.IntN(8) {
	case 0, 1:
		want.AtMostOnce, want.Lease = true, 12*time.Second
		r.Delivery = api.DeliveryAtMostOnce
		r.Lease = api.Duration(want.Lease)
	case 2:
		want.Lease = 25 * time.Second
		r.Lease = api.Duration(want.Lease)
	case 3:
		want.Exit, want.Program = 3, rng.IntN(3)
		if want.Program > 0 {
			want.Backoff = time.Second
			r.Retry.Program, r.Retry.Backoff = want.Program, api.Duration(want.Backoff)
			r.Retry.OnExitCodes = []int{3}
		}
	case 4:
		want.Exit = 7
	}
	var stdout []byte
	if contained {
		r.Image, r.Placement.Zones = image, containerZones
		want.Start = 15 * time.Second                           // the engine does a few at a time
		length = min(max(length, 4*time.Second), 8*time.Second) // its witness is to be found, also on a busy machine
		stdout = fmt.Appendln(nil, key)
		script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do read up idle </proc/uptime; echo $up >>%s; usleep 50000; i=$((i+1)); done; echo %s; exit %d",
			length/(60*time.Millisecond), beatFile, key, want.Exit)
		r.Command = []string{"sh", "-c", script}
	} else {
		size := rng.IntN(20_000)
		want.Start = time.Second // of a process, where many are started on a busy machine
		r.Image, r.Placement.Zones = "chaos/beat:1", []string{"a", "b", "c"}
		r.Command = []string{"beat", length.String(), fmt.Sprint(want.Exit), fmt.Sprint(size)}
		if rng.IntN(3) == 0 || lasting == manyLast {
			r.Command = append(r.Command, procs.Late)
		}
		stdout = procs.Output(size)
	}
	want.Length = length
	sum := sha256.Sum256(stdout)
	want.Stdout = fmt.Sprintf("%d-%s", len(stdout), hex.EncodeToString(sum[:]))
	return r, want
}

func (w *workload) any(rng *rand.Rand) *node {
	return w.c.controls()[rng.IntN(len(w.c.controls()))]
}

func (w *workload) submit(ctx context.Context, rng *rand.Rand, client int, j *job, body string) {
	w.submitTo(ctx, w.any(rng), client, j, body)
}

func (w *workload) submitTo(ctx context.Context, n *node, client int, j *job, body string) {
	request := j.request
	if body != "body" {
		request.Env = []string{"OTHER=1"}
	}
	w.call(ctx, n, check.Op{Kind: check.Submit, Client: client, Key: j.key, Body: body}, j,
		func(ctx context.Context, c *api.Client) (*api.Task, error) {
			return c.Submit(ctx, request, api.SubmitOptions{Key: j.key})
		})
}

const pending, finished = "pending", "finished"

// get reads the task, and says what its state is, if it is told.
func (w *workload) get(ctx context.Context, rng *rand.Rand, client int, j *job) (state string) {
	return w.call(ctx, w.any(rng), check.Op{Kind: check.Get, Client: client, Key: j.key}, j,
		func(ctx context.Context, c *api.Client) (*api.Task, error) { return c.Get(ctx, j.ids) })
}

func (w *workload) cancel(ctx context.Context, rng *rand.Rand, client int, j *job) {
	w.call(ctx, w.any(rng), check.Op{Kind: check.Cancel, Client: client, Key: j.key}, j,
		func(ctx context.Context, c *api.Client) (*api.Task, error) { return c.Cancel(ctx, j.ids) })
}

// call makes one call of one node and notes what came of it.
func (w *workload) call(ctx context.Context, n *node, op check.Op, j *job, do func(context.Context, *api.Client) (*api.Task, error)) (state string) {
	if ctx.Err() != nil {
		return "" // it would be over before it began
	}
	// The end of the work cuts no call short: what it did would not be known.
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), callWithin)
	defer cancel()
	first := false
	j.calls++
	op.Node, op.Quiet, op.Call = n.name, w.quiet.Load(), daemon.Boottime()
	t, err := do(within, n.client)
	op.Return = daemon.Boottime()
	op.Quiet = op.Quiet && w.quiet.Load()
	if op.Result = resultOf(op.Kind, err); op.Result == check.OK {
		op.Seen = recordOf(t)
		if op.Kind == check.Submit && t != nil {
			first, j.ids = j.ids == "", t.ID
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ops = append(w.ops, op)
	if first {
		w.told++
	}
	return op.Seen.State
}

// notDone are the codes that promise that nothing was done. The checks hold them to
// it: behind any other a call may have been carried out.
var notDone = []api.Code{api.CodeBadRequest, api.CodeInvalidTask, api.CodeImageRef, api.CodeUnauthorized, api.CodeTooLarge,
	api.CodeMediaType, api.CodeUnschedulable, api.CodeQueueFull, api.CodeNoLeader}

// resultOf says what an error means for whether a call was carried out.
func resultOf(kind string, err error) string {
	var p *api.Problem
	var dial *net.OpError
	switch {
	case err == nil:
		return check.OK
	case errors.As(err, &p) && p.Code == api.CodeKeyConflict:
		return check.Conflict
	case errors.As(err, &p) && p.Code == api.CodeNotFound && kind != check.Submit:
		return check.OK // it is an answer: whoever was told of the task says that it is wrong
	case errors.As(err, &p) && slices.Contains(notDone, p.Code):
		return check.Failed
	case errors.As(err, &dial) && dial.Op == "dial":
		return check.Failed
	}
	return check.Unknown
}

// recordOf is a task as the checks take it; of none, an empty one.
func recordOf(t *api.Task) check.Record {
	if t == nil {
		return check.Record{}
	}
	r := check.Record{ID: t.ID, Key: t.Spec.Labels["key"], State: t.State, Stopping: t.Stopping != "", Outcome: t.Outcome, Exit: codeOf(t.ExitCode), Finished: t.FinishedAt}
	if t.Stdout != nil {
		r.Stdout = fmt.Sprintf("%d-%s", t.Stdout.Bytes, t.Stdout.SHA256)
	}
	for _, a := range t.Attempts {
		r.Attempts = append(r.Attempts, check.Attempt{Number: a.Number, Node: a.Node, Outcome: a.Outcome, Exit: codeOf(a.ExitCode), Placed: a.Placed, Ended: a.Ended})
	}
	return r
}

func codeOf(code *int) int {
	if code == nil {
		return -1
	}
	return *code
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d): // how long people and programs think
	case <-ctx.Done():
	}
}
