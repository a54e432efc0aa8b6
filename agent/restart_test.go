package agent

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ecs/agent/journal"
	"ecs/agent/runtime/fake"
	"ecs/internal/task"
	"ecs/internal/telemetry"
)

// inRestarts runs a test with an agent on a fake engine that outlives it.
func inRestarts(t *testing.T, test func(c *cluster, engine *fake.Engine), options ...func(*Config)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		engine := fake.NewEngine()
		options = append([]func(*Config){func(cfg *Config) { cfg.Runtime, cfg.Images = engine.For("n1"), engine.Images() }}, options...)
		c := newCluster(t, dir, options...)
		engine.SetClock(c.cfg.Now)
		c.run()
		defer func() {
			engine.SetDown(nil)
			c.stop()
			if left := engine.Containers(""); len(left) != 0 {
				t.Errorf("after the agent's end: got containers %v, want none", left)
			}
			c.wantNoTrace()
		}()
		test(c, engine)
	})
}

// killAgent is kill -9 of the agent: what it has begun goes on without it.
func (c *cluster) killAgent(engine *fake.Engine) {
	synctest.Wait()
	engine.Orphan("n1")
	c.kill(ErrKilled)
	<-c.ended
	synctest.Wait()
}

// restart starts the next agent.
func (c *cluster) restart(engine *fake.Engine) {
	c.cfg.Runtime = engine.For("n1")
	c.install()
	c.settings(func() { c.line = nil }) // before the next one can open its own
	c.run()
}

// wantNoTrace checks that an agent that has left keeps nothing but output.
func (c *cluster) wantNoTrace() {
	c.t.Helper()
	left, err := journal.New(c.cfg.JournalDir, telemetry.NewLogger(io.Discard, 0)).Load()
	if err != nil || len(left.Records) != 0 || left.Lease.Epoch != 0 {
		c.t.Errorf("journal: got %+v, %v, want no attempts and no epoch", left, err)
	}
	files, _ := filepath.Glob(filepath.Join(c.dir, "spool", "*"))
	if entries, _ := c.spool.Usage(); len(files) > 4*entries {
		c.t.Errorf("spool: got files %v of %d entries", files, entries)
	}
}

// distinct counts the different results that came of an attempt.
func (c *cluster) distinct(tok task.Token) int {
	said := map[string]bool{}
	c.seen(func() {
		for _, s := range c.statuses {
			if s.token == tok && s.result != nil {
				said[fmt.Sprint(*s.result)] = true
			}
		}
	})
	return len(said)
}

func TestAgentKilledInAnyPhaseGivesOneResult(t *testing.T) {
	const pullFor, createFor, startFor, runFor = time.Minute, 2 * time.Second, 2 * time.Second, 20 * time.Second
	for _, tc := range []struct {
		phase string
		at    time.Duration // after the assignment
		again bool          // it never began, so that the leader assigns it again
		mute  bool          // results are not acknowledged before the kill
	}{
		{phase: "pulling", at: pullFor / 2, again: true},
		{phase: "creating", at: pullFor + createFor/2, again: true},
		{phase: "starting", at: pullFor + createFor + startFor/2, again: true},
		{phase: "begun", at: pullFor + createFor + startFor},
		{phase: "running", at: pullFor + createFor + startFor + runFor/2},
		{phase: "just before its end", at: pullFor + createFor + startFor + runFor - time.Second},
		{phase: "ended", at: pullFor + createFor + startFor + runFor, mute: true},
		{phase: "reported", at: pullFor + createFor + startFor + runFor + time.Second, mute: true},
		{phase: "acknowledged", at: pullFor + createFor + startFor + runFor + time.Second},
	} {
		t.Run(tc.phase, func(t *testing.T) {
			inRestarts(t, func(c *cluster, engine *fake.Engine) {
				c.connected(5 * time.Second)
				engine.Slow(createFor, startFor)
				c.settings(func() { c.noAcks = tc.mute })
				spec := task.Spec{Image: "slow", Command: []string{"echo", "one", ";", "sleep", runFor.String(), ";", "echo", "two", ";", "exit", "3"}}
				tok := c.assign("t1", spec)
				time.Sleep(tc.at)
				c.killAgent(engine)
				time.Sleep(2 * time.Second)
				c.settings(func() { c.noAcks = false })
				c.restart(engine)
				h := c.helloNumber(2, 5*time.Second)
				if h.epoch != tok.Epoch {
					t.Errorf("got hello %+v, want epoch %d resumed", h, tok.Epoch)
				}
				if acked := tc.phase == "acknowledged"; has(h.running, tok) == (tc.again || acked) {
					t.Errorf("got hello %+v, want the attempt named exactly if it may have begun", h)
				}
				if tc.again {
					c.connected(5 * time.Second)
					c.assignAs(tok, spec)
				}
				got := c.result(tok, 2*time.Minute).result
				if got.Outcome != task.Exited || got.ExitCode != 3 || string(got.Stdout.Head) != "one\ntwo\n" || got.ImageDigest == "" {
					t.Errorf("got %+v, want exited with 3 after both lines", got)
				}
				time.Sleep(10 * time.Second)
				if n := c.distinct(tok); n != 1 {
					t.Errorf("got %d different results, want 1", n)
				}
				if runs := engine.History(); len(runs) != 1 || runs[0].EndedAt.Sub(runs[0].StartedAt) != runFor {
					t.Errorf("got runs %+v, want one of %s", runs, runFor)
				}
				if n := c.agent.reporter.unacknowledged(); n != 0 {
					t.Errorf("got %d results not acknowledged, want none", n)
				}
			})
		})
	}
}

