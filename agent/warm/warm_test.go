package warm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ecs/agent/runtime"
	"ecs/agent/runtime/fake"
	"ecs/agent/warm"
	"ecs/internal/task"
	"ecs/internal/telemetry"
)

// bench is a pool on a fake engine, under a lease that somebody renews.
type bench struct {
	*testing.T
	*warm.Pool
	engine *fake.Engine
	stop   context.CancelFunc
}

const node = "n1"

// proven is how long one has to be parked to be no failure.
const proven = 10 * time.Second

// inBubble runs a test on a pool of so many slots.
func inBubble(t *testing.T, slots int, test func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		engine := fake.NewEngine()
		engine.Slow(10*time.Millisecond, 150*time.Millisecond)
		b := &bench{T: t, engine: engine, Pool: warm.New(warm.Config{Runtime: engine.For(node), Count: slots, Memory: 1 << 30,
			Now: engine.Now, Log: slog.New(slog.DiscardHandler), Metrics: telemetry.Discard()})}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { b.Pool.Run(ctx) })
		leased, lapse := context.WithCancel(ctx)
		b.stop = lapse
		all.Go(func() {
			for leased.Err() == nil {
				b.Extend(engine.Now() + task.DefaultLease)
				select {
				case <-time.After(task.Heartbeat):
				case <-leased.Done():
				}
			}
		})
		test(b)
		b.Shut()
		if err := b.Emptied(ctx); err != nil {
			t.Errorf("emptied: %v", err)
		}
		if n := len(engine.Containers(node)); n != 0 {
			t.Errorf("containers left: %d", n)
		}
		cancel()
		all.Wait()
	})
}

func spec(memory int64) *task.Spec {
	s := task.Spec{Image: "img:1", Command: []string{"exit", "0"}, Resources: task.Resources{Memory: memory}}.WithDefaults(task.V2, true)
	return &s
}

var tasks int

// run takes a task through as a runner does, and gives what it was.
func (b *bench) run(s *task.Spec) string {
	b.Helper()
	calm := b.Hurry()
	defer calm()
	c, why := b.Take(s, "sha256:00")
	if c == nil {
		return why
	}
	tasks++
	bound, err := c.Bind(b.Context(), runtime.Order{Token: task.Token{Task: task.ID(fmt.Sprint("t", tasks)), Attempt: 1, Epoch: 1},
		Spec: *s, Output: runtime.Sink{Stdout: io.Discard, Stderr: io.Discard}})
	if err == nil {
		err = bound.Start(b.Context())
	}
	if err == nil {
		_, err = bound.Wait(b.Context())
	}
	if err == nil {
		err = bound.Remove(b.Context())
	}
	if err != nil {
		b.Errorf("a task on what was parked: %v", err)
	}
	return why
}

func (b *bench) parked(want int) {
	b.Helper()
	if got := b.engine.Parked(node); got != want {
		b.Errorf("parked: got %d, want %d", got, want)
	}
}

func (b *bench) expect(s *task.Spec, want string) {
	b.Helper()
	if got := b.run(s); got != want {
		b.Errorf("got %s, want %s", got, want)
	}
}

// learn has the pool take a shape for one that is asked for.
func (b *bench) learn(s *task.Spec) {
	b.Helper()
	b.expect(s, warm.First)
	b.expect(s, warm.First)
}

// TestWishesAreKept: what is wished for is parked without demand, within the budget,
// and not once it is taken back.
func TestWishesAreKept(t *testing.T) {
	inBubble(t, 8, func(b *bench) {
		wish := func(counts ...int) {
			var all []warm.Wish
			for i, n := range counts {
				all = append(all, warm.Wish{Spec: *spec(int64(64+i) << 20), Image: "sha256:00", Count: n})
			}
			b.Wish(all)
			time.Sleep(10 * time.Second)
		}
		time.Sleep(time.Second) // there is a lease
		wish(3)
		b.parked(3)
		b.expect(spec(64<<20), warm.Hit)
		time.Sleep(time.Hour)
		b.parked(3)
		wish(2, 1)
		b.parked(3)
		b.expect(spec(65<<20), warm.Hit)
		wish(100, 1)
		b.parked(8)
		b.Lapse()
		time.Sleep(5 * time.Second)
		b.parked(0)
		wish(1)
		b.parked(1)
		b.Drain(true)
		wish(1)
		b.parked(0)
		b.Drain(false)
		wish(4)
		b.parked(4)
		wish()
		time.Sleep(time.Second)
		b.parked(0)
	})
}

