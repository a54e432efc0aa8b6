package agent

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

func TestProgramRunsAndIsReportedAndRemoved(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.engine.slow("create", 8*time.Millisecond)
		c.engine.slow("start", 170*time.Millisecond)
		tok := c.assign("t1", command("print hello;sleep 300ms;exit 3"))
		got := c.result(tok, 5*time.Second)
		r := got.result
		if r.Outcome != task.Exited || !r.HasExit || r.ExitCode != 3 {
			t.Errorf("got %s, code %d, want exited with 3", r.Outcome, r.ExitCode)
		}
		if string(r.Stdout.Head) != "hello" || r.Stdout.Bytes != 5 || r.Stdout.Truncated {
			t.Errorf("got stdout %+v, want hello", r.Stdout)
		}
		if r.Node != "" || r.OutputAddr != "" {
			t.Errorf("got output at %q %q, want it all in the record", r.Node, r.OutputAddr)
		}
		if r.ImageDigest != "sha256:program" || r.Attempt != 1 {
			t.Errorf("got digest %q, attempt %d, want sha256:program, 1", r.ImageDigest, r.Attempt)
		}
		b := got.bill
		if b.Create != 8*time.Millisecond || b.Start != 170*time.Millisecond || b.Run != 300*time.Millisecond {
			t.Errorf("got create %s, start %s, run %s, want 8ms, 170ms, 300ms", b.Create, b.Start, b.Run)
		}
		if got.startedAt.IsZero() {
			t.Error("got no start, want one")
		}
		c.until("the removal", time.Second, func() bool { return c.engine.left() == 0 })
		c.seen(func() {
			if n := len(c.statuses); n != 1 {
				t.Errorf("got %d statuses of a short program, want its end only", n)
			}
		})
		if entries, _ := c.spool.Usage(); entries != 0 {
			t.Errorf("got %d entries in the spool, want none: the record has it all", entries)
		}
	})
}

func TestLongOutputStaysInTheSpool(t *testing.T) {
	inBubble(t, func(c *cluster) {
		tok := c.assign("t1", command("spew 100000"))
		r := c.result(tok, 5*time.Second).result
		if r.Node != "n1" || r.OutputAddr != "a1:9" {
			t.Errorf("got output at %q %q, want n1 at a1:9", r.Node, r.OutputAddr)
		}
		if len(r.Stdout.Head) != task.HeadBytes || r.Stdout.Kept != 100000 {
			t.Errorf("got a head of %d and %d kept, want %d and 100000", len(r.Stdout.Head), r.Stdout.Kept, task.HeadBytes)
		}
		time.Sleep(time.Second)
		if entries, _ := c.spool.Usage(); entries != 1 {
			t.Errorf("got %d entries in the spool, want the one", entries)
		}
	})
}

func TestOutputStaysWhenARepeatedResultIsStale(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.settings(func() { c.noAcks = true })
		tok := c.assign("t1", command("spew 100000"))
		c.result(tok, 5*time.Second)
		// It was committed, but the answer was lost; so the repeat is stale.
		c.settings(func() { c.noAcks, c.stale = false, true })
		c.until("a repeat", 2*resendAfter, func() bool { return c.agent.reporter.unacknowledged() == 0 })
		if entries, _ := c.spool.Usage(); entries != 1 {
			t.Errorf("got %d entries in the spool, want the one that the record points to", entries)
		}
	})
}

func TestRunningIsToldOnlyOfProgramsThatGoOn(t *testing.T) {
	inBubble(t, func(c *cluster) {
		began := c.now()
		tok := c.assign("t1", command("sleep 2s"))
		time.Sleep(runningAfter - 10*time.Millisecond)
		c.seen(func() {
			if len(c.statuses) != 0 {
				t.Errorf("got %d statuses before %s, want none", len(c.statuses), runningAfter)
			}
		})
		c.until("word that it runs", 100*time.Millisecond, func() bool { return len(c.statuses) == 1 })
		c.seen(func() {
			if s := c.statuses[0]; s.token != tok || s.result != nil || s.startedAt.Before(began) {
				t.Errorf("got %+v, want that it runs", s)
			}
		})
		c.result(tok, 5*time.Second)
	})
}

