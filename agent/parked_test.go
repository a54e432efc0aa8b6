package agent

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"ecs/agent/runtime"
	"ecs/agent/runtime/fake"
	"ecs/agent/warm"
	"ecs/internal/task"
)

// warmed gives the agent a pool.
func warmed(cfg *Config) { cfg.WarmCount, cfg.WarmMemory = 4, 1<<30 }

// learn has the pool take the shape of a command for one that is asked for.
func learn(c *cluster) {
	for range 2 {
		learned++
		c.result(c.assign(fmt.Sprint("learn", learned), command("exit 0")), 5*time.Second)
	}
}

var learned int

func TestThirdTaskIsWarm(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		if got := c.helloNumber(1, 5*time.Second).node.Attributes[task.AttributeWarmSlots]; got != "4" {
			t.Errorf("got %q containers ahead at the registration, want 4", got)
		}
		engine.Slow(10*time.Millisecond, 150*time.Millisecond)
		for i, want := range []string{warm.First, warm.First, warm.Hit, warm.Hit} {
			tok := c.assign(string(rune('a'+i)), command("print x; exit 3"))
			r := c.result(tok, 5*time.Second)
			if r.result.ExitCode != 3 || string(r.result.Stdout.Head) != "x" || r.bill.Warm != want {
				t.Errorf("got %+v, %s; want code 3, %s", r.result, r.bill.Warm, want)
			}
			if took := r.bill.Create + r.bill.Start; (took == 0) != (want == warm.Hit) {
				t.Errorf("%s: create and start took %s", want, took)
			}
			time.Sleep(2 * time.Second)
		}
		checkContainers(t, engine.History())
		if n := engine.Parked("n1"); n < 1 || n > 4 {
			t.Errorf("got %d parked, want 1 to 4", n)
		}
	}, warmed)
}

// striker ends what is parked right after it was bound.
type striker struct {
	runtime.Runtime
	engine *fake.Engine
}

type struck struct {
	runtime.Parked
	engine *fake.Engine
}

func (s *striker) Park(ctx context.Context, p runtime.Parking) (runtime.Parked, error) {
	c, err := s.Runtime.Park(ctx, p)
	return struck{c, s.engine}, err
}

func (s struck) Bind(ctx context.Context, o runtime.Order) (runtime.Container, error) {
	c, err := s.Parked.Bind(ctx, o)
	s.engine.StrikeParked("n1")
	return c, err
}

func TestParkedThatEndsCostsNoAttempt(t *testing.T) {
	s := &striker{}
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		s.engine = engine
		learn(c)
		time.Sleep(2 * time.Second)
		tok := c.assign("t2", command("print x; exit 3"))
		r := c.result(tok, 5*time.Second)
		if r.result.ExitCode != 3 || string(r.result.Stdout.Head) != "x" || r.bill.Warm != warm.Ended {
			t.Errorf("got %+v, %s; want code 3, %s", r.result, r.bill.Warm, warm.Ended)
		}
		if runs := engine.History(); len(runs) != 3 {
			t.Errorf("got %d runs, want 3", len(runs))
		}
	}, warmed, func(cfg *Config) { s.Runtime, cfg.Runtime = cfg.Runtime, s })
}

// TestBadOrdersCostNoContainer: what can't run leaves what is parked to others.
func TestBadOrdersCostNoContainer(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		learn(c)
		time.Sleep(2 * time.Second)
		before := engine.Containers("")
		r := c.result(c.assign("t1", command("")), 5*time.Second)
		if r.result.Outcome != task.StartFailed || r.bill.Warm != "" {
			t.Errorf("got %+v, %q; want start_failed", r.result, r.bill.Warm)
		}
		left := engine.Containers("")
		if len(before) != 2 || !slices.Equal(before, left[:min(2, len(left))]) {
			t.Errorf("got %v, want %v still", left, before)
		}
		if r := c.result(c.assign("t2", command("exit 3")), 5*time.Second); r.bill.Warm != warm.Hit || r.result.ExitCode != 3 {
			t.Errorf("got %+v, %s; want a hit", r.result, r.bill.Warm)
		}
	}, warmed)
}

// forgetful is an engine that has lost an image, once, when a parked container
// has ended.
type forgetful struct {
	striker
	creates int
}

func (f *forgetful) Create(ctx context.Context, o runtime.Order) (runtime.Container, error) {
	if f.creates++; f.creates == 3 { // after two tasks that had the pool take up the shape
		return nil, &runtime.Failure{Outcome: task.ImageNotFound, Reason: "gone", Err: runtime.ErrNoImage}
	}
	return f.striker.Create(ctx, o)
}

func TestColdStartAfterAParkedOneGetsTheImageAgain(t *testing.T) {
	f := &forgetful{}
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		f.engine = engine
		learn(c)
		time.Sleep(2 * time.Second)
		r := c.result(c.assign("t1", command("exit 3")), 5*time.Second)
		if r.result.Outcome != task.Exited || r.result.ExitCode != 3 || r.bill.Warm != warm.Ended || f.creates != 4 {
			t.Errorf("got %+v, %s after %d creates; want code 3, %s after 4", r.result, r.bill.Warm, f.creates, warm.Ended)
		}
	}, warmed, func(cfg *Config) { f.Runtime, cfg.Runtime = cfg.Runtime, f })
}

