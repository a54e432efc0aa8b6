package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

// fenced is how long after contact a default attempt must have ended.
const fenced = task.DefaultLease - task.FenceAhead

func TestLostLeaseEndsEveryDefaultAttempt(t *testing.T) {
	inBubble(t, func(c *cluster) {
		short := c.assign("short", command("sleep 1h"))
		pulling := c.assign("pulling", task.Spec{Image: "slow"})
		long := c.assign("long", withLease(command("sleep 2m;exit 4"), 5*time.Minute))
		time.Sleep(5 * time.Second)
		epoch := c.epoch
		c.cutOff()
		cut := c.now()

		time.Sleep(fenced - task.Heartbeat - 100*time.Millisecond)
		if alive := c.engine.alive(); !has(alive, short) || !has(alive, long) {
			t.Errorf("got %v alive before the lease lapsed, want both", alive)
		}
		time.Sleep(task.Heartbeat + 100*time.Millisecond)
		if alive := c.engine.alive(); !slices.Equal(alive, []task.Token{long}) {
			t.Errorf("got %v alive %s after contact was lost, want the long lease only", alive, fenced)
		}
		runs := c.engine.history(short)
		if len(runs) != 1 || runs[0].end.After(cut.Add(fenced)) {
			t.Errorf("got runs %+v, want one that ended by %s", runs, cut.Add(fenced))
		}

		time.Sleep(20 * time.Second)
		c.net.HealAll()
		h := c.helloNumber(2, 10*time.Second)
		if h.epoch != 0 || !slices.Equal(h.running, []task.Token{long}) {
			t.Errorf("got hello %+v, want a new registration that names the long lease only", h)
		}
		got := c.result(long, 2*time.Minute)
		if got.result.ExitCode != 4 || got.token.Epoch != epoch {
			t.Errorf("got %+v, want code 4 under the old epoch %d", got, epoch)
		}
		for _, tok := range []task.Token{short, pulling} {
			if n := c.results(tok); n != 0 {
				t.Errorf("got %d results of %v, want none: its lease lapsed", n, tok)
			}
		}
		if n := len(c.engine.history(pulling)); n != 0 {
			t.Errorf("got %d runs of an attempt that was forgotten, want none", n)
		}
		if s := c.agent.Status(); s.Running != 0 {
			t.Errorf("got %d running, want none", s.Running)
		}
	})
}

func TestLongLeaseEndsAtItsOwnDeadline(t *testing.T) {
	inBubble(t, func(c *cluster) {
		long := c.assign("long", withLease(command("sleep 1h"), time.Minute))
		time.Sleep(3 * time.Second)
		c.cutOff()
		cut := c.now()
		time.Sleep(5 * time.Minute)
		runs := c.engine.history(long)
		if len(runs) != 1 {
			t.Fatalf("got %d runs, want 1", len(runs))
		}
		end := runs[0].end.Sub(cut)
		if limit := time.Minute - task.FenceAhead; end > limit || end < limit-task.Heartbeat-time.Millisecond {
			t.Errorf("got its end %s after contact was lost, want within a heartbeat of %s", end, limit)
		}
		c.net.HealAll()
		if h := c.helloNumber(2, 10*time.Second); h.epoch != 0 || len(h.running) != 0 {
			t.Errorf("got hello %+v, want a new registration that names nothing", h)
		}
	})
}

func TestAttemptLapsingDuringRegistrationVoidsIt(t *testing.T) {
	inBubble(t, func(c *cluster) {
		long := c.assign("long", withLease(command("sleep 1h"), time.Minute))
		time.Sleep(3 * time.Second)
		c.cutOff()
		time.Sleep(task.DefaultLease)
		// Found again at most 3.5 s after the heal, welcomed 4.5 s after that:
		// the attempt lapses in between.
		c.settings(func() { c.slowWelcome = 4500 * time.Millisecond })
		_, age := c.agent.lease.state()
		time.Sleep(time.Minute - task.FenceAhead - age - 4*time.Second)
		c.net.HealAll()
		if h := c.helloNumber(2, 3500*time.Millisecond); !has(h.running, long) {
			t.Fatalf("got hello %+v, want one that still names the attempt", h)
		}
		c.settings(func() { c.slowWelcome = 0 })
		time.Sleep(10 * time.Second)
		c.seen(func() {
			last := c.hellos[len(c.hellos)-1]
			if c.line == nil || last.epoch != 0 || has(last.running, long) || len(c.engine.alive()) != 0 {
				t.Errorf("got last hello %+v, want a registration without the attempt that lapsed", last)
			}
		})
	})
}