func TestOutcomesAreReported(t *testing.T) {
	engineDown := errors.New("engine down")
	for _, tc := range []struct {
		name   string
		spec   task.Spec
		set    func(*engine)
		want   task.Outcome
		code   int
		reason string
		run    int // programs that ran
	}{
		{name: "exit 0", spec: command("exit 0"), want: task.Exited, run: 1},
		{name: "exit 255", spec: command("exit 255"), want: task.Exited, code: 255, run: 1},
		{name: "out of memory", spec: command("oom"), want: task.OOMKilled, code: 137, reason: "the program needed more memory than its limit", run: 1},
		{name: "taken away", spec: command("vanish"), want: task.Interrupted, reason: "somebody removed the container", run: 1},
		{name: "image missing", spec: task.Spec{Image: "missing"}, want: task.ImageNotFound, reason: "no such image"},
		{name: "image store broken", spec: task.Spec{Image: "broken"}, want: task.Interrupted, reason: "get image broken: the engine fell over"},
		{name: "pull too slow", spec: task.Spec{Image: "slow", Timeouts: task.Timeouts{Pull: 3 * time.Second}},
			want: task.PullTimedOut, reason: "the image was not there in time: the limit is 3s"},
		{name: "run too long", spec: task.Spec{Image: "i", Command: command("print some;sleep 1h").Command, Timeouts: task.Timeouts{Run: 3 * time.Second}},
			want: task.TimedOut, reason: "the program ran over its limit of 3s", run: 1},
		{name: "no such command", spec: command("exit 0"), want: task.StartFailed, reason: "no such command",
			set: func(e *engine) {
				e.fail("start", &runtime.Failure{Outcome: task.StartFailed, Reason: "no such command"})
			}},
		{name: "create fails", spec: command("exit 0"), want: task.Interrupted, reason: "create the container: engine down",
			set: func(e *engine) { e.fail("create", engineDown) }},
		{name: "create hangs", spec: command("exit 0"), want: task.Interrupted, reason: "create the container: context deadline exceeded",
			set: func(e *engine) { e.hang("create") }},
		{name: "start fails", spec: command("exit 0"), want: task.Interrupted, reason: "start the container: engine down",
			set: func(e *engine) { e.fail("start", engineDown) }},
		{name: "wait fails", spec: command("sleep 1h"), want: task.Interrupted, reason: "wait for the program: engine down",
			set: func(e *engine) { e.fail("wait", engineDown) }, run: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(c *cluster) {
				c.connected(5 * time.Second)
				if tc.set != nil {
					tc.set(c.engine)
				}
				tok := c.assign("t1", tc.spec)
				got := c.result(tok, 2*time.Minute).result
				if got.Outcome != tc.want || got.ExitCode != tc.code || got.Reason != tc.reason {
					t.Errorf("got %s, code %d, reason %q, want %s, %d, %q", got.Outcome, got.ExitCode, got.Reason, tc.want, tc.code, tc.reason)
				}
				if tc.want == task.TimedOut && string(got.Stdout.Head) != "some" {
					t.Errorf("got stdout %q, want what it wrote until then", got.Stdout.Head)
				}
				if n := len(c.engine.history(tok)); n != tc.run {
					t.Errorf("got %d runs, want %d", n, tc.run)
				}
				if n := len(c.engine.alive()); n != 0 {
					t.Errorf("got %d programs alive when the result came, want none", n)
				}
				time.Sleep(3 * time.Second)
				if n := c.results(tok); n != 1 {
					t.Errorf("got %d results, want 1", n)
				}
				if n := c.engine.left(); n != 0 {
					t.Errorf("got %d containers left, want none", n)
				}
			})
		})
	}
}

