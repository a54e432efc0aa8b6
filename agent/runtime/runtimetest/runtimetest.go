// Package runtimetest is the conformance suite of package runtime: whoever
// implements Runtime passes it, so that what the agent is tested against and
// what it runs with are the same thing.
package runtimetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

// Harness is one engine under test, fresh for each test.
type Harness struct {
	// Runtime and Other are two agents on the same engine.
	Runtime, Other runtime.Runtime
	// Restart ends the process that Runtime's agent is, as a kill of it would,
	// and gives what its next process has in place of Runtime: everything that
	// was made before is dead, writes to no sink any more, and may be adopted. It
	// may be called again.
	Restart func(t *testing.T) runtime.Runtime
	// Now is the clock of leases.
	Now func() time.Duration
	// Image holds a program that understands scripts of the steps print,
	// eprint, echo, bytes, lines, spew, cat, exit, sleep, signal and oom, parted
	// by ";" (see test/images/prog).
	Image runtime.Image
	// Program gives the command that runs a script.
	Program func(script ...string) []string
	// Leave gives an image and the command that leaves files, with the directories
	// that lead to them, prints "left" and sleeps.
	Leave func(sleep string, files ...File) (runtime.Image, []string)
	// Missing is a command that the image does not have.
	Missing []string
	// Strike does to a container what somebody with access to the engine may.
	Strike func(t *testing.T, tok task.Token, how Strike)
	// StrikeParked kills every container of the Runtime's agent that waits for an
	// attempt, or for the Start of one, as somebody with access to the engine may.
	StrikeParked func(t *testing.T)
	// Count is how many containers the Runtime's agent has on the engine.
	Count func(t *testing.T) int
}

// Strike is something done to a container behind the agent's back.
type Strike string

// The strikes.
const (
	KillIt   Strike = "kill"
	RemoveIt Strike = "remove"
)

// patience bounds every single thing that a test waits for.
const patience = time.Minute

// Run runs the suite. fresh is called once a test.
func Run(t *testing.T, fresh func(*testing.T) Harness) {
	tests := []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"ExitCodes", exitCodes},
		{"ProgramThatSignalEnded", signalEnded},
		{"NoSuchCommand", noSuchCommand},
		{"BadUser", badUser},
		{"OutOfMemory", outOfMemory},
		{"OutputIsExact", outputIsExact},
		{"LinesStayInOrder", linesStayInOrder},
		{"OutputBeyondTheCap", outputBeyondTheCap},
		{"StalledReaderLosesNothing", stalledReader},
		{"TimesAreTheProgramsOwn", times},
		{"KillEndsAndIsIdempotent", killIsIdempotent},
		{"KilledBeforeStart", killedBeforeStart},
		{"StartAsksWhetherItMay", startAsks},
		{"WaitEndsWithItsContext", waitEndsWithContext},
		{"RemoveIsIdempotentInAnyState", removeAnyState},
		{"CreateReplacesWhatWasLeft", createReplaces},
		{"ReapSparesTheClaimedAndTheForeign", reap},
		{"KilledFromOutside", killedFromOutside},
		{"RemovedFromOutside", removedFromOutside},
		{"FastExits", fastExits},
		{"AdoptLosesNothing", adoptLosesNothing},
		{"AdoptAfterTheEnd", adoptAfterTheEnd},
		{"AShortStreamIsThereAgain", aShortStreamIsThereAgain},
		{"AdoptedIsKilled", adoptedIsKilled},
		{"NothingToAdopt", nothingToAdopt},
		{"LeaseEnds", leaseEnds},
		{"RenewedLease", renewedLease},
		{"RenewedBeforeStart", renewedBeforeStart},
		{"RunLimit", runLimit},
		{"InlineInput", inlineInput},
		{"NoInput", noInput},
		{"OpenInput", openInput},
		{"OpenInputIsAdopted", openInputIsAdopted},
		{"Signals", signals},
		{"ResizeIsHarmless", resizeIsHarmless},
		{"FilesAreCollected", filesAreCollected},
		{"FilesBehindALoopOfLinks", filesBehindALoop},
		{"FilesAreCutAtAnEntry", filesAreCutAtAnEntry},
		{"FilesOfTheKilled", filesOfTheKilled},
		{"FilesAfterARestart", filesAfterARestart},
		{"CopyEndsWithItsContext", copyEndsWithItsContext},
		{"ParkedRunsOneAttempt", parkedRunsOne},
		{"ParkedIsBoundOnce", parkedIsBoundOnce},
		{"ParkedOutlivesABadOrder", parkedOutlivesABadOrder},
		{"ParkedThatEnded", parkedThatEnded},
		{"ParkedEndsWithItsLease", parkedEndsWithItsLease},
		{"ParkedIsNobodysAfterARestart", parkedAfterRestart},
		{"BoundIsItsAttempts", boundIsItsAttempts},
		{"BoundIsKilledBeforeStart", boundIsKilledBeforeStart},
		{"BoundStartAsks", boundStartAsks},
		{"ParkedIsRemoved", parkedIsRemoved},
		{"Probe", probe},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := fresh(t)
			tt.run(t, h)
			if n := h.Count(t); n != 0 {
				t.Errorf("containers left: got %d, want 0", n)
			}
		})
	}
}

