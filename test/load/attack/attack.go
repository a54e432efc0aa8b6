// Package attack is what strangers do at the door: they guess secrets, and hold
// connections that they never bring a whole request on.
//
// It is made to cost little, for it shares a machine with what is measured, where
// strangers would have their own: a process of one thread that waits for all of
// its connections at once. Each of them comes from an address of the loopback
// network, so that the limits of an address count as they do for strangers.
package attack

import (
	"context"
	"fmt"
	"net/netip"
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
	Addr string `json:"addr"` // host:port, IPv4
	// From are the addresses that it comes from, each in turn.
	From []string `json:"from"`
	// Request is what is sent: a whole one to guess, the beginning of one to hold.
	Request string `json:"request"`
	// Connections are open at the same time at most.
	Connections int `json:"connections"`
	// Rate is how many guesses come a second, all connections together: each over
	// the next that waits for no answer, which is opened for it where the other end
	// has closed it. To hold it is how many connections that were closed are opened
	// again a second at most.
	Rate int `json:"rate"`
}

// Done is what an attack came to.
type Done struct {
	Seconds  float64        `json:"seconds"`
	Sent     int64          `json:"sent"`     // guesses, or bytes behind the beginning
	Left     int64          `json:"left"`     // guesses that were due while every connection waited for an answer
	Opened   int64          `json:"opened"`   // connections
	Held     int64          `json:"held"`     // connections that were open at the end
	Answered int64          `json:"answered"` // requests
	Status   map[string]int `json:"status,omitempty"`
}

func (c Config) check() (to netip.AddrPort, from []netip.Addr, err error) {
	if c.Kind != Guess && c.Kind != Hold {
		return to, nil, fmt.Errorf("no kind %q of attack", c.Kind)
	}
	if len(c.From) == 0 || c.Connections < 1 || c.Rate < 1 {
		return to, nil, fmt.Errorf("attack %+v: want addresses, connections and a rate", c)
	}
	if to, err = netip.ParseAddrPort(c.Addr); err != nil || !to.Addr().Is4() {
		return to, nil, fmt.Errorf("attack %s: want an IPv4 address and a port", c.Addr)
	}
	for _, text := range c.From {
		addr, err := netip.ParseAddr(text)
		if err != nil || !addr.Is4() {
			return to, nil, fmt.Errorf("attack from %s: want IPv4 addresses", text)
		}
		from = append(from, addr)
	}
	return to, from, nil
}

// Run attacks until ctx ends. began is called once every connection was opened, or,
// to guess, at once: those are opened as they are needed.
func Run(ctx context.Context, cfg Config, began func()) (Done, error) {
	l, err := newLoop(cfg)
	if err != nil {
		return Done{}, err
	}
	defer l.close()
	start := time.Now()
	err = l.run(ctx, began)
	l.done.Seconds = time.Since(start).Seconds()
	return l.done, err
}
