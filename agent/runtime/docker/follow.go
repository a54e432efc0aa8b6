package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/cgroup"
	"ecs/internal/initwire"
	"ecs/internal/task"
)

const (
	// firstRedial and longestRedial are how long the door is watched before the container's
	// processes are looked at.
	firstRedial   = 5 * time.Millisecond
	longestRedial = 100 * time.Millisecond
)

var (
	errEnded  = errors.New("no process of the container is left")
	errLapsed = errors.New("the container's init was silent until its lease was over")
)

// follow listens to an init, through any number of connections, until it has
// said how the program ended, or never will. It is the only one to write to the
// sink.
func (c *attempt) follow(l *line) {
	for {
		err := c.listen(l)
		if err == nil {
			break
		}
		c.heard.at = boottime()
		c.heard.oom = c.starved() // before the engine removes the cgroup
		c.connect(nil)
		l.close()
		if l, err = c.resume(l.have, l.acked, err); err != nil {
			c.heard.lost = err
			break
		}
	}
	c.input.end()
	if c.heard.sink != nil {
		c.log.Warn("output sink failed", "container", short(c.id), "err", c.heard.sink)
	}
	close(c.over)
	if c.heard.started == nil {
		close(c.started) // after over: whoever waits for it sees why
	}
	if l != nil {
		<-c.life.Done()
		c.connect(nil)
		l.close()
	}
}

// listen passes on what comes on one connection. nil: the result is in.
func (c *attempt) listen(l *line) error {
	unwatch := context.AfterFunc(c.life, func() { l.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer unwatch()
	for {
		f, err := l.in.Next()
		if err != nil {
			return err
		}
		over, err := c.take(l, f)
		if over || err != nil {
			return err
		}
	}
}

// take deals with one frame; over says that it was the last.
func (c *attempt) take(l *line, f initwire.Frame) (over bool, err error) {
	switch f.Kind {
	case initwire.KindStdout:
		return false, c.pass(l, f, c.sink.Stdout, &l.have.Stdout)
	case initwire.KindStderr:
		return false, c.pass(l, f, c.sink.Stderr, &l.have.Stderr)
	}
	m, err := f.Message()
	if err != nil {
		return false, err
	}
	switch m := m.(type) {
	case initwire.Started:
		if c.heard.started == nil {
			c.heard.started = &m
			close(c.started)
		}
	case initwire.StdinTaken:
		c.input.taken(m)
	case initwire.Failed:
		c.heard.failed, c.heard.at = &m, boottime()
		return true, nil
	case initwire.Exit:
		c.heard.exit, c.heard.at = &m, boottime()
		return true, nil
	default:
		return false, fmt.Errorf("an init does not send frames of kind %d", f.Kind)
	}
	return false, nil
}

// pass gives the sink what it does not have yet.
func (c *attempt) pass(l *line, f initwire.Frame, to io.Writer, have *int64) error {
	offset, data, err := f.Data()
	if err != nil {
		return err
	}
	if gap := offset - *have; gap > 0 {
		// Acknowledged by an earlier process that did not get it to disk.
		if s, ok := to.(runtime.Skipper); ok {
			s.Skip(gap)
		}
		*have = offset
	}
	if known := *have - offset; known < int64(len(data)) {
		if _, err := to.Write(data[known:]); err != nil && c.heard.sink == nil {
			c.heard.sink = err // it has counted them all the same
		}
		*have += int64(len(data)) - known
	}
	l.took()
	return nil
}

// resume waits for the init whose connection broke, as long as any process of
// the container is left and its lease lasts. The lease is not what it was
// renewed to since: init never heard of that.
func (c *attempt) resume(have, acked initwire.Position, broken error) (*line, error) {
	until := c.lease() - task.OuterFenceAhead
	for {
		if cause := context.Cause(c.life); cause != nil {
			return nil, cause
		}
		l, err := c.readmit(have, acked, until)
		if err == nil {
			c.log.Info("connection to container is back", "container", short(c.id), "broke", broken)
			return l, nil
		}
		if errors.Is(err, errEnded) || errors.Is(err, errLapsed) {
			return nil, err
		}
		c.log.Warn("container is out of reach", "container", short(c.id), "err", err)
		if !sleep(c.life, longestRedial) {
			return nil, context.Cause(c.life)
		}
	}
}

func (c *attempt) readmit(have, acked initwire.Position, until time.Duration) (*line, error) {
	d, err := c.home.open()
	if err != nil {
		return nil, errors.Join(err, c.gone(until))
	}
	defer d.close()
	for patience := firstRedial; ; patience = min(2*patience, longestRedial) {
		ctx, cancel := context.WithTimeout(c.life, patience)
		l, _, err := d.await(ctx, c.id, c.nonce)
		cancel()
		if err == nil {
			return l, c.takeUp(l, have, acked)
		}
		if err := c.gone(until); err != nil {
			return nil, err
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			return nil, err
		}
		if err := d.l.SetDeadline(time.Time{}); err != nil {
			return nil, err
		}
	}
}

// takeUp goes on where an earlier connection stopped. Init keeps what is not
// acknowledged and sends it again: another process may come to need it.
func (c *attempt) takeUp(l *line, have, acked initwire.Position) error {
	if err := l.begin(c.life, acked); err != nil {
		l.close()
		return err
	}
	l.have = have
	c.connect(l)
	l.renew(c.lease() - task.FenceAhead)
	if err := c.input.resume(l, l.hello.Stdin); err != nil {
		c.connect(nil)
		l.close()
		return err
	}
	return nil
}

// gone says why an init will not come back, or nil.
func (c *attempt) gone(until time.Duration) error {
	if cause := context.Cause(c.life); cause != nil {
		return cause
	}
	if c.cgroup != "" && cgroup.Empty(c.cgroup) {
		return errEnded
	}
	if c.cgroup == "" {
		ctx, cancel := context.WithTimeout(c.life, shortCall)
		defer cancel()
		if state, err := c.state(ctx); err == nil && !state.Running {
			return errEnded
		}
	}
	if boottime() >= until {
		return errLapsed
	}
	return nil
}

// countOOMKills notes what starved compares with. No program runs yet.
func (c *attempt) countOOMKills() { c.oomKills, _ = cgroup.OOMKills(c.cgroup) }

// starved reports whether the kernel has killed a process of the container for
// want of memory since the program began.
func (c *attempt) starved() bool {
	n, err := cgroup.OOMKills(c.cgroup)
	return err == nil && n > c.oomKills
}