func TestNoByteIsLostOrDoubledOverRestarts(t *testing.T) {
	var script []string
	want := ""
	for i := range 60 {
		line := fmt.Sprintf("line %d %01000d", i, i)
		script = append(script, "echo", line, ";", "sleep", "500ms", ";")
		want += line + "\n"
	}
	for _, max := range []int{4000, 20_000, 1 << 20} {
		t.Run(fmt.Sprint(max), func(t *testing.T) {
			inRestarts(t, func(c *cluster, engine *fake.Engine) {
				c.connected(5 * time.Second)
				time.Sleep(2 * time.Second) // beyond zero on the clock: that is no contact, and no lease to resume
				tok := c.assign("t1", task.Spec{Image: "i", Command: append(slices.Clone(script), "exit", "0"), MaxOutput: int64(max)})
				for i := range 6 {
					if i > 0 { // the first agent has all of it in memory only
						time.Sleep(2 * time.Second)
					}
					time.Sleep(300 * time.Millisecond)
					c.killAgent(engine)
					time.Sleep(1700 * time.Millisecond)
					c.restart(engine)
					c.connected(5 * time.Second)
				}
				got := c.result(tok, time.Minute).result
				kept := want[:min(max, len(want))]
				if got.Stdout.Bytes != int64(len(want)) || got.Stdout.Kept != int64(len(kept)) || string(got.Stdout.Head) != kept[:min(task.HeadBytes, len(kept))] {
					t.Errorf("got %d bytes with %d kept, want %d with %d", got.Stdout.Bytes, got.Stdout.Kept, len(want), len(kept))
				}
				if got.Stdout.SHA256 != sha(kept) {
					t.Error("got other bytes than the program wrote")
				}
			})
		})
	}
}

// The sweep of the spool comes right after the runners are let go; how many of
// them have reopened their output by then is up to the scheduler, so there are
// many. More is written than the engine gives a second time.
func TestSweepAfterARestartSparesWhatIsAboutToBeTakenUp(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		c.connected(5 * time.Second)
		const size = 100_000
		var want []byte
		for b := range size {
			want = append(want, byte(b%251))
		}
		want = append(want, "end\n"...)
		var toks []task.Token
		for i := range 40 {
			toks = append(toks, c.assign(fmt.Sprintf("t%d", i), task.Spec{Image: "i", MaxOutput: 1 << 20,
				Command: []string{"spew", fmt.Sprint(size), ";", "sleep", "10s", ";", "echo", "end"}}))
		}
		time.Sleep(5 * time.Second)
		c.killAgent(engine)
		c.restart(engine)
		for _, tok := range toks {
			got := c.result(tok, time.Minute).result
			if got.Stdout.Kept != int64(len(want)) || got.Stdout.SHA256 != sha(string(want)) {
				t.Errorf("%s: got %d bytes of %d kept, want all", tok.Task, got.Stdout.Kept, got.Stdout.Bytes)
			}
		}
	})
}