func TestCancelGivesOneOutcomeAndLeavesNothing(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spec  task.Spec
		set   func(*engine)
		after time.Duration
		want  task.Outcome
		run   int
	}{
		{name: "while pulling", spec: task.Spec{Image: "slow"}, after: time.Second, want: task.Cancelled},
		{name: "while creating", spec: command("sleep 1h"), after: time.Second, want: task.Cancelled,
			set: func(e *engine) { e.slow("create", 2*time.Second) }},
		{name: "while starting", spec: command("sleep 1h"), after: time.Second, want: task.Cancelled, run: 1,
			set: func(e *engine) { e.slow("start", 2*time.Second) }},
		{name: "at once", spec: command("sleep 1h"), want: task.Cancelled, run: 1},
		{name: "while running", spec: command("print a;sleep 1h"), after: time.Second, want: task.Cancelled, run: 1},
		{name: "after the end", spec: command("exit 7"), after: time.Second, want: task.Exited, run: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(c *cluster) {
				c.connected(5 * time.Second)
				if tc.set != nil {
					tc.set(c.engine)
				}
				tok := c.assign("t1", tc.spec)
				time.Sleep(tc.after)
				c.cancelTask(tok)
				c.cancelTask(tok)
				got := c.result(tok, 5*time.Second).result
				if got.Outcome != tc.want {
					t.Errorf("got %s, want %s", got.Outcome, tc.want)
				}
				if got.Outcome == task.Cancelled && (got.HasExit || got.Reason == "") {
					t.Errorf("got exit %t and reason %q, want no exit and a reason", got.HasExit, got.Reason)
				}
				time.Sleep(10 * time.Second)
				if n := c.results(tok); n != 1 {
					t.Errorf("got %d results, want 1", n)
				}
				if n := c.engine.left(); n != 0 {
					t.Errorf("got %d containers left, want none", n)
				}
				if runs := c.engine.history(tok); len(runs) != tc.run {
					t.Errorf("got %d runs, want %d", len(runs), tc.run)
				}
			})
		})
	}
}

func TestInterruptedIsToldOnlyAfterTheEndIsConfirmed(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.connected(5 * time.Second)
		c.engine.fail("wait", errors.New("engine restarted"))
		c.engine.fail("kill", errors.New("engine restarting"))
		tok := c.assign("t1", command("sleep 1h"))
		time.Sleep(time.Minute)
		if n := c.results(tok); n != 0 {
			t.Fatalf("got a result while the program may run, want none")
		}
		c.engine.heal("kill")
		got := c.result(tok, 2*mostPause)
		if got.result.Outcome != task.Interrupted || len(c.engine.alive()) != 0 {
			t.Errorf("got %s with %d alive, want interrupted and none", got.result.Outcome, len(c.engine.alive()))
		}
	})
}

func TestLostAnswerToStartCanNotStartTheProgramLater(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.connected(5 * time.Second)
		c.engine.fail("start", errLateStart)
		tok := c.assign("t1", command("sleep 1h"))
		if got := c.result(tok, 5*time.Second).result; got.Outcome != task.Interrupted {
			t.Errorf("got %s, want interrupted", got.Outcome)
		}
		time.Sleep(10 * time.Second)
		if runs := c.engine.history(tok); len(runs) != 0 {
			t.Errorf("got a program that started after its attempt was reported lost")
		}

		// Killing what does not run yet is not enough to report it.
		c.engine.fail("remove", errors.New("busy"))
		tok = c.assign("t2", command("sleep 1h"))
		time.Sleep(20 * time.Second)
		if n := c.results(tok); n != 0 {
			t.Errorf("got a result before the container was gone")
		}
		c.engine.heal("remove")
		c.result(tok, 2*mostPause)
		if n := len(c.engine.alive()); n != 0 {
			t.Errorf("got %d programs alive when the result came, want none", n)
		}
	})
}