func TestLapseVoidsTheHelloThatNamedIt(t *testing.T) {
	var now time.Duration
	l := newLease(func() time.Duration { return now })
	_, void := l.begin()
	l.welcome(void, 7, 0, task.DefaultLease)
	l.hold(task.Token{Task: "t", Attempt: 1, Epoch: 7}, time.Minute, func(error) {})
	now = 20 * time.Second
	epoch, void := l.begin()
	if epoch != 0 || isClosed(void) {
		t.Fatalf("got epoch %d, void %t, want a new registration to begin", epoch, isClosed(void))
	}
	now = time.Minute
	if l.welcome(void, 8, 19*time.Second, task.DefaultLease) || !isClosed(void) {
		t.Error("got a welcome taken that answers a hello with an attempt that has lapsed since")
	}
}

func TestResultOfALapsedNodeStillCounts(t *testing.T) {
	inBubble(t, func(c *cluster) {
		tok := c.assign("t1", command("sleep 3s;exit 5"))
		time.Sleep(time.Second)
		c.cutOff()
		time.Sleep(time.Minute)
		c.net.HealAll()
		h := c.helloNumber(2, 10*time.Second)
		if h.epoch != 0 || !has(h.running, tok) {
			t.Errorf("got hello %+v, want a new registration that names the attempt with the result", h)
		}
		if got := c.result(tok, time.Second).result; got.ExitCode != 5 {
			t.Errorf("got code %d, want 5", got.ExitCode)
		}
	})
}

func TestRegistrationWaitsUntilTheEngineConfirmsTheEnd(t *testing.T) {
	inBubble(t, func(c *cluster) {
		tok := c.assign("t1", command("sleep 1h"))
		c.engine.hang("kill")
		c.cutOff()
		time.Sleep(12 * time.Second)
		c.net.HealAll()
		time.Sleep(2 * time.Minute)
		c.seen(func() {
			if len(c.hellos) != 1 {
				t.Fatalf("got hello %+v with the program alive, want none", c.hellos[1:])
			}
		})
		c.engine.heal("kill")
		h := c.helloNumber(2, killTimeout+2*mostPause)
		runs := c.engine.history(tok)
		if h.epoch != 0 || len(h.running) != 0 || runs[0].end.IsZero() || h.at.Before(runs[0].end) {
			t.Errorf("got hello %+v after runs %+v, want a new registration after the end", h, runs)
		}
	})
}

func TestPausedAgentEndsWhatLapsedBeforeAnythingElse(t *testing.T) {
	inBubble(t, func(c *cluster) {
		running := c.assign("running", command("sleep 1h"))
		creating := c.assign("creating", task.Spec{Image: "slow"})
		time.Sleep(1500 * time.Millisecond)
		woke := c.now()
		c.pause(time.Minute)
		time.Sleep(watchEvery + time.Millisecond)
		runs := c.engine.history(running)
		if len(runs) != 1 || runs[0].end.IsZero() {
			t.Fatalf("got runs %+v %s after the wake, want one that has ended", runs, time.Since(woke))
		}
		h := c.helloNumber(2, 5*time.Second)
		if h.epoch != 0 || len(h.running) != 0 || h.at.Before(runs[0].end) {
			t.Errorf("got hello %+v, want a new registration after the end at %s", h, runs[0].end)
		}
		time.Sleep(5 * time.Second)
		if n := c.results(running) + c.results(creating); n != 0 {
			t.Errorf("got %d results of lapsed attempts, want none", n)
		}
	})
}

