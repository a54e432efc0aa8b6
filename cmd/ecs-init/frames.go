package main

import (
	"fmt"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

// handle does what one frame of the agent's says.
func (p *pid1) handle(f initwire.Frame) error {
	switch f.Kind {
	case initwire.KindAck, initwire.KindResume:
		at, err := f.Position()
		if err != nil {
			return err
		}
		p.position(at, f.Kind == initwire.KindResume)
		return nil
	case initwire.KindStdin:
		offset, data, err := f.Data()
		if err != nil {
			return err
		}
		if err := p.in.receive(offset, data); err != nil {
			return err
		}
		p.in.write()
		return nil
	}
	m, err := f.Message()
	if err != nil {
		return err
	}
	return p.obey(m)
}

// position takes the agent's word for what it has.
func (p *pid1) position(at initwire.Position, resume bool) {
	for i, have := range []int64{at.Stdout, at.Stderr} {
		s := &p.out[i]
		if resume {
			s.resume(have)
		} else {
			s.drop(min(have, s.sent))
		}
	}
	if resume {
		p.link.resumed, p.in.news, p.parked = true, true, false
	}
}

func (p *pid1) obey(m initwire.Message) error {
	switch m := m.(type) {
	case initwire.Order:
		return p.begin(m)
	case initwire.Lease:
		p.lease.move(m.Deadline)
		if !p.parked && !p.link.resumed { // where the order is to follow, the Hello is answered first
			p.parked = true
			runtime.GC() // now, rather than while the program begins
			rehearseOrder()
		}
	case initwire.StdinClose:
		p.in.eof = true
		p.in.write()
	case initwire.Resize:
		p.resize(m)
	case initwire.Signal:
		if p.started != nil && m.Number > 0 {
			p.reaper.signal(syscall.Signal(m.Number))
		}
	case initwire.Kill:
		p.kill(initwire.CauseKilled)
	case initwire.Done:
		p.done = p.result != nil
	default:
		return fmt.Errorf("an agent does not send frames of kind %d", m.Kind())
	}
	return nil
}

// begin gives the order to the second stage.
func (p *pid1) begin(o initwire.Order) error {
	if p.order != nil || p.cause != "" || p.ended {
		return nil
	}
	p.lease.move(o.Lease)
	_ = p.stage.order(o) // where the second stage is gone the reaper says so
	for i := range p.out {
		if o.TTY != nil {
			p.out[i].close()
		}
	}
	if o.TTY != nil {
		unix.Close(p.in.fd) // the terminal comes in its place
		p.in.fd = -1
	}
	p.out[0].buf = newRing()
	if o.TTY == nil {
		p.out[1].buf = newRing()
	}
	p.in.begin(o)
	p.order = &initwire.Order{TTY: o.TTY, RunLimit: o.RunLimit, Caps: o.Caps}
	p.big = len(o.Input) > bigOrder || len(o.Files) > 0
	p.in.write()
	return nil
}

// resize sets the terminal's size; the kernel tells the program.
func (p *pid1) resize(r initwire.Resize) {
	if fd := p.stage.terminal; fd >= 0 && p.out[0].fd == fd {
		_ = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: r.Rows, Col: r.Cols})
	}
}