func TestDemandDecides(t *testing.T) {
	inBubble(t, 8, func(b *bench) {
		b.parked(0)
		b.learn(spec(64 << 20))
		time.Sleep(time.Second)
		b.parked(2)
		b.expect(spec(64<<20), warm.Hit)
		b.expect(spec(64<<20), warm.Hit)
		b.expect(spec(64<<20), warm.Empty)
		time.Sleep(2 * time.Second)
		b.parked(5)
		for range 20 {
			b.run(spec(64 << 20))
		}
		time.Sleep(5 * time.Second)
		b.parked(8) // the budget
		time.Sleep(2 * time.Minute)
		b.parked(4)
		time.Sleep(6 * time.Minute)
		b.parked(0)
		b.expect(spec(64<<20), warm.First)
	})
}

// Shapes that are asked for once cost nothing, however many there are.
func TestNothingIsParkedForOne(t *testing.T) {
	inBubble(t, 8, func(b *bench) {
		b.learn(spec(64 << 20))
		time.Sleep(time.Second)
		for i := range int64(300) {
			b.expect(spec(65<<20+i), warm.First)
			time.Sleep(10 * time.Millisecond)
			b.parked(2)
		}
		b.expect(spec(64<<20), warm.Hit)
		time.Sleep(5 * time.Minute)
		b.expect(spec(65<<20), warm.First) // long after the first
		time.Sleep(time.Second)
		b.parked(0)
	})
}

func TestNobodyIsGivenWhatDoesNotFit(t *testing.T) {
	inBubble(t, 8, func(b *bench) {
		b.learn(spec(64 << 20))
		time.Sleep(time.Second)
		b.expect(spec(65<<20), warm.First)
		c, why := b.Take(spec(64<<20), "sha256:01")
		if c != nil || why != warm.First {
			t.Errorf("another image of that name: got %s", why)
		}
		b.expect(spec(64<<20), warm.Hit)
	})
}

func TestBudgetGoesToWhereDemandIs(t *testing.T) {
	inBubble(t, 2, func(b *bench) {
		for range 10 {
			b.run(spec(64 << 20))
		}
		b.learn(spec(65 << 20))
		time.Sleep(time.Second)
		b.parked(2)
		b.expect(spec(65<<20), warm.Budget)
		b.expect(spec(64<<20), warm.Hit)
		for range 30 {
			b.run(spec(65 << 20))
		}
		time.Sleep(5 * time.Second)
		b.parked(2)
		b.expect(spec(65<<20), warm.Hit)
	})
}

// Those in a hurry are not held up, but they can't starve the pool.
func TestHurryHoldsTheRefill(t *testing.T) {
	inBubble(t, 8, func(b *bench) {
		b.learn(spec(64 << 20))
		calm := b.Hurry()
		time.Sleep(time.Second)
		b.parked(0)
		calm()
		calm()
		time.Sleep(time.Second)
		b.parked(2)
		calm = b.Hurry()
		defer calm()
		b.run(spec(64 << 20))
		time.Sleep(1900 * time.Millisecond)
		b.parked(1)
		time.Sleep(time.Second)
		b.parked(2)
	})
}

func TestNothingOutlivesTheLease(t *testing.T) {
	inBubble(t, 8, func(b *bench) {
		b.learn(spec(64 << 20))
		time.Sleep(30 * time.Second) // renewed all the time
		b.parked(2)
		b.expect(spec(64<<20), warm.Hit)
		time.Sleep(time.Second)
		b.stop()
		time.Sleep(task.DefaultLease - task.FenceAhead)
		if c, why := b.Take(spec(64<<20), "sha256:00"); c != nil {
			t.Errorf("got %s when the lease was over", why)
		}
		b.Lapse()
		time.Sleep(time.Minute)
		b.parked(0)
		b.expect(spec(64<<20), warm.First)
	})
}

func TestKilledFromOutsideIsReplaced(t *testing.T) {
	inBubble(t, 8, func(b *bench) {
		b.learn(spec(64 << 20))
		time.Sleep(proven + time.Second)
		b.engine.StrikeParked(node)
		time.Sleep(time.Second)
		b.parked(2)
		b.expect(spec(64<<20), warm.Hit)
	})
}

