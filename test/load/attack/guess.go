package attack

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// guess sends wrong secrets at the rate, shared out among the connections, which
// take turns. A connection that is closed is opened again for its next guess.
func (a *attacker) guess(ctx context.Context, began func()) error {
	conns := make([]*guessing, a.cfg.Connections)
	for i := range conns {
		conns[i] = &guessing{attacker: a}
		if err := conns[i].open(ctx); err != nil {
			return over(ctx, err)
		}
	}
	began()
	g, ctx := errgroup.WithContext(ctx)
	turn := time.Second / time.Duration(a.cfg.Rate)
	for i, c := range conns {
		g.Go(func() error {
			defer func() { c.conn.Close() }()
			return over(ctx, c.run(ctx, time.Duration(i)*turn, time.Duration(len(conns))*turn))
		})
	}
	return g.Wait()
}

// guessing is one connection.
type guessing struct {
	*attacker
	conn net.Conn
	in   *bufio.Reader
}

func (c *guessing) open(ctx context.Context) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	c.conn, c.in = conn, bufio.NewReader(conn)
	return nil
}

func (c *guessing) run(ctx context.Context, first, each time.Duration) error {
	for due := time.Now().Add(first); ; due = due.Add(each) {
		wait := time.NewTimer(time.Until(due))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil
		}
		status, closed, err := c.once(ctx)
		if err == nil {
			c.sent.Add(1)
			c.mu.Lock()
			c.status[status]++
			c.mu.Unlock()
		}
		if err != nil && ctx.Err() != nil {
			return nil
		}
		if err != nil || closed {
			c.conn.Close()
			if err := c.open(ctx); err != nil {
				return err
			}
		}
	}
}

// once sends a guess and reads its answer.
func (c *guessing) once(ctx context.Context) (status string, closed bool, err error) {
	conn := c.conn
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, c.cfg.Request); err != nil {
		return "", true, err
	}
	return skip(c.in)
}

// skip reads past an answer that says its length, gives its status and says
// whether it was the connection's last. It looks at nothing else: net/http's
// client costs as much as the service that is asked.
func skip(in *bufio.Reader) (status string, closed bool, err error) {
	length := -1
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return "", true, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if first {
			if len(line) < 12 {
				return "", true, fmt.Errorf("no answer: %q", line)
			}
			status = string(line[9:12])
			continue
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch http.CanonicalHeaderKey(string(name)) {
		case "Content-Length":
			if _, err := fmt.Sscan(string(value), &length); err != nil {
				return "", true, err
			}
		case "Connection":
			closed = true // Go's servers say nothing else there
		}
	}
	if length < 0 {
		return "", true, fmt.Errorf("a %s without a length", status)
	}
	_, err = in.Discard(length)
	return status, closed, err
}
