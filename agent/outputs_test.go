package agent

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"ecs/agent/runtime/fake"
	"ecs/agent/spool"
	"ecs/internal/task"
)

// leaves is a task whose program leaves a file and goes on as the script says.
func leaves(script string, outputs ...string) task.Spec {
	spec := command("write /out/a alpha;" + script)
	spec.Image, spec.Outputs = "i", outputs
	return spec
}

// kept reads an attempt's tar from the spool, and gives "name content" of each
// of its files.
func (c *cluster) kept(tok task.Token, want *task.Outputs) (files []string) {
	c.t.Helper()
	var b bytes.Buffer
	err := c.spool.Read(context.Background(), tok, spool.Outputs, 0, 0, false, func(k spool.Chunk) error {
		b.Write(k.Data)
		return nil
	})
	if err != nil || int64(b.Len()) != want.Bytes || sha256.Sum256(b.Bytes()) != want.SHA256 {
		c.t.Fatalf("got %d bytes, %v, want the %d that were reported", b.Len(), err, want.Bytes)
	}
	for in := tar.NewReader(&b); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		content, readErr := io.ReadAll(in)
		if err := errors.Join(err, readErr); err != nil {
			c.t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			files = append(files, fmt.Sprintf("%s %s", h.Name, content))
		}
	}
}

func (c *cluster) wantAlpha(tok task.Token, r *task.Result) {
	c.t.Helper()
	if r.Outputs == nil || r.Outputs.Lost != "" {
		c.t.Fatalf("got outputs %+v of %s, want them", r.Outputs, r.Outcome)
	}
	if got := c.kept(tok, r.Outputs); !slices.Equal(got, []string{"out/a alpha"}) {
		c.t.Errorf("got files %q", got)
	}
}

func TestFilesAreCollectedHoweverTheProgramEnded(t *testing.T) {
	for _, tc := range []struct {
		script string
		limit  time.Duration // of the run
		cancel bool
		want   task.Outcome
	}{
		{script: "exit 3", want: task.Exited},
		{script: "oom", want: task.OOMKilled},
		{script: "sleep 1h", limit: time.Second, want: task.TimedOut},
		{script: "sleep 1h", cancel: true, want: task.Cancelled},
	} {
		inRestarts(t, func(c *cluster, engine *fake.Engine) {
			spec := leaves(tc.script, "/none", "/out")
			spec.Timeouts.Run = tc.limit
			tok := c.assign("t1", spec)
			if tc.cancel {
				time.Sleep(2 * time.Second)
				c.cancelTask(tok)
			}
			r := c.result(tok, time.Minute).result
			if r.Outcome != tc.want || r.Node != "n1" || r.OutputAddr == "" {
				t.Errorf("got %s at %q, want %s with a node to ask", r.Outcome, r.Node, tc.want)
			}
			c.wantAlpha(tok, r)
			if fmt.Sprint(r.Outputs.Missing) != "[0]" || r.Outputs.Entries != 2 || r.Outputs.Truncated {
				t.Errorf("%s: got %+v, want one path missing", tc.want, r.Outputs)
			}
			time.Sleep(time.Minute)
			c.wantAlpha(tok, r) // acknowledged, and the container gone
		})
	}
}

func TestWhatNeverRanLeavesNothing(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		spec := leaves("exit 0", "/out")
		spec.User = "nosuchuser"
		if r := c.result(c.assign("t1", spec), time.Minute).result; r.Outcome != task.StartFailed || r.Outputs != nil {
			t.Errorf("got %s and outputs %+v, want none", r.Outcome, r.Outputs)
		}
		if r := c.result(c.assign("t2", leaves("exit 0")), time.Minute).result; r.Outputs != nil || r.OutputAddr != "" {
			t.Errorf("got outputs %+v, want none: they were not asked for", r.Outputs)
		}
	})
}

func TestAgentKilledWhileItCollectsCollectsAgain(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		engine.SlowCopy(2 * time.Second)
		tok := c.assign("t1", leaves("print x;exit 4", "/out"))
		time.Sleep(3 * time.Second) // it has ended, and is being collected
		c.killAgent(engine)
		time.Sleep(time.Second)
		c.restart(engine)
		r := c.result(tok, time.Minute).result
		if r.Outcome != task.Exited || r.ExitCode != 4 || string(r.Stdout.Head) != "x" {
			t.Errorf("got %+v, want exited with 4", r)
		}
		c.wantAlpha(tok, r)
		time.Sleep(time.Minute)
		if n := c.distinct(tok); n != 1 {
			t.Errorf("got %d different results, want 1", n)
		}
	})
}

func TestEngineThatHangsLosesTheFilesAndNotTheOutcome(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		engine.SlowCopy(time.Hour)
		tok := c.assign("t1", leaves("exit 5", "/out"))
		got := c.result(tok, collectTimeout+10*time.Second)
		r := got.result
		if r.Outcome != task.Exited || r.ExitCode != 5 || r.Outputs == nil || r.Outputs.Lost == "" || r.Outputs.Bytes != 0 {
			t.Errorf("got %s, %+v, want exited and the reason why there are no files", r.Outcome, r.Outputs)
		}
		if r.OutputAddr != "" || got.bill.Output < collectTimeout {
			t.Errorf("got a node at %q and %s of output, want nothing to fetch and the time accounted", r.OutputAddr, got.bill.Output)
		}
		engine.SlowCopy(0)
		time.Sleep(time.Minute)
		if entries, disk := c.spool.Usage(); entries != 0 || disk != 0 {
			t.Errorf("got %d entries with %d bytes in the spool, want none", entries, disk)
		}
	})
}

