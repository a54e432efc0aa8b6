package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

func TestResumedSessionKeepsAttemptsAndRepeatsResults(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.settings(func() { c.noAcks = true })
		running := c.assign("running", command("sleep 20s;exit 2"))
		ended := c.assign("ended", command("exit 1"))
		c.result(ended, time.Second)
		epoch := c.epoch
		c.settings(func() { c.noAcks = false })
		c.elect("c2", true)
		elected := c.now()
		h := c.helloNumber(2, 5*time.Second)
		if h.control != "c2" || h.epoch != epoch || len(h.running) != 2 || !has(h.running, running) || !has(h.running, ended) {
			t.Errorf("got hello %+v, want c2 to see epoch %d resumed with both attempts", h, epoch)
		}
		if took := h.at.Sub(elected); took > silence+task.Heartbeat+time.Second {
			t.Errorf("got the new leader found after %s, want within a second of the silence", took)
		}
		c.until("the repeat", time.Second, func() bool { return c.agent.reporter.unacknowledged() == 0 })
		if n := c.results(ended); n < 2 {
			t.Errorf("got the result %d times, want it repeated", n)
		}
		if got := c.result(running, 30*time.Second).result; got.ExitCode != 2 {
			t.Errorf("got code %d, want 2", got.ExitCode)
		}
		if runs := c.engine.history(running); len(runs) != 1 {
			t.Errorf("got %d runs, want 1", len(runs))
		}
	})
}

func TestNewLeaderIsFoundWithinASecond(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.connected(5 * time.Second)
		// The leader dies without a word; for three seconds the others believe
		// in it, then one of them leads.
		c.settings(func() { c.leader = "" })
		c.net.Host("c1").Crash(true)
		time.Sleep(3 * time.Second)
		c.settings(func() { c.believed = "" })
		time.Sleep(100 * time.Millisecond)
		c.settings(func() { c.leader, c.believed, c.term = "c3", "c3", 2 })
		if h := c.helloNumber(2, time.Second); h.control != "c3" || h.epoch == 0 {
			t.Errorf("got hello %+v, want c3 to see the epoch resumed", h)
		}
	})
}

func TestDeadNodesCostLittle(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.connected(5 * time.Second)
		c.net.Host("c3").Crash(true)
		c.elect("c2", true)
		h := c.helloNumber(2, silence+task.Heartbeat+resumePatience+2*firstRetry)
		if h.control != "c2" || h.epoch == 0 {
			t.Errorf("got hello %+v, want c2 to see the epoch resumed", h)
		}
	})
}

func TestUnreachableNodesCostLittle(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, dir)
		c.net.Host("c1").Crash(true)
		c.net.Host("c3").Crash(true)
		c.settings(func() { c.leader, c.believed = "c2", "c2" })
		c.run()
		defer c.stop()
		c.helloNumber(1, 2200*time.Millisecond)
	})
}

func TestRedirectIsFollowedAtOnce(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, dir, func(cfg *Config) {
			cfg.Controls = func() ([]string, <-chan struct{}) { return []string{"c1:7448"}, nil }
		})
		c.settings(func() { c.leader, c.believed = "c2", "c2" })
		c.run()
		defer c.stop()
		h := c.helloNumber(1, firstRetry)
		if h.control != "c2" {
			t.Errorf("got hello at %s, want c2", h.control)
		}
	})
}

func TestNodesWithoutALeaderAreTriedInTurn(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.settings(func() { c.leader, c.believed = "", "" })
		time.Sleep(30 * time.Second)
		c.seen(func() {
			for _, name := range []string{"c1", "c2", "c3"} {
				n := 0
				for _, v := range c.visits {
					if v == name {
						n++
					}
				}
				if n < 4 || n > 40 {
					t.Errorf("got %d visits to %s in 30 s, want some and not many", n, name)
				}
			}
		})
		c.settings(func() { c.leader = "c2" })
		c.helloNumber(1, 3*lateCeiling)
	})
}

func TestRedirectInACircleIsNotFollowedForEver(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.settings(func() { c.leader, c.believed = "", "c1" })
		time.Sleep(10 * time.Second)
		c.seen(func() {
			if n := len(c.visits); n > 100 {
				t.Errorf("got %d visits in 10 s, want pauses", n)
			}
		})
	})
}

func TestWaitsUntilControlNodesAreKnown(t *testing.T) {
	known, appear := make(chan struct{}), false
	inBubble(t, func(c *cluster) {
		time.Sleep(time.Minute)
		c.settings(func() { appear = true })
		close(known)
		c.helloNumber(1, time.Second)
	}, func(cfg *Config) {
		known = make(chan struct{}) // of the bubble
		cfg.Controls = func() ([]string, <-chan struct{}) {
			if isClosed(known) && appear {
				return []string{"c1:7448"}, nil
			}
			return nil, known
		}
	})
}

func TestSilentLeaderIsLeftAndContactIsNotCounted(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.connected(5 * time.Second)
		time.Sleep(500 * time.Millisecond)
		c.settings(func() { c.mute = true })
		muted := c.now()
		h := c.helloNumber(2, 5*time.Second)
		if took := h.at.Sub(muted); took > silence+time.Second {
			t.Errorf("got another hello after %s, want about %s", took, silence)
		}
		// It welcomes every time and answers no heartbeat: no contact.
		tok := c.assign("t1", command("sleep 1h"))
		c.until("the lapse", fenced+time.Second, func() bool {
			runs := c.engine.history(tok)
			return len(runs) == 0 || !runs[0].end.IsZero()
		})
	})
}