func TestProgramEndsByItsLeaseWithoutAnAgent(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		short := c.assign("short", command("sleep 1h"))
		long := c.assign("long", withLease(command("sleep 40s;exit 4"), time.Minute))
		time.Sleep(25 * time.Second) // renewals count
		epoch := c.epoch
		c.killAgent(engine)
		killed := c.now()
		time.Sleep(12 * time.Second)
		for _, r := range engine.History() {
			switch alive := r.EndedAt.Sub(killed); {
			case r.Token == short && (alive > fenced || alive < fenced-task.Heartbeat-time.Millisecond):
				t.Errorf("got its end %s after the kill, want within a heartbeat of %s", alive, fenced)
			case r.Token == long && !r.EndedAt.IsZero():
				t.Errorf("got the long lease ended after %s", alive)
			}
		}
		c.restart(engine)
		h := c.helloNumber(2, 5*time.Second)
		if h.epoch != 0 || !slices.Equal(h.running, []task.Token{long}) {
			t.Errorf("got hello %+v, want a new registration that names the long lease only", h)
		}
		if got := c.result(long, time.Minute); got.result.ExitCode != 4 || got.token.Epoch != epoch {
			t.Errorf("got %+v, want code 4 under the old epoch", got)
		}
		if n := c.results(short); n != 0 {
			t.Errorf("got %d results of a lapsed attempt, want none", n)
		}
	})
}

func TestAnotherBootTakesNothingUp(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		tok := c.assign("t1", command("sleep 1h"))
		c.settings(func() { c.noAcks = true })
		c.result(c.assign("t2", command("exit 0")), time.Second)
		time.Sleep(time.Second)
		c.killAgent(engine)
		c.cfg.BootID = "the next"
		c.restart(engine)
		h := c.helloNumber(2, 5*time.Second)
		if h.epoch != 0 || len(h.running) != 0 || len(engine.Containers("")) != 0 {
			t.Errorf("got hello %+v with containers %v, want a new registration that names nothing", h, engine.Containers(""))
		}
		if n := c.results(tok); n != 0 {
			t.Errorf("got %d results, want none", n)
		}
	})
}

func TestDamagedJournalEndsWhatItCanNotName(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		c.assign("t1", command("sleep 1h"))
		time.Sleep(time.Second)
		c.killAgent(engine)
		files, err := filepath.Glob(filepath.Join(c.cfg.JournalDir, "*.attempt"))
		if err != nil || len(files) != 1 {
			t.Fatalf("got %v, %v, want one file", files, err)
		}
		if err := os.Truncate(files[0], 30); err != nil {
			t.Fatal(err)
		}
		c.restart(engine)
		// Resuming would have the leader assign it once more, as if new.
		if h := c.helloNumber(2, 5*time.Second); h.epoch != 0 || len(engine.Containers("")) != 0 {
			t.Errorf("got hello %+v with containers %v, want a new registration with none", h, engine.Containers(""))
		}
	})
}

func TestRunLimitHoldsWithoutAnAgent(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		limited := func(script string) task.Spec {
			s := command(script)
			s.Timeouts.Run = 5 * time.Second
			return s
		}
		over, brief := c.assign("over", limited("print x;sleep 1h")), c.assign("brief", limited("sleep 4s;exit 6"))
		watched := c.assign("watched", limited("sleep 1h"))
		time.Sleep(time.Second)
		began := engine.History()[0].StartedAt
		c.killAgent(engine)
		time.Sleep(6 * time.Second)
		c.restart(engine)
		got := c.result(over, 20*time.Second).result
		if got.Outcome != task.TimedOut || got.Reason != "the program ran over its limit of 5s" || string(got.Stdout.Head) != "x" {
			t.Errorf("got %+v, want timed_out", got)
		}
		if got := c.result(brief, time.Second).result; got.Outcome != task.Exited || got.ExitCode != 6 {
			t.Errorf("got %+v, want exited with 6: it ended in time", got)
		}
		c.result(watched, time.Second)
		for _, r := range engine.History() {
			if took := r.EndedAt.Sub(began); took > 5*time.Second {
				t.Errorf("%v: got its end after %s, want 5s", r.Token, took)
			}
		}
	})
}

func TestContainerThatSaysItsLeaseIsOverIsAbandoned(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		tok := c.assign("t1", command("sleep 1h"))
		other := c.assign("t2", command("sleep 20s;exit 2"))
		time.Sleep(time.Second)
		// As when its clock and ours differ: it hears of no renewal.
		engine.Forget(tok)
		h := c.helloNumber(2, 15*time.Second)
		if h.epoch != 0 || has(h.running, tok) || !has(h.running, other) {
			t.Errorf("got hello %+v, want a new registration without it", h)
		}
		c.result(other, time.Minute)
		if n := c.results(tok); n != 0 {
			t.Errorf("got %d results of a lapsed attempt, want none", n)
		}
	})
}

func TestStopOutlivesTheAgentThatWasAsked(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		tok := c.assign("t1", command("sleep 1h"))
		time.Sleep(time.Second)
		engine.SlowKill(time.Hour, 1) // for the agent to be killed amid it
		c.cancelTask(tok)
		time.Sleep(10 * time.Millisecond)
		c.killAgent(engine)
		engine.SlowKill(0, 0)
		engine.KillFromOutside(tok)
		c.restart(engine)
		if got := c.result(tok, 5*time.Second).result; got.Outcome != task.Cancelled {
			t.Errorf("got %+v, want cancelled", got)
		}
	})
}

