// Package attack is what strangers do at the door: they guess secrets, and hold
// connections that they never bring a whole request on.
//
// It is made to cost little, for it shares a machine with what is measured, and
// runs as a process of its own. Each of its connections comes from an address of
// the loopback network, so that the limits of an address count as they do for
// strangers.
package attack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// The kinds of attack.
const (
	Guess = "guess" // wrong secrets, over connections that are kept
	Hold  = "hold"  // half a request, and then a byte a second on each
)

// Config is one attack.
type Config struct {
	Kind string `json:"kind"`
	Addr string `json:"addr"` // host:port
	// From are the addresses that it comes from, each in turn.
	From []string `json:"from"`
	// Request is what is sent: a whole one to guess, the beginning of one to hold.
	Request string `json:"request"`
	// Connections are open at the same time.
	Connections int `json:"connections"`
	// Rate is how many guesses come a second, all connections together; or how
	// many connections that were closed are opened again a second at most.
	Rate int `json:"rate"`
}

// Done is what an attack came to.
type Done struct {
	Seconds float64        `json:"seconds"`
	Sent    int64          `json:"sent"`   // guesses, or bytes behind the beginning
	Opened  int64          `json:"opened"` // connections
	Held    int64          `json:"held"`   // connections that were open at the end
	Status  map[string]int `json:"status,omitempty"`
}

// attacker is an attack under way.
type attacker struct {
	cfg                Config
	sent, opened, held atomic.Int64
	next               atomic.Int64

	mu     sync.Mutex
	status map[string]int
}

// Run attacks until ctx ends. began is called once every connection was opened.
func Run(ctx context.Context, cfg Config, began func()) (Done, error) {
	if len(cfg.From) == 0 || cfg.Connections < 1 || cfg.Rate < 1 {
		return Done{}, fmt.Errorf("attack %+v: want addresses, connections and a rate", cfg)
	}
	a := &attacker{cfg: cfg, status: make(map[string]int)}
	start := time.Now()
	var err error
	switch cfg.Kind {
	case Guess:
		err = a.guess(ctx, began)
	case Hold:
		err = a.hold(ctx, began)
	default:
		err = fmt.Errorf("no kind %q of attack", cfg.Kind)
	}
	return Done{Seconds: time.Since(start).Seconds(), Sent: a.sent.Load(), Opened: a.opened.Load(), Held: a.held.Load(), Status: a.status}, err
}

// dial opens a connection from the next of the addresses.
func (a *attacker) dial(ctx context.Context) (net.Conn, error) {
	n := a.next.Add(1)
	from := a.cfg.From[int(n)%len(a.cfg.From)]
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(ctx, "tcp", a.cfg.Addr)
	if err != nil {
		return nil, err
	}
	a.opened.Add(1)
	return c, nil
}

// over tells an attack that was ended from one that failed.
func over(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