// attempt is one container of a test.
type attempt struct {
	t      *testing.T
	h      Harness
	ctx    context.Context
	tok    task.Token
	c      runtime.Container
	stdout *capture
	stderr *capture
	may    func() error
	// deadline is the order's; nil: none.
	deadline func() time.Duration
	spec     task.Spec
}

// spec is a small task.
func spec(h Harness, script ...string) task.Spec {
	return task.Spec{Command: h.Program(script...), Resources: task.Resources{Memory: 64 << 20}}.WithDefaults(task.V2, true)
}

var numbers atomic.Int64

func newToken() task.Token {
	return task.Token{Task: task.ID(fmt.Sprintf("t%d-%d", time.Now().UnixNano(), numbers.Add(1))), Attempt: 1, Epoch: 7}
}

// create makes a container. The test removes it.
func create(t *testing.T, h Harness, s task.Spec) *attempt {
	t.Helper()
	a := prepare(t, h)
	if err := a.create(s, a.stdout); err != nil {
		t.Fatalf("create: %v", err)
	}
	return a
}

func prepare(t *testing.T, h Harness) *attempt {
	return &attempt{t: t, h: h, ctx: t.Context(), tok: newToken(), stdout: newCapture(1 << 20), stderr: newCapture(1 << 20)}
}

// create asks for the container, with stdout into a sink of the test's own.
func (a *attempt) create(s task.Spec, stdout io.Writer) error {
	ctx, cancel := context.WithTimeout(a.ctx, patience)
	defer cancel()
	c, err := a.h.Runtime.Create(ctx, runtime.Order{Token: a.tok, CID: "conformance", Spec: s, Image: a.h.Image,
		Output: runtime.Sink{Stdout: stdout, Stderr: a.stderr}, Deadline: a.deadline, May: a.may})
	a.spec = s
	if err == nil {
		a.c = c
	}
	return err
}

func (a *attempt) start() *attempt {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.ctx, patience)
	defer cancel()
	if err := a.c.Start(ctx); err != nil {
		a.t.Fatalf("start: %v", err)
	}
	return a
}

func (a *attempt) wait() (runtime.Exit, error) {
	ctx, cancel := context.WithTimeout(a.ctx, patience)
	defer cancel()
	return a.c.Wait(ctx)
}

// exit waits for an end that is known.
func (a *attempt) exit() runtime.Exit {
	a.t.Helper()
	exit, err := a.wait()
	if err != nil {
		a.t.Fatalf("wait: %v", err)
	}
	return exit
}

func (a *attempt) kill() {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.ctx, patience)
	defer cancel()
	if err := a.c.Kill(ctx); err != nil {
		a.t.Errorf("kill: %v", err)
	}
}

func (a *attempt) remove() {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.ctx, patience)
	defer cancel()
	if err := a.c.Remove(ctx); err != nil {
		a.t.Errorf("remove: %v", err)
	}
}

// until waits until stdout begins with text.
func (a *attempt) until(text string) {
	a.t.Helper()
	select {
	case <-a.stdout.has(text):
	case <-time.After(patience):
		a.t.Fatalf("the program did not write %q", text)
	}
}

// run takes a script from create to its exit and removes the container.
func run(t *testing.T, h Harness, script ...string) (*attempt, runtime.Exit) {
	t.Helper()
	a := create(t, h, spec(h, script...)).start()
	exit := a.exit()
	a.remove()
	return a, exit
}

// capture is a sink as the agent's: it keeps the first bytes, counts and hashes
// all, and never blocks. It is read when nobody writes any more, but for has.
type capture struct {
	cap    int
	kept   bytes.Buffer
	bytes  int64
	hash   hash.Hash
	onByte func() // called at every write, if set

	mu     sync.Mutex
	wanted string
	found  chan struct{}
}

func newCapture(limit int) *capture { return &capture{cap: limit, hash: sha256.New()} }

func (c *capture) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += int64(len(b))
	c.hash.Write(b)
	if room := c.cap - c.kept.Len(); room > 0 {
		c.kept.Write(b[:min(room, len(b))])
	}
	if c.onByte != nil {
		c.onByte()
	}
	c.lookLocked()
	return len(b), nil
}

// has gives a channel that is closed once what is kept begins with text.
func (c *capture) has(text string) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted, c.found = text, make(chan struct{})
	found := c.found
	c.lookLocked()
	return found
}

func (c *capture) lookLocked() {
	if c.found != nil && strings.HasPrefix(c.kept.String(), c.wanted) {
		close(c.found)
		c.found = nil
	}
}