func TestParkedIsGoneAfterARestart(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		learn(c)
		time.Sleep(2 * time.Second)
		if n := engine.Parked("n1"); n != 2 {
			t.Fatalf("got %d parked, want 2", n)
		}
		c.killAgent(engine)
		c.restart(engine)
		c.connected(10 * time.Second)
		if left := engine.Containers(""); len(left) != 0 {
			t.Errorf("got %v left, want none", left)
		}
		if r := c.result(c.assign("t2", command("exit 0")), 5*time.Second); r.bill.Warm != warm.First {
			t.Errorf("got %s, want %s", r.bill.Warm, warm.First)
		}
	}, warmed)
}

func TestParkedEndsWithTheLease(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		learn(c)
		time.Sleep(30 * time.Second)
		if n := engine.Parked("n1"); n != 2 {
			t.Fatalf("got %d parked under a lease that is renewed, want 2", n)
		}
		c.cutOff()
		time.Sleep(task.DefaultLease)
		if n := len(engine.Containers("")); n != 0 {
			t.Errorf("got %d containers after the lease, want none", n)
		}
		c.net.HealAll()
		c.connected(10 * time.Second)
	}, warmed)
}

func TestDrainedNodeParksNothing(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		learn(c)
		time.Sleep(2 * time.Second)
		c.settings(func() { c.drain = true })
		time.Sleep(3 * time.Second)
		if n := len(engine.Containers("")); n != 0 {
			t.Errorf("got %d containers on a drained node, want none", n)
		}
		c.settings(func() { c.drain = false })
		time.Sleep(3 * time.Second)
		learn(c)
		time.Sleep(2 * time.Second)
		if n := engine.Parked("n1"); n != 2 {
			t.Errorf("got %d parked, want 2", n)
		}
	}, warmed)
}

func TestHeartbeatsTellWhatIsParked(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		spec := command("exit 0").WithDefaults(task.V2, false)
		learn(c)
		time.Sleep(3 * time.Second)
		told := func(want int) {
			t.Helper()
			c.seen(func() {
				if shape := spec.Shape().Hash(); c.parked[shape] != want {
					t.Errorf("got %v told, want %d of %d", c.parked, want, shape)
				}
			})
		}
		told(2)
		// The leader counts one less with each assignment: it is told again, also
		// where another has been parked meanwhile, or none was taken.
		c.settings(func() { c.parked = nil })
		tok := c.assign("t1", spec)
		c.result(tok, 5*time.Second)
		time.Sleep(3 * time.Second)
		told(3)
		c.settings(func() { c.parked = nil })
		time.Sleep(3 * time.Second)
		told(0) // nothing has happened
		c.assignAs(tok, spec)
		time.Sleep(2 * time.Second)
		told(3)
		c.cutOff()
		time.Sleep(task.DefaultLease)
		c.net.HealAll()
		c.connected(10 * time.Second)
		time.Sleep(2 * time.Second)
		c.seen(func() {
			if len(c.parked) != 0 {
				t.Errorf("got %v told after the lease, want none", c.parked)
			}
		})
	}, warmed)
}

// slowToGo takes its time to remove what is parked.
type slowToGo struct {
	runtime.Runtime
	takes                 time.Duration
	removing, most, reaps atomic.Int32
}

type lingering struct {
	runtime.Parked
	s *slowToGo
}

func (s *slowToGo) Park(ctx context.Context, p runtime.Parking) (runtime.Parked, error) {
	c, err := s.Runtime.Park(ctx, p)
	return lingering{c, s}, err
}

func (s *slowToGo) Reap(ctx context.Context, keep func(task.Token) bool) (int, error) {
	s.reaps.Add(1)
	return s.Runtime.Reap(ctx, keep)
}

func (l lingering) Remove(ctx context.Context) error {
	l.s.most.Store(max(l.s.most.Load(), l.s.removing.Add(1)))
	defer l.s.removing.Add(-1)
	defer sleep(ctx, l.s.takes)
	return l.Parked.Remove(ctx)
}

// TestLeavingRemovesWhatIsParked a few at a time, within one patience, and what
// is left after that is looked for all the same.
func TestLeavingRemovesWhatIsParked(t *testing.T) {
	for _, tt := range []struct {
		removals int
		takes    time.Duration
		clean    bool
	}{{2, 12 * time.Second, true}, {4, 40 * time.Second, false}} {
		s := &slowToGo{takes: tt.takes}
		inRestarts(t, func(c *cluster, engine *fake.Engine) {
			learn(c)
			learn(c)
			time.Sleep(3 * time.Second)
			if n := engine.Parked("n1"); n != 4 {
				t.Fatalf("got %d parked, want 4", n)
			}
			reaps, began := s.reaps.Load(), time.Now()
			c.cancel()
			<-c.ended
			if c.err == nil != tt.clean || s.most.Load() != int32(tt.removals) || s.reaps.Load() == reaps {
				t.Errorf("%d at once: got %v with %d at once and %d reaps", tt.removals, c.err, s.most.Load(), s.reaps.Load()-reaps)
			}
			if took := time.Since(began); took > removePatience+time.Second {
				t.Errorf("%d at once: took %s", tt.removals, took)
			}
		}, warmed, func(cfg *Config) { s.Runtime, cfg.Runtime, cfg.Removals = cfg.Runtime, s, tt.removals })
	}
}
