package agent

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"ecs/agent/runtime/fake"
	"ecs/internal/task"
)

// chaosSeeds is how many histories TestNoProgramOutlivesItsLease goes through.
const chaosSeeds = 40

// Whatever happens to the network, the leaders and the agent's own clock: a
// program under the default lease has ended when the leader may place the next
// attempt, a registration names whatever still runs, and no attempt runs twice.
func TestNoProgramOutlivesItsLease(t *testing.T) {
	for seed := range uint64(chaosSeeds) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { chaos(t, seed, false) })
	}
}

// The same holds when the agent is killed now and then, and started again soon
// or late.
func TestNoProgramOutlivesItsLeaseOverRestarts(t *testing.T) {
	for seed := range uint64(chaosSeeds) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { chaos(t, seed, true) })
	}
}

func chaos(t *testing.T, seed uint64, kills bool) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		random := rand.New(rand.NewPCG(seed, 1))
		engine.Slow(10*time.Millisecond, 100*time.Millisecond)
		engine.SlowKill(1500*time.Millisecond, seed)
		c.settings(func() { c.strict = true; c.onHello = func(h hello) { checkHello(t, engine, h) } })
		for step := range 120 {
			shake(c, random, step)
			if kills && random.IntN(10) == 0 {
				c.killAgent(engine)
				time.Sleep(time.Duration(random.Int64N(int64(12 * time.Second))))
				c.restart(engine)
			}
			time.Sleep(time.Duration(random.Int64N(int64(2500 * time.Millisecond))))
		}
		c.net.HealAll()
		time.Sleep(30 * time.Second)
		c.connected(10 * time.Second)
		checkRuns(t, c, engine.History())
		checkContainers(t, engine.History())
	}, warmed)
}

// shake does one thing to the cluster.
func shake(c *cluster, random *rand.Rand, step int) {
	switch random.IntN(10) {
	case 0:
		c.cutOff()
	case 1, 2:
		c.net.HealAll()
	case 3:
		c.pause(time.Duration(random.Int64N(int64(12 * time.Second))))
	case 4:
		c.elect([]string{"c1", "c2", "c3"}[random.IntN(3)], false)
	case 5:
		c.settings(func() { c.mute = !c.mute })
	default:
		c.mu.Lock()
		connected := c.line != nil
		tok := task.Token{Task: task.ID(fmt.Sprint("t", step)), Attempt: 1, Epoch: c.epoch}
		c.mu.Unlock()
		if connected {
			c.assignAs(tok, command(fmt.Sprintf("sleep %ds", random.IntN(40))))
		}
	}
}

// checkHello runs while the leader reads a hello: what runs must be named.
func checkHello(t *testing.T, engine *fake.Engine, h hello) {
	if h.epoch != 0 {
		return
	}
	for _, r := range engine.History() {
		if r.EndedAt.IsZero() && !has(h.running, r.Token) {
			t.Errorf("%v: got a registration that does not name %v, which runs", h.at, r.Token)
		}
	}
}

func checkRuns(t *testing.T, c *cluster, runs []fake.Run) {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[task.Token]bool{}
	for _, r := range runs {
		if seen[r.Token] {
			t.Errorf("got %v run twice, want once", r.Token)
		}
		seen[r.Token] = true
		ended := r.EndedAt
		if ended.IsZero() {
			ended = time.Now()
		}
		if limit := c.answered[r.Token.Epoch].Add(task.DefaultLease); ended.After(limit) {
			t.Errorf("got %v alive until %v, want its end by %v: its leader was last heard %v", r.Token, ended, limit, c.answered[r.Token.Epoch])
		}
	}
	if len(runs) < 5 {
		t.Errorf("got %d runs, want more: this proves nothing", len(runs))
	}
}

// checkContainers holds that none was ever used twice.
func checkContainers(t *testing.T, runs []fake.Run) {
	t.Helper()
	used := map[int64]task.Token{}
	for _, r := range runs {
		if before, twice := used[r.Container]; twice {
			t.Errorf("got container %d used by %v and %v", r.Container, before, r.Token)
		}
		used[r.Container] = r.Token
	}
}

func TestKilledAgentTouchesNothing(t *testing.T) {
	engine := fake.NewEngine()
	inBubble(t, func(c *cluster) {
		tok := c.assign("t1", command("sleep 1h"))
		time.Sleep(time.Second)
		c.kill(ErrKilled)
		killed := c.now()
		<-c.ended
		if c.err != ErrKilled || time.Since(killed) > 0 {
			t.Errorf("got %v after %s, want %v at once", c.err, time.Since(killed), ErrKilled)
		}
		runs := engine.History()
		if len(runs) != 1 || runs[0].Token != tok || !runs[0].EndedAt.IsZero() {
			t.Errorf("got runs %+v, want the one going on", runs)
		}
		c.seen(func() {
			if !c.goodbye.IsZero() {
				t.Error("got a goodbye, want none")
			}
		})
		engine.Crash()
	}, func(cfg *Config) { cfg.Runtime, cfg.Images = engine, engine.Images() })
}