func TestEngineThatIsDownAtTheRestartDoesNotLoseTheAttempt(t *testing.T) {
	for _, down := range []time.Duration{4 * time.Second, 30 * time.Second} {
		t.Run(down.String(), func(t *testing.T) {
			inRestarts(t, func(c *cluster, engine *fake.Engine) {
				tok := c.assign("t1", command("sleep 20s;exit 5"))
				time.Sleep(time.Second)
				c.killAgent(engine)
				engine.SetDown(errors.New("restarting"))
				c.restart(engine)
				time.Sleep(down)
				engine.SetDown(nil)
				h := c.helloNumber(2, 2*mostPause)
				if down < fenced {
					if got := c.result(tok, time.Minute).result; h.epoch != tok.Epoch || got.ExitCode != 5 {
						t.Errorf("got hello %+v and %+v, want the attempt to go on", h, got)
					}
					return
				}
				if h.epoch != 0 || len(h.running) != 0 || len(engine.Containers("")) != 0 {
					t.Errorf("got hello %+v with %v, want a new registration and nothing left", h, engine.Containers(""))
				}
			})
		})
	}
}

func TestContainerThatVanishedMeanwhileIsInterrupted(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		tok := c.assign("t1", command("echo out;sleep 1h"))
		time.Sleep(time.Second)
		c.killAgent(engine)
		engine.RemoveFromOutside(tok)
		c.restart(engine)
		got := c.result(tok, 5*time.Second).result
		if got.Outcome != task.Interrupted {
			t.Errorf("got %+v, want interrupted", got)
		}
		if string(got.Stdout.Head) != "out\n" {
			t.Errorf("got %q, want what it wrote while there was an agent", got.Stdout.Head)
		}
	})
}

// What ends a container ends what else has its output.
func TestOutputIsSecuredBeforeItsContainerIsEnded(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		c.connected(5 * time.Second)
		time.Sleep(2 * time.Second) // beyond zero on the clock: that is no contact, and no lease to resume
		tok := c.assign("t1", command("echo out;sleep 1h"))
		time.Sleep(runningAfter / 2)
		engine.SlowKill(time.Hour, 1)
		c.cancelTask(tok)
		time.Sleep(runningAfter / 4)
		c.killAgent(engine)
		engine.SlowKill(0, 0)
		engine.RemoveFromOutside(tok)
		c.restart(engine)
		got := c.result(tok, 5*time.Second).result
		if got.Outcome != task.Cancelled || string(got.Stdout.Head) != "out\n" {
			t.Errorf("got %s with %q, want cancelled with what it wrote", got.Outcome, got.Stdout.Head)
		}
	})
}

func TestWhatCanNotBeWrittenDownIsNotBegun(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		c.connected(5 * time.Second)
		moved := c.cfg.JournalDir + ".moved"
		if err := os.Rename(c.cfg.JournalDir, moved); err != nil {
			t.Fatal(err)
		}
		if got := c.result(c.assign("t1", command("exit 0")), 5*time.Second).result; got.Outcome != task.Interrupted || len(engine.History()) != 0 {
			t.Errorf("got %+v after %d runs, want interrupted and none", got, len(engine.History()))
		}
		unfit := func() bool { return c.beats[len(c.beats)-1].GetUnfit() != "" }
		c.until("word of it", 2*probeEvery, unfit)
		if err := os.Rename(moved, c.cfg.JournalDir); err != nil {
			t.Fatal(err)
		}
		c.until("its recovery", 2*probeEvery, func() bool { return !unfit() })
		c.result(c.assign("t2", command("exit 0")), 5*time.Second)
	})
}

func TestUnfitForAReasonFromOutsideIsTold(t *testing.T) {
	var why atomic.Value
	why.Store("")
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		c.connected(5 * time.Second)
		last := func() string { return c.beats[len(c.beats)-1].GetUnfit() }
		for _, want := range []string{"the fence is gone", "the fence is gone", "", "still"} {
			c.seen(func() {
				if want == last() && want != "" {
					why.Store("another word for it") // every change is committed
				} else {
					why.Store(want)
				}
			})
			time.Sleep(2 * task.Heartbeat)
			c.seen(func() {
				if last() != want {
					t.Errorf("got %q, want %q", last(), want)
				}
			})
		}
	}, func(cfg *Config) { cfg.Unfit = func() string { return why.Load().(string) } })
}

func sha(s string) [32]byte { return sha256.Sum256([]byte(s)) }