func TestLowerTermIsRefused(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.connected(5 * time.Second)
		c.elect("c2", false)
		c.until("a session in term 2", 5*time.Second, func() bool { return c.agent.Status().Term == 2 })
		time.Sleep(time.Second)
		// A leader of the term before still takes itself for the leader.
		c.settings(func() { c.term = 1 })
		c.say(&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Assignment{Assignment: &ecsv1.Assignment{
			Token: &ecsv1.Token{Task: "late", Attempt: 1, Epoch: c.epoch}, Spec: &ecsv1.Spec{Image: "program", Command: []string{"exit 0"}}}}})
		time.Sleep(3 * time.Second)
		if n := c.engine.count("create"); n != 0 {
			t.Errorf("got %d containers for an order of an older term, want none", n)
		}
		c.seen(func() {
			if n := len(c.visits); n > 50 {
				t.Errorf("got %d visits in three seconds, want pauses", n)
			}
		})
		if s := c.agent.Status(); s.Connected {
			t.Errorf("got a session in term %d after term 2, want none", s.Term)
		}
		c.settings(func() { c.term = 3 })
		c.until("a session in term 3", 5*time.Second, func() bool { return c.agent.Status().Term == 3 })
	})
}

func TestTermThatChangesOnASessionWantsANewHello(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.connected(5 * time.Second)
		time.Sleep(500 * time.Millisecond)
		c.settings(func() { c.term = 2 })
		if h := c.helloNumber(2, task.Heartbeat); h.epoch != c.epoch {
			t.Errorf("got hello %+v, want the epoch resumed", h)
		}
		time.Sleep(5 * time.Second)
		// A leader at odds with itself is not asked again and again at once.
		c.settings(func() { c.lateTerms, c.term = true, 3 })
		time.Sleep(5 * time.Second)
		c.seen(func() {
			if n := len(c.hellos); n > 50 {
				t.Errorf("got %d hellos in five seconds, want pauses", n)
			}
		})
	})
}

func TestOnlyAssignmentsOfThePresentEpochRunAndOnce(t *testing.T) {
	inBubble(t, func(c *cluster) {
		tok := c.assign("t1", command("sleep 1s"))
		c.assignAs(tok, command("sleep 1s"))
		c.result(tok, 5*time.Second)
		time.Sleep(time.Second)
		c.assignAs(tok, command("sleep 1s"))
		stale := task.Token{Task: "t2", Attempt: 1, Epoch: tok.Epoch - 10}
		c.assignAs(stale, command("sleep 1s"))
		time.Sleep(5 * time.Second)
		if n := len(c.engine.history(tok)); n != 1 {
			t.Errorf("got %d runs of an attempt assigned three times, want 1", n)
		}
		if n := len(c.engine.history(stale)); n != 0 {
			t.Errorf("got %d runs of an attempt of an older epoch, want none", n)
		}
	})
}

func TestForgottenAttemptsEndWithoutAReport(t *testing.T) {
	for _, how := range []string{"welcome", "stale status"} {
		t.Run(how, func(t *testing.T) {
			inBubble(t, func(c *cluster) {
				c.connected(5 * time.Second)
				c.settings(func() { c.stale = how == "stale status" })
				tok := c.assign("t1", command("sleep 1h"))
				time.Sleep(time.Second)
				if how == "welcome" {
					c.settings(func() { c.forget = []task.Token{tok} })
					c.elect("c2", false)
					c.helloNumber(2, 5*time.Second)
				}
				time.Sleep(time.Second)
				if n, left := len(c.engine.alive()), c.engine.left(); n != 0 || left != 0 {
					t.Errorf("got %d alive and %d containers, want none", n, left)
				}
				if n := c.results(tok); n != 0 {
					t.Errorf("got %d results, want none", n)
				}
				if s := c.agent.Status(); s.Running+s.Removing+s.Unreported != 0 {
					t.Errorf("got %+v, want nothing left of it", s)
				}
			})
		})
	}
}

func TestRefusedNodeTriesAgainLater(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.connected(5 * time.Second)
		c.settings(func() { c.refuse = "who are you" })
		c.elect("c2", false)
		time.Sleep(time.Minute)
		c.seen(func() {
			if n := len(c.hellos); n < 8 || n > 30 {
				t.Errorf("got %d registrations tried in a minute, want one every few seconds", n)
			}
			c.refuse = ""
		})
		c.connected(2 * refusedPause)
	})
}

func TestIdleSessionIsQuietAndLasts(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.connected(5 * time.Second)
		time.Sleep(10 * time.Minute)
		c.seen(func() {
			if len(c.hellos) != 1 || c.broken != 0 {
				t.Errorf("got %d hellos and %d broken streams, want one session", len(c.hellos), c.broken)
			}
			if n := len(c.beats); n < 600 || n > 605 {
				t.Errorf("got %d heartbeats in ten minutes, want one a second", n)
			}
		})
	})
}
