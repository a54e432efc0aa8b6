package main

import (
	"fmt"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

const (
	// redial is how often init dials where nothing tells it when to; blindRedial
	// where it can't watch for the socket.
	redial      = time.Second
	blindRedial = 100 * time.Millisecond
	// linger is how long after the lease init waits for the agent to take the
	// result. Nothing of the program is left by then.
	linger = 5 * time.Second
	// bigOrder is what is worth giving back to the machine.
	bigOrder = 64 << 10
)

// pid1 is the state of PID 1. It belongs to the loop alone.
type pid1 struct {
	nonce  string
	link   link
	stage  *stage
	reaper *reaper
	alarm  alarm
	lease  lease

	in  input
	out [2]stream

	order    *initwire.Order // without what the second stage alone needs
	big      bool            // the order took much memory
	started  *initwire.Started
	told     bool           // this connection has had Started
	cause    initwire.Cause // why everything was killed, or ""
	ended    bool           // no other process is left
	parked   bool           // an agent keeps it for an order that may never come
	result   initwire.Message
	reported bool // this connection has had the result
	done     bool // the agent has the result

	redialAt time.Duration
	turn     int // which stream is sent from next
}

func newPID1(nonce string) (*pid1, error) {
	watch := watchDir()
	caps, err := hide()
	if err != nil {
		return nil, err
	}
	p := &pid1{nonce: nonce, link: link{fd: -1, watch: watch}, lease: firstLease()}
	if p.alarm, err = newAlarm(); err != nil {
		return nil, err
	}
	pid, stage, ends, err := launch(caps)
	if err != nil {
		return nil, err
	}
	p.stage, p.in = stage, input{fd: ends.stdin, open: true}
	p.out[0] = stream{kind: initwire.KindStdout, fd: ends.stdout}
	p.out[1] = stream{kind: initwire.KindStderr, fd: ends.stderr}
	if err := keepOnlyKill(); err != nil {
		return nil, err
	}
	if p.reaper, err = newReaper(pid); err != nil {
		return nil, err
	}
	go p.reaper.run() // ends with the process, which has no other child
	forwardSignals(p.reaper.pass)
	return p, nil
}

// run ends with the process's exit code.
func (p *pid1) run() int {
	for {
		now := boottime()
		p.enforce(now)
		p.connect(now)
		p.settle()
		if err := p.send(); err != nil {
			p.disconnect()
		}
		switch {
		case p.done:
			return exitDone
		case now >= p.lease.end+linger, now >= p.lease.end && p.order == nil:
			endAll()
			return exitLapsed
		case p.parked && p.ended && p.order == nil && p.cause == "":
			return exitFault // there is nobody left to give an order to, and nobody waits to be told
		}
		if err := p.wait(now); err != nil {
			return fault("wait", err)
		}
	}
}

// enforce ends everything whose time is over.
func (p *pid1) enforce(now time.Duration) {
	if now >= p.lease.end {
		p.kill(initwire.CauseLease)
	}
	if limit, ok := p.runLimit(); ok && now >= limit {
		p.kill(initwire.CauseRunLimit)
	}
}

func (p *pid1) runLimit() (time.Duration, bool) {
	if p.started == nil || p.order == nil || p.order.RunLimit <= 0 {
		return 0, false
	}
	return p.started.Boottime + p.order.RunLimit, true
}

// kill ends everything. The first cause counts.
func (p *pid1) kill(cause initwire.Cause) {
	if p.cause == "" {
		p.cause = cause
		endAll()
	}
}

// settle draws the consequences of what has happened.
func (p *pid1) settle() {
	if p.started == nil && p.stage.started != nil && (p.stage.fd < 0 || p.ended) && p.stage.failed == nil {
		p.started = p.stage.started
		p.takeTerminal()
		if p.big {
			debug.FreeOSMemory()
		}
	}
	if !p.ended || p.result != nil {
		return
	}
	for i := range p.out {
		if p.order == nil {
			p.out[i].close() // nothing was told to write
		}
		if p.out[i].read(true); p.out[i].fd >= 0 {
			return // the ring is full
		}
	}
	p.result = p.outcome()
}

// takeTerminal puts the terminal in the place of the pipes.
func (p *pid1) takeTerminal() {
	master := p.stage.terminal
	if master < 0 {
		return
	}
	p.out[0].fd = master
	if fd, err := unix.FcntlInt(uintptr(master), unix.F_DUPFD_CLOEXEC, 0); err == nil {
		p.in.fd = fd
	}
	_ = unix.SetNonblock(master, true)
}

// outcome is what the agent gets in the end.
func (p *pid1) outcome() initwire.Message {
	if p.stage.failed != nil {
		return *p.stage.failed
	}
	status := p.reaper.status
	e := initwire.Exit{Code: status.ExitStatus(), Cause: initwire.CauseProgram, Ended: p.reaper.ended,
		Stdout: p.out[0].end, Stderr: p.out[1].end, Passed: p.reaper.passed.Load()}
	if status.Signaled() {
		e.Signal = int(status.Signal())
		e.Code = 128 + e.Signal
		if p.cause != "" && status.Signal() == unix.SIGKILL {
			e.Cause = p.cause
		}
	}
	switch {
	case p.started != nil:
		e.Started, e.StartedAt = p.started.Boottime, p.started.Unix
	case p.cause != "":
		e.Started = e.Ended // it was never executed, and has no time of its own
	default:
		return initwire.Failed{Reason: initwire.BadOther,
			Text: fmt.Sprintf("the container could not be prepared (status %#x)", uint32(status))}
	}
	return e
}

// send gives the agent what it does not have, as far as the socket takes it.
func (p *pid1) send() error {
	if p.link.fd < 0 {
		return nil
	}
	if err := p.link.flush(); err != nil {
		return err
	}
	for p.link.resumed && p.link.idle() {
		if sent, err := p.sendNext(); err != nil || !sent {
			return err
		}
	}
	return nil
}

// sendNext sends one frame, if there is one.
func (p *pid1) sendNext() (bool, error) {
	w := p.link.writer
	if p.started != nil && !p.told {
		p.told = true
		return true, w.Send(*p.started)
	}
	if p.in.news {
		p.in.news = false
		return true, w.Send(initwire.StdinTaken{Offset: p.in.base, Closed: !p.in.open})
	}
	if p.started != nil || p.ended {
		for range p.out {
			s := &p.out[p.turn]
			p.turn = 1 - p.turn
			if data, more := s.slice(s.sent, initwire.MaxOutput); len(data) > 0 {
				at := s.sent
				s.sent += int64(len(data) + len(more))
				return true, w.Data(s.kind, at, data, more)
			}
		}
	}
	if p.result != nil && !p.reported {
		p.reported = true
		return true, w.Send(p.result)
	}
	return false, nil
}

// connect dials when it is time to.
func (p *pid1) connect(now time.Duration) {
	if p.link.fd >= 0 || now < p.redialAt {
		return
	}
	p.redialAt = now + redial
	if p.link.watch < 0 {
		p.redialAt = now + blindRedial
	}
	p.told, p.reported = false, false
	p.link.dial(initwire.Hello{Version: initwire.Version, Nonce: p.nonce,
		Ordered: p.order != nil, Started: p.started != nil, Ended: p.ended,
		Stdout: p.out[0].base, Stderr: p.out[1].base, Stdin: p.in.end})
}

// disconnect holds everything for the next connection. It is dialled at once
// where this one was a good one.
func (p *pid1) disconnect() {
	if p.link.resumed {
		p.redialAt = 0
	}
	p.link.hangUp()
}

// receive handles what the agent sent.
func (p *pid1) receive() {
	for p.link.fd >= 0 && !p.done {
		f, err := p.link.reader.Next()
		if err == errAgain {
			return
		}
		if err == nil {
			err = p.handle(f)
		}
		if err != nil {
			p.disconnect() // whatever it was: the next connection starts over
			return
		}
	}
}
