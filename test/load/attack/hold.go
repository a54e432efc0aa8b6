package attack

import (
	"context"
	"io"
	"net"
	"time"
)

// held is one connection; nil conn: it was closed and not opened again yet.
type held struct{ conn net.Conn }

// hold opens the connections, begins a request on each and sends a byte a second
// on each from then on, one after the other. Those that the other end closed are
// opened again, Rate a second at most.
func (a *attacker) hold(ctx context.Context, began func()) error {
	conns := make([]held, a.cfg.Connections)
	defer func() {
		for _, c := range conns {
			if c.conn != nil {
				c.conn.Close()
			}
		}
	}()
	for i := range conns {
		if err := a.begin(ctx, &conns[i]); err != nil {
			return over(ctx, err)
		}
	}
	began()
	// Evenly, as from so many clients that know nothing of each other.
	const rounds = 200
	next := time.NewTicker(time.Second / rounds)
	defer next.Stop()
	for round := 0; ; round++ {
		select {
		case <-next.C:
		case <-ctx.Done():
			for _, c := range conns {
				if c.conn != nil {
					a.held.Add(1)
				}
			}
			return nil
		}
		mayOpen := a.cfg.Rate / rounds
		for i := round % rounds; i < len(conns); i += rounds {
			c := &conns[i]
			if c.conn != nil && a.more(c.conn) {
				continue
			}
			if c.conn != nil {
				c.conn.Close()
				c.conn = nil
			}
			if mayOpen > 0 {
				mayOpen--
				if err := a.begin(ctx, c); err != nil {
					return over(ctx, err)
				}
			}
		}
	}
}

func (a *attacker) begin(ctx context.Context, c *held) (err error) {
	if c.conn, err = a.dial(ctx); err != nil {
		return err
	}
	_, _ = io.WriteString(c.conn, a.cfg.Request) // one that was closed at once is seen at its next byte
	return nil
}

// more sends one more byte; false: the other end has closed.
func (a *attacker) more(c net.Conn) bool {
	if _, err := c.Write([]byte("x")); err != nil {
		return false
	}
	a.sent.Add(1)
	return true
}