func TestPauseWhileTheContainerIsMadeStartsNothing(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.connected(5 * time.Second)
		c.engine.slow("create", 10*time.Millisecond)
		tok := c.assign("t1", command("sleep 1h"))
		time.Sleep(5 * time.Millisecond)
		c.pause(time.Minute)
		time.Sleep(10 * time.Second)
		if n := len(c.engine.history(tok)); n != 0 {
			t.Errorf("got %d runs, want none: the lease lapsed before", n)
		}
		if n := c.engine.left(); n != 0 {
			t.Errorf("got %d containers left, want none", n)
		}
	})
}

func TestStartWhoseTurnComesAfterTheLeaseStartsNothing(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.connected(5 * time.Second)
		c.engine.fault("turn", func(context.Context) error {
			c.pause(time.Minute) // the lease lapses and nothing has noticed yet
			return nil
		})
		tok := c.assign("t1", command("sleep 1h"))
		time.Sleep(10 * time.Second)
		if c.engine.count("turn") == 0 || c.engine.count("start") != 0 || len(c.engine.history(tok)) != 0 {
			t.Errorf("got %d turns, %d starts, want no start: the lease lapsed before", c.engine.count("turn"), c.engine.count("start"))
		}
		if n := c.engine.left(); n != 0 {
			t.Errorf("got %d containers left, want none", n)
		}
	})
}

func TestStartIsTimedFromItsTurn(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.connected(5 * time.Second)
		c.engine.slow("turn", 2*startTimeout)
		tok := c.assign("t1", command("exit 3"))
		if got := c.result(tok, 3*startTimeout).result; got.Outcome != task.Exited {
			t.Errorf("a turn late in coming: got %s (%s), want exited", got.Outcome, got.Reason)
		}
		c.engine.slow("turn", 0)
		c.engine.hang("start")
		tok = c.assign("t2", command("exit 3"))
		if got := c.result(tok, startTimeout+time.Second).result; got.Outcome != task.Interrupted || !strings.Contains(got.Reason, errStartTime.Error()) {
			t.Errorf("a start that hangs: got %s (%s), want interrupted", got.Outcome, got.Reason)
		}
	})
}

func TestAnswerThatComesAfterTheDeadlineSavesNothing(t *testing.T) {
	now := time.Duration(0)
	l := newLease(func() time.Duration { return now })
	_, void := l.begin()
	l.welcome(void, 7, 0, task.DefaultLease)
	lapsed := error(nil)
	tok := task.Token{Task: "t", Attempt: 1, Epoch: 7}
	if !l.hold(tok, task.DefaultLease, func(err error) { lapsed = err }) {
		t.Fatal("got no hold, want one")
	}
	now = fenced + time.Millisecond
	if l.renew(7, fenced-time.Second) || !errors.Is(lapsed, errLapsed) || !isClosed(void) || l.holds(tok) || l.release(tok) {
		t.Errorf("got a lease that lives on, want it lapsed: %v", lapsed)
	}
}

func TestExpiredEpochEndsAttemptsAndRegistersAnew(t *testing.T) {
	inBubble(t, func(c *cluster) {
		short := c.assign("short", command("sleep 1h"))
		long := c.assign("long", withLease(command("sleep 1h"), time.Minute))
		c.settings(func() { c.expired = true })
		c.say(&ecsv1.ControlMessage{Kind: &ecsv1.ControlMessage_Refused{Refused: &ecsv1.Refused{Expired: true, Reason: "too late"}}})
		h := c.helloNumber(2, time.Second)
		if h.epoch != 0 || !slices.Equal(h.running, []task.Token{long}) {
			t.Errorf("got hello %+v, want a new registration that names the long lease only", h)
		}
		if alive := c.engine.alive(); has(alive, short) {
			t.Error("got an attempt alive whose epoch the leader ended, want it ended")
		}
	})
}
