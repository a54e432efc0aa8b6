package main

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ecs/internal/initwire"
)

func TestExits(t *testing.T) {
	for name, c := range map[string]struct {
		script       string
		code, signal int
		stdout       string
		stderr       string
	}{
		"zero":            {"echo out; echo err >&2", 0, 0, "out\n", "err\n"},
		"code":            {"exit 42", 42, 0, "", ""},
		"signal":          {"kill -TERM $$", 143, 15, "", ""},
		"own SIGKILL":     {"kill -KILL $$", 137, 9, "", ""},
		"no input":        {"cat", 0, 0, "", ""},
		"dev stderr":      {"echo a > /dev/stderr; echo b > /dev/stdout", 0, 0, "b\n", "a\n"},
		"own session":     {"test $(cut -d' ' -f6 /proc/$$/stat 2>/dev/null || busybox cut -d' ' -f6 /proc/$$/stat) = $$", 0, 0, "", ""},
		"no descriptors":  {"ls /proc/self/fd", 0, 0, "0\n1\n2\n3\n", ""}, // 3 is the directory
		"default signals": {"grep -E 'Sig(Blk|Ign|Cgt)|ShdPnd' /proc/self/status | busybox tr -d '0\\n\\t'", 0, 0, "ShdPnd:SigBlk:SigIgn:SigCgt:", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := run(t, shell(c.script))
			if s.failed != nil {
				t.Fatalf("failed: %+v", *s.failed)
			}
			e := *s.exit
			if e.Code != c.code || e.Signal != c.signal || e.Cause != initwire.CauseProgram {
				t.Errorf("got %+v, want code %d, signal %d", e, c.code, c.signal)
			}
			if s.stdout.String() != c.stdout || s.stderr.String() != c.stderr {
				t.Errorf("got %q and %q, want %q and %q", s.stdout.String(), s.stderr.String(), c.stdout, c.stderr)
			}
			if e.Stdout != s.have.Stdout || e.Stderr != s.have.Stderr || e.Started <= 0 || e.Ended < e.Started {
				t.Errorf("got %+v after %+v", e, s.have)
			}
			if s.started == nil || s.started.PID <= 1 || s.started.Boottime != e.Started {
				t.Errorf("got started %+v", s.started)
			}
		})
	}
}

// TestNobodyIsLeft runs programs that leave others behind, which hold the output
// open. All are gone before Exit, and PID 1 alone is left.
func TestNobodyIsLeft(t *testing.T) {
	for name, script := range map[string]string{
		"background":   "sleep 1000 & echo begun",
		"new session":  "setsid sleep 1000 & echo begun",
		"double fork":  "(setsid sh -c 'sleep 1000 & sleep 1000 &' &) ; echo begun",
		"ignores TERM": "(trap '' TERM HUP INT QUIT; setsid sleep 1000 &) ; nohup sleep 1000 & echo begun",
		"stopped":      "sh -c 'kill -STOP $$' & echo begun",
		"zombies":      "for i in 1 2 3 4 5 6 7 8; do (sleep 0 &) ; done; sleep 0.05; echo begun",
		"subreaper":    "prog subreaper & sleep 0.1; echo begun",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t)
			s := c.accept(initwire.Position{})
			s.send(shell(script))
			s.finish()
			if got := processes(t, c); len(got) != 1 {
				t.Errorf("with the exit in hand, processes %v are there, want PID 1 alone", got)
			}
			if s.stdout.String() != "begun\n" || s.exit.Code != 0 {
				t.Errorf("got %q and %+v", s.stdout.String(), s.exit)
			}
			c.done(s)
		})
	}
}

func TestForkBombEnds(t *testing.T) {
	c := start(t, inPidsCgroup(t, 64))
	s := c.accept(initwire.Position{})
	s.ack = true
	o := order("prog", "bomb")
	o.RunLimit = time.Second
	s.send(o)
	s.finish()
	if s.exit == nil || s.exit.Cause != initwire.CauseRunLimit {
		t.Fatalf("got %+v, %+v, want the run limit", s.exit, s.failed)
	}
	if got := processes(t, c); len(got) != 1 {
		t.Errorf("with the exit in hand, processes %v are there, want PID 1 alone", got)
	}
	c.done(s)
}

// TestForkBombThenExit leaves a full container behind a program that ends itself.
func TestForkBombThenExit(t *testing.T) {
	c := start(t, inPidsCgroup(t, 64))
	s := c.accept(initwire.Position{})
	s.send(shell("prog bomb & sleep 0.5; exit 3"))
	s.finish()
	if s.exit == nil || s.exit.Code != 3 {
		t.Fatalf("got %+v, %+v, want 3", s.exit, s.failed)
	}
	if got := processes(t, c); len(got) != 1 {
		t.Errorf("with the exit in hand, processes %v are there, want PID 1 alone", got)
	}
	c.done(s)
}

func TestStoppedProgramEndsAtItsLimit(t *testing.T) {
	o := shell("trap '' TERM; kill -STOP $$; echo never")
	o.RunLimit = 300 * time.Millisecond
	s := run(t, o)
	if e := s.exit; e.Cause != initwire.CauseRunLimit || e.Signal != 9 || e.Code != 137 {
		t.Errorf("got %+v, want the run limit", e)
	}
	if ran := s.exit.Ended - s.exit.Started; ran < o.RunLimit || ran > o.RunLimit+inTime {
		t.Errorf("it ran for %s, want %s", ran, o.RunLimit)
	}
}