func TestCancelledTaskDoesNotWaitForEverForAHangingEngine(t *testing.T) {
	inBubble(t, func(c *cluster) {
		tok := c.assign("t1", command("sleep 1h"))
		c.engine.hang("kill")
		c.engine.hang("remove")
		c.cancelTask(tok)
		got := c.result(tok, quenchPatience+5*time.Second).result
		if got.Outcome != task.Cancelled {
			t.Errorf("got %s, want cancelled", got.Outcome)
		}
		c.engine.heal("remove")
		c.until("the removal", 2*time.Minute, func() bool { return c.engine.left() == 0 })
	})
}

func TestRemovalIsRepeatedAndNeverHoldsUpTheResult(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.connected(5 * time.Second)
		c.engine.fail("remove", errors.New("device or resource busy"))
		tok := c.assign("t1", command("exit 0"))
		c.result(tok, time.Second)
		c.until("ten tries", 2*time.Minute, func() bool { return c.engine.count("remove") >= 10 })
		c.engine.heal("remove")
		c.until("the removal", 2*mostPause, func() bool { return c.engine.left() == 0 })
	})
}

func TestContainerThatCanNotBeRemovedIsLeftToTheSweeper(t *testing.T) {
	inBubble(t, func(c *cluster) {
		c.connected(5 * time.Second)
		time.Sleep(7 * time.Second) // out of step with the sweeper's own turns
		c.engine.fail("remove", errors.New("device or resource busy"))
		tok := c.assign("t1", command("exit 0"))
		c.result(tok, time.Second)
		c.until("the sweep", removeFor+5*time.Second, func() bool { return c.engine.left() == 0 })
		if s := c.agent.Status(); s.Removing != 0 {
			t.Errorf("got %d removals pending, want none", s.Removing)
		}
	})
}

func TestContainerOfALostCreateIsSwept(t *testing.T) {
	inBubble(t, func(c *cluster) {
		tok := c.assign("t1", task.Spec{Image: "slow"}) // claimed
		other := task.Token{Task: "t2", Attempt: 1, Epoch: tok.Epoch}
		for _, made := range []task.Token{tok, other} {
			if _, err := c.engine.Create(t.Context(), runtime.Order{Token: made}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(sweepEvery + time.Second)
		c.engine.mu.Lock()
		_, kept := c.engine.containers[tok]
		_, left := c.engine.containers[other]
		c.engine.mu.Unlock()
		if !kept || left {
			t.Errorf("got claimed kept %t, unclaimed kept %t, want true, false", kept, left)
		}
		c.cancelTask(tok)
		c.result(tok, time.Second)
		time.Sleep(sweepEvery + time.Second)
	})
}

func TestWhatACrashLeftIsGoneBeforeTheFirstHello(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, dir)
		left := task.Token{Task: "old", Attempt: 1, Epoch: 3}
		old, err := c.engine.Create(t.Context(), runtime.Order{Token: left, Spec: command("sleep 24h")})
		if err != nil {
			t.Fatal(err)
		}
		if err := old.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.engine.fail("reap", errors.New("engine starting"))
		c.run()
		defer c.stop()
		time.Sleep(time.Minute)
		c.seen(func() {
			if len(c.visits) != 0 {
				t.Fatalf("got visits %v while leftovers may run, want none", c.visits)
			}
		})
		c.engine.heal("reap")
		h := c.helloNumber(1, 2*mostPause)
		if n := len(c.engine.alive()); n != 0 {
			t.Errorf("got %d leftovers alive at the hello, want none", n)
		}
		if h.epoch != 0 || len(h.running) != 0 || h.node.Attributes[task.AttributeEgress] != "true" || h.node.Engine != "scripted" {
			t.Errorf("got hello %+v %+v, want a new registration with egress", h, h.node)
		}
		if got := h.node.Attributes[task.AttributeWarmSlots]; got != "0" {
			t.Errorf("got %q containers ahead, want to hear that the pool is off", got)
		}
	})
}
