package main

import (
	"testing"
	"time"

	"ecs/internal/initwire"
	"ecs/internal/task"
)

// inTime is how late an end may be: before the fence comes to do it from outside.
const inTime = task.FenceAhead - task.OuterFenceAhead

// TestLeaseEnds stops renewing. The agent's answers do not count, its lease does.
func TestLeaseEnds(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	o := shell("trap '' TERM; echo begun; setsid sleep 1000 & while :; do sleep 1; done")
	o.Lease = boottime() + time.Second
	s.send(o)
	renewed := boottime() + 2*time.Second
	s.send(initwire.Lease{Deadline: renewed})
	s.send(initwire.Lease{Deadline: renewed - time.Second}) // too late to take it back
	s.finish()
	if s.exit.Cause != initwire.CauseLease || s.exit.Code != 137 {
		t.Errorf("got %+v, want the lease", s.exit)
	}
	if late := s.exit.Ended - renewed; late < 0 || late > inTime {
		t.Errorf("it ended %s after its lease", late)
	}
	if got := processes(t, c); len(got) != 1 {
		t.Errorf("processes %v are left", got)
	}
	c.done(s)
}

// TestLeaseEndsWithoutAnAgent has an agent that reads nothing, or that is gone.
func TestLeaseEndsWithoutAnAgent(t *testing.T) {
	for name, gone := range map[string]bool{"frozen": false, "gone": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t)
			s := c.accept(initwire.Position{})
			o := shell("setsid sleep 1000 & yes")
			o.Lease = boottime() + time.Second
			s.send(o)
			s.until(func() bool { return s.started != nil })
			if gone {
				c.cut(s)
			}
			waitFor(t, "only PID 1 is left", func() bool { return len(processes(t, c)) == 1 })
			if late := boottime() - o.Lease; late < 0 || late > inTime {
				t.Errorf("the program was gone %s after its lease", late)
			}
			c.ends(exitLapsed)
		})
	}
}

func TestHeldExitOutlivesTheLease(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	o := shell("sleep 1000")
	o.Lease = boottime() + time.Second
	s.send(o)
	s.until(func() bool { return s.started != nil })
	c.cut(s)
	waitFor(t, "only PID 1 is left", func() bool { return len(processes(t, c)) == 1 })
	c.listen()
	s = c.accept(initwire.Position{})
	if s.finish(); s.exit.Cause != initwire.CauseLease {
		t.Errorf("got %+v, want the lease", s.exit)
	}
	c.done(s)
}

func TestLeaseEndsBeforeTheOrder(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	s.send(initwire.Lease{Deadline: boottime() + 100*time.Millisecond})
	c.ends(exitLapsed)
}

// TestRunLimitIsExact also while output is held up.
func TestRunLimitIsExact(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	s.ack = false
	o := shell("yes")
	o.RunLimit = 2 * time.Second
	s.send(o)
	s.until(func() bool { return s.have.Stdout == initwire.Ring })
	waitFor(t, "the limit ends it", func() bool { return len(processes(t, c)) == 1 })
	s.ack = true
	s.send(initwire.Ack(s.have))
	s.finish()
	if ran := s.exit.Ended - s.exit.Started; s.exit.Cause != initwire.CauseRunLimit || ran < o.RunLimit || ran > o.RunLimit+inTime {
		t.Errorf("got %+v after %s, want the run limit after %s", s.exit, ran, o.RunLimit)
	}
	c.done(s)
}