func TestKill(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	s.send(shell("trap '' TERM; echo on; while :; do sleep 1000; done"))
	s.until(func() bool { return s.stdout.Len() > 0 })
	s.send(initwire.Kill{})
	if s.finish(); s.exit.Cause != initwire.CauseKilled || s.exit.Code != 137 {
		t.Errorf("got %+v, want killed", s.exit)
	}
	c.done(s)
}

func TestKillBeforeTheOrder(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	s.send(initwire.Kill{})
	s.send(shell("echo never"))
	if s.finish(); s.exit == nil || s.exit.Cause != initwire.CauseKilled || s.started != nil || s.stdout.Len() > 0 {
		t.Errorf("got %+v, started %v", s.exit, s.started)
	}
	if e := s.exit; e != nil && (e.Started != e.Ended || e.StartedAt != 0) {
		t.Errorf("got %+v, want no time of its own", e)
	}
	c.done(s)
}

func TestSignalsReachTheProgram(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	s.send(shell("trap 'echo usr1' USR1; trap 'echo term; exit 5' TERM; echo ready; while :; do sleep 0.01; done"))
	s.until(func() bool { return strings.HasPrefix(s.stdout.String(), "ready") })
	s.send(initwire.Signal{Number: 10})
	s.until(func() bool { return strings.Contains(s.stdout.String(), "usr1") })
	// The engine's own way, as with `docker stop`.
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if s.finish(); s.exit.Code != 5 || !s.exit.Passed || s.stdout.String() != "ready\nusr1\nterm\n" {
		t.Errorf("got %+v and %q", s.exit, s.stdout.String())
	}
	c.done(s)
}

// TestOnlySignalsFromOutsideAreToldOf: an agent knows what it sent itself.
func TestOnlySignalsFromOutsideAreToldOf(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	s.send(shell("trap 'exit 6' TERM; echo ready; while :; do sleep 0.01; done"))
	s.until(func() bool { return s.stdout.Len() > 0 })
	s.send(initwire.Signal{Number: 15})
	if s.finish(); s.exit.Code != 6 || s.exit.Passed {
		t.Errorf("got %+v", s.exit)
	}
	c.done(s)
}

// TestSignalsFromOutsideDoNotEndInit sends PID 1 all that would end a Go program.
func TestSignalsFromOutsideDoNotEndInit(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	o := shell("trap '' HUP INT QUIT TERM USR1 USR2; echo ready; read x; echo got $x")
	o.Stdin = initwire.StdinStream
	s.send(o)
	s.until(func() bool { return s.stdout.Len() > 0 })
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1,
		syscall.SIGUSR2, syscall.SIGSEGV, syscall.SIGABRT, syscall.SIGALRM, syscall.SIGPIPE, syscall.SIGPROF} {
		if err := c.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.w.Data(initwire.KindStdin, 0, []byte("it\n"), nil); err != nil {
		t.Fatal(err)
	}
	if s.finish(); s.exit.Code != 0 || s.stdout.String() != "ready\ngot it\n" {
		t.Errorf("got %+v and %q", s.exit, s.stdout.String())
	}
	c.done(s)
}

// TestSecondStageDiesBeforeTheOrder: an agent that is about to give the order is
// told, and where the container is only parked, which a lease without an answer to
// the Hello says, the end tells it.
func TestSecondStageDiesBeforeTheOrder(t *testing.T) {
	killStage := func(t *testing.T, c *container) {
		var stage int
		waitFor(t, "the second stage is there", func() bool {
			for _, pid := range processes(t, c) {
				if n, _ := strconv.Atoi(pid); n != c.cmd.Process.Pid {
					stage = n
				}
			}
			return stage != 0
		})
		if err := syscall.Kill(stage, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	alone := func(c *container) func() bool {
		return func() bool { return len(processes(t, c)) == 1 }
	}
	t.Run("cold", func(t *testing.T) {
		c := start(t)
		s := c.greet()
		killStage(t, c)
		waitFor(t, "it is alone", alone(c))
		s.send(initwire.Resume(initwire.Position{}))
		s.send(shell("echo never"))
		if s.finish(); s.failed == nil || s.failed.Reason != initwire.BadOther {
			t.Errorf("got %+v, %+v; want that it could not be prepared", s.failed, s.exit)
		}
		c.done(s)
	})
	t.Run("parked", func(t *testing.T) {
		c := start(t)
		s := c.greet()
		s.send(initwire.Lease{Deadline: boottime() + time.Minute})
		killStage(t, c)
		c.ends(exitFault)
	})
	t.Run("parked, then given an order", func(t *testing.T) {
		c := start(t)
		s := c.greet()
		s.send(initwire.Lease{Deadline: boottime() + time.Minute})
		s.send(initwire.Resume(initwire.Position{}))
		s.send(shell("exit 3"))
		if s.finish(); s.exit == nil || s.exit.Code != 3 {
			t.Errorf("got %+v, %+v; want code 3", s.failed, s.exit)
		}
		c.done(s)
	})
}
