package agent

import (
	"errors"
	"testing"
	"time"
)

func TestLeavingNodeFinishesWhatItCanAndSaysGoodbye(t *testing.T) {
	inBubble(t, func(c *cluster) {
		brief := c.assign("brief", command("sleep 5s;exit 6"))
		endless := c.assign("endless", command("sleep 1h"))
		time.Sleep(time.Second)
		began := c.now()
		c.cancel()
		c.until("word that it leaves", time.Second, func() bool { return c.beats[len(c.beats)-1].GetUnfit() != "" })
		refused := c.assign("refused", command("exit 0"))
		<-c.ended
		if c.err != nil {
			t.Errorf("got %v, want a clean end", c.err)
		}
		if took := time.Since(began); took < DefaultGrace || took > DefaultGrace+2*time.Second {
			t.Errorf("got an end after %s, want soon after %s", took, DefaultGrace)
		}
		if got := c.result(brief, time.Second).result; got.ExitCode != 6 {
			t.Errorf("got code %d, want 6", got.ExitCode)
		}
		if n := c.results(endless) + c.results(refused); n != 0 {
			t.Errorf("got %d results of what did not end by itself, want none", n)
		}
		if n := len(c.engine.history(refused)); n != 0 {
			t.Errorf("got %d runs of what came while leaving, want none", n)
		}
		c.seen(func() {
			end := c.engine.history(endless)[0].end
			if c.goodbye.IsZero() || end.IsZero() || c.goodbye.Before(end) {
				t.Errorf("got goodbye at %s, the last program's end at %s, want it after", c.goodbye, end)
			}
			if len(c.hellos) != 1 {
				t.Errorf("got %d hellos, want none after the goodbye", len(c.hellos))
			}
		})
		if n := c.engine.left(); n != 0 {
			t.Errorf("got %d containers left, want none", n)
		}
	})
}

func TestIdleNodeLeavesAtOnce(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.connected(5 * time.Second)
		began := c.now()
		c.cancel()
		<-c.ended
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("got an end after %s, want at once", took)
		}
		c.seen(func() {
			if c.goodbye.IsZero() {
				t.Error("got no goodbye, want one")
			}
		})
	})
}

func TestNoGoodbyeWhileAProgramMayRun(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.assign("t1", command("sleep 1h"))
		c.engine.fail("kill", errors.New("engine hangs"))
		c.engine.fail("remove", errors.New("engine hangs"))
		c.cancel()
		<-c.ended
		if c.err == nil {
			t.Error("got no error with a program alive, want one")
		}
		c.seen(func() {
			if !c.goodbye.IsZero() {
				t.Error("got a goodbye with a program alive, want none")
			}
		})
		c.engine.heal("remove")
		if _, err := c.engine.Reap(t.Context(), c.agent.supervisor.claims.has); err != nil {
			t.Fatal(err)
		}
	})
}

// A busy engine may take longer to end a container than anybody likes; the node
// leaves in good order all the same.
func TestLeavingWaitsForASlowEngine(t *testing.T) {
	inBubble(t, func(c *cluster) {
		tok := c.assign("t1", command("sleep 1h"))
		time.Sleep(time.Second)
		c.engine.fail("kill", errors.New("engine is busy"))
		c.engine.fail("remove", errors.New("engine is busy"))
		c.cancel()
		time.Sleep(DefaultGrace + 20*time.Second)
		c.engine.heal("kill")
		c.engine.heal("remove")
		<-c.ended
		if c.err != nil {
			t.Errorf("got %v, want a clean end", c.err)
		}
		c.seen(func() {
			end := c.engine.history(tok)[0].end
			if c.goodbye.IsZero() || end.IsZero() || c.goodbye.Before(end) {
				t.Errorf("got goodbye at %s, the program's end at %s, want it after", c.goodbye, end)
			}
		})
	})
}

func TestLeavingWithoutALeaderEnds(t *testing.T) {
	inBubble(t, func(c *cluster) {
		tok := c.assign("t1", command("sleep 1h"))
		c.cutOff()
		time.Sleep(time.Second)
		began := c.now()
		c.cancel()
		<-c.ended
		if took := time.Since(began); took > DefaultGrace+flushPatience+goodbyePatience+time.Second {
			t.Errorf("got an end after %s, want it bounded", took)
		}
		if runs := c.engine.history(tok); len(runs) != 1 || runs[0].end.IsZero() {
			t.Errorf("got %+v, want its end", runs)
		}
	})
}

func TestResultsAreHandedOverBeforeGoodbye(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.settings(func() { c.noAcks = true })
		tok := c.assign("t1", command("exit 9"))
		c.result(tok, time.Second)
		c.cancel()
		time.Sleep(time.Second)
		c.settings(func() { c.noAcks = false })
		<-c.ended
		c.seen(func() {
			if n := c.agent.reporter.unacknowledged(); n != 0 || c.goodbye.IsZero() {
				t.Errorf("got %d results not acknowledged, goodbye %s, want none and one", n, c.goodbye)
			}
		})
	})
}

func TestAgentThatNeverFoundItsEngineEnds(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.engine.hang("probe")
		time.Sleep(time.Minute)
		c.cancel()
		<-c.ended
		if c.err != nil {
			t.Errorf("got %v, want a clean end", c.err)
		}
	}, func(cfg *Config) { cfg.Runtime.(*engine).hang("probe") })
}