// What ends as soon as it is parked is a failure like any other: the pauses grow,
// and are forgotten when one survives.
func TestWhatDiesAtOncePauses(t *testing.T) {
	inBubble(t, 1, func(b *bench) {
		strike := func(d time.Duration) (n int) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				if b.engine.Parked(node) > 0 {
					n++
					b.engine.StrikeParked(node)
				}
			}
			return n
		}
		for range 40 { // demand for minutes
			b.run(spec(64 << 20))
		}
		if n := strike(3 * time.Minute); n < 4 || n > 10 {
			t.Errorf("parked %d that died at once in 3 minutes, want a few", n)
		}
		time.Sleep(80 * time.Second)
		b.parked(1)
		b.engine.StrikeParked(node) // it is no failure
		time.Sleep(time.Second)
		b.parked(1)
		if n := strike(10 * time.Second); n < 2 {
			t.Errorf("parked %d that died at once in 10 seconds, want the pauses to begin anew", n)
		}
	})
}

func TestWhatEmptiesThePool(t *testing.T) {
	for name, empty := range map[string]func(b *bench){
		"drained":       func(b *bench) { b.Drain(true); b.expect(spec(64<<20), warm.Draining); b.Drain(false) },
		"lapsed":        func(b *bench) { b.Lapse() },
		"image removed": func(b *bench) { b.Removed([]string{"other", "img:1"}) },
		"crashed":       func(b *bench) { b.engine.Crash(); b.Lapse() },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 8, func(b *bench) {
				b.run(spec(64 << 20))
				b.run(spec(64 << 20))
				time.Sleep(time.Second)
				b.parked(2)
				empty(b)
				time.Sleep(10 * time.Millisecond)
				b.parked(0)
				time.Sleep(2 * time.Second) // the lease is renewed
				b.learn(spec(64 << 20))
				time.Sleep(time.Second)
				b.expect(spec(64<<20), warm.Hit)
			})
		})
	}
}

// An engine that fails is asked again after ever longer pauses.
func TestFailuresPause(t *testing.T) {
	inBubble(t, 8, func(b *bench) {
		b.engine.SetDown(errors.New("down"))
		b.learn(spec(64 << 20))
		time.Sleep(10 * time.Second)
		b.parked(0)
		b.engine.SetDown(nil)
		time.Sleep(20 * time.Second)
		b.parked(2)
		b.expect(spec(64<<20), warm.Hit)
	})
}

func TestShutWhileParking(t *testing.T) {
	inBubble(t, 8, func(b *bench) {
		b.learn(spec(64 << 20))
		time.Sleep(50 * time.Millisecond) // in the middle of it
	})
}

func TestOff(t *testing.T) {
	inBubble(t, 0, func(b *bench) {
		b.expect(spec(64<<20), warm.Off)
		time.Sleep(time.Second)
		b.expect(spec(64<<20), warm.Off)
		b.parked(0)
	})
	if n := warm.Slots(50, 100<<20); n != 8 {
		t.Errorf("100 MiB pay for %d, want 8", n)
	}
}

// TestNoneIsTakenTwice has many take at once what is there.
func TestNoneIsTakenTwice(t *testing.T) {
	inBubble(t, 8, func(b *bench) {
		for range 8 {
			b.run(spec(64 << 20))
		}
		time.Sleep(5 * time.Second)
		b.parked(8)
		var mu sync.Mutex
		seen := map[runtime.Parked]bool{}
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				c, _ := b.Take(spec(64<<20), "sha256:00")
				mu.Lock()
				defer mu.Unlock()
				if c != nil && seen[c] {
					t.Error("taken twice")
				}
				if c != nil {
					seen[c] = true
				}
			})
		}
		all.Wait()
		if len(seen) != 8 {
			t.Errorf("took %d, want 8", len(seen))
		}
		for c := range seen {
			b.Drop(c)
		}
		time.Sleep(time.Second)
	})
}

// TestReturned: what was taken and not used is there for the next, but not after
// the pool has lost its use for it.
func TestReturned(t *testing.T) {
	inBubble(t, 8, func(b *bench) {
		b.learn(spec(64 << 20))
		time.Sleep(time.Second)
		b.parked(2)
		take := func() runtime.Parked {
			c, why := b.Take(spec(64<<20), "sha256:00")
			if c == nil {
				t.Fatalf("got %s, want a hit", why)
			}
			return c
		}
		first := take()
		if !b.Return(first, spec(64<<20), "sha256:00") {
			t.Error("not taken back")
		}
		if next := take(); next != first {
			t.Errorf("got %v, want the one that came back last", next)
		}
		b.Lapse()
		if b.Return(first, spec(64<<20), "sha256:00") {
			t.Error("taken back when the lease was over")
		}
		if err := first.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