// lostFor checks that a program's own end is told, and why there are no files.
func (c *cluster) lostFor(r *task.Result, code int, why string) {
	c.t.Helper()
	if r.Outcome != task.Exited || r.ExitCode != code || r.Outputs == nil || !strings.Contains(r.Outputs.Lost, why) {
		c.t.Errorf("got %s with %d, %+v, want exited with %d and its files lost: %s", r.Outcome, r.ExitCode, r.Outputs, code, why)
	}
	if r.OutputAddr != "" {
		c.t.Errorf("got a node at %q, want nothing to fetch", r.OutputAddr)
	}
}

func TestLeavingWhileItCollectsCostsOnlyTheFiles(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		engine.SlowCopy(time.Hour)
		var toks []task.Token
		for i := range collectSlots + 1 { // one of them waits for its turn
			toks = append(toks, c.assign(fmt.Sprint("t", i), leaves(fmt.Sprint("sleep 1s;exit ", i), "/out")))
		}
		endless := c.assign("endless", leaves("sleep 1h", "/out"))
		time.Sleep(2 * time.Second)
		c.cancel()
		<-c.ended
		if c.err != nil {
			t.Errorf("got %v, want a clean end", c.err)
		}
		for i, tok := range toks {
			c.lostFor(c.result(tok, time.Second).result, i, errLeaving.Error())
		}
		if n := c.results(endless); n != 0 {
			t.Errorf("got %d results of a program that ran on, want none", n)
		}
		c.seen(func() {
			if c.goodbye.IsZero() {
				t.Error("got no goodbye, want one")
			}
		})
	})
}

func TestStopWhileItCollectsCostsOnlyTheFiles(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		engine.SlowCopy(time.Hour)
		tok := c.assign("t1", leaves("exit 4", "/out"))
		time.Sleep(2 * time.Second)
		c.cancelTask(tok)
		c.lostFor(c.result(tok, time.Second).result, 4, "stopped on request")
		time.Sleep(time.Minute)
		if n := c.distinct(tok); n != 1 {
			t.Errorf("got %d different results, want 1", n)
		}
	})
}

func TestAFewCollectAtOnce(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		c.connected(5 * time.Second)
		engine.SlowCopy(time.Hour)
		began := time.Now()
		var toks []task.Token
		for i := range 2*collectSlots + 1 {
			toks = append(toks, c.assign(fmt.Sprint("t", i), leaves("exit 0", "/out")))
		}
		var took []time.Duration
		busy := 0
		for _, tok := range toks {
			got := c.result(tok, 2*collectTimeout+10*time.Second)
			took = append(took, got.bill.Output.Round(time.Second))
			if got.result.Outputs.Lost == errCollectTurn.Error() {
				busy++
			}
		}
		slices.Sort(took)
		want := slices.Concat(slices.Repeat([]time.Duration{collectTimeout}, collectSlots), []time.Duration{collectWait},
			slices.Repeat([]time.Duration{2 * collectTimeout}, collectSlots))
		if !slices.Equal(took, want) || busy != 1 {
			t.Errorf("got %v, %d of them for want of a turn; want %v and 1", took, busy, want)
		}
		if all := time.Since(began); all > 2*collectTimeout+5*time.Second {
			t.Errorf("got %s for all of them, want it bounded", all)
		}
		engine.SlowCopy(0)
		tok := c.assign("after", leaves("exit 0", "/out")) // every slot was given back
		c.wantAlpha(tok, c.result(tok, time.Second).result)
	})
}

func TestNothingOfTheNodesIsToldWhenFilesAreLost(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		engine.SlowCopy(5 * time.Second)
		tok := c.assign("t1", leaves("exit 6", "/out"))
		time.Sleep(2 * time.Second)
		engine.SetDown(errors.New("lstat /var/lib/docker/overlay2/cd11/merged/out: input/output error"))
		r := c.result(tok, time.Minute).result
		engine.SetDown(nil)
		c.lostFor(r, 6, "copying them failed")
		if strings.Contains(r.Outputs.Lost, "/") {
			t.Errorf("got %q, want no path of the node's", r.Outputs.Lost)
		}
	})
}

func TestAbandonedAttemptCollectsNothingMore(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		spec := leaves("exit 0", "/out")
		tok := c.assign("t1", spec)
		other := c.assign("t2", command("exit 0"))
		c.result(other, time.Minute)
		engine.SlowCopy(0)
		c.result(tok, time.Minute)

		engine.SlowCopy(time.Hour)
		lost := c.assign("t3", spec)
		time.Sleep(time.Second)
		c.settings(func() { c.mute = true }) // contact is lost while it collects
		began := time.Now()
		c.until("the removal", 25*time.Second, func() bool { return len(engine.Containers("")) == 0 })
		if took := time.Since(began); took > task.DefaultLease+2*time.Second {
			t.Errorf("got %s until it was gone, want no longer than its lease", took)
		}
		c.settings(func() { c.mute = false })
		engine.SlowCopy(0)
		time.Sleep(time.Minute)
		c.seen(func() {
			for _, s := range c.statuses {
				if s.token == lost && s.result != nil {
					t.Errorf("got %+v reported of an attempt that was abandoned", s.result)
				}
			}
		})
		if entries, _ := c.spool.Usage(); entries != 1 {
			t.Errorf("got %d entries in the spool, want the first task's", entries)
		}
	})
}
