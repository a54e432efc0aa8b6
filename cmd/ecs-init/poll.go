package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// What the loop waits for, by place.
const (
	onLink = iota
	onWatch
	onAlarm
	onReaper
	onStage
	onStdout
	onStderr
	onStdin
	places
)

// wait sleeps until something is there to be done, and does what it is.
func (p *pid1) wait(now time.Duration) error {
	if err := p.alarm.set(p.nextMoment(now)); err != nil {
		return err
	}
	fds := p.interests()
	if _, err := unix.Poll(fds[:], -1); err != nil {
		if err == unix.EINTR {
			return nil
		}
		return fmt.Errorf("poll: %w", err)
	}
	ready := func(place int) bool { return fds[place].Fd >= 0 && fds[place].Revents != 0 }
	if ready(onAlarm) {
		p.alarm.fired()
	}
	if ready(onWatch) {
		p.link.drainWatch()
		p.redialAt = 0
	}
	if ready(onStage) {
		p.stage.listen()
	}
	for i := range p.out {
		if ready(onStdout + i) {
			p.out[i].read(false)
		}
	}
	if ready(onStdin) {
		p.in.write()
	}
	if ready(onReaper) && !p.ended {
		p.stage.listen()
		p.ended = true
	}
	if ready(onLink) {
		p.receive()
	}
	return nil
}

// interests are what to wait for now. What could not be dealt with is left out:
// poll would report its end again and again.
func (p *pid1) interests() (fds [places]unix.PollFd) {
	want := func(place, fd int, events int16, wanted bool) {
		fds[place] = unix.PollFd{Fd: -1}
		if wanted {
			fds[place] = unix.PollFd{Fd: int32(fd), Events: events}
		}
	}
	events := int16(unix.POLLIN)
	if len(p.link.pending) > 0 {
		events |= unix.POLLOUT
	}
	want(onLink, p.link.fd, events, p.link.fd >= 0)
	want(onWatch, p.link.watch, unix.POLLIN, p.link.fd < 0 && p.link.watch >= 0)
	want(onAlarm, p.alarm.fd, unix.POLLIN, true)
	want(onReaper, p.reaper.wake, unix.POLLIN, !p.ended)
	want(onStage, p.stage.fd, 0, p.stage.fd >= 0) // what it says matters once it hangs up
	for i := range p.out {
		s := &p.out[i]
		want(onStdout+i, s.fd, unix.POLLIN, s.fd >= 0 && len(s.room()) > 0)
	}
	want(onStdin, p.in.fd, unix.POLLOUT, p.in.waiting())
	return fds
}

// nextMoment is when something is due by itself.
func (p *pid1) nextMoment(now time.Duration) time.Duration {
	next := p.lease.end
	if next <= now {
		next += linger
	}
	if limit, ok := p.runLimit(); ok && limit > now {
		next = min(next, limit)
	}
	if p.link.fd < 0 {
		next = min(next, max(p.redialAt, now))
	}
	return next
}
