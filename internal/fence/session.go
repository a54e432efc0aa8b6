package fence

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// redialFirst and redialMost are between two tries to connect: a fence that
	// starts again must hear soon which deadlines have moved (see startGrace).
	redialFirst = 20 * time.Millisecond
	redialMost  = 200 * time.Millisecond
	// pingEvery is how often the fence is asked for a sign of life, and
	// silentFor how long it may take before it counts as dead.
	pingEvery = time.Second
	silentFor = 3 * time.Second
)

var errSilent = fmt.Errorf("it has not answered for %s", silentFor)

// Run keeps a connection to the fence until ctx ends. After a new one it sends
// every entry again. Before Run, calls wait for it; after it, they fail. Where there
// is to be no fence it just waits: its end would end the agent.
func (c *Client) Run(ctx context.Context) error {
	if c == nil {
		<-ctx.Done()
		return nil
	}
	wait := redialFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := c.session(ctx)
		if ctx.Err() != nil {
			break
		}
		if c.lose(err) {
			c.log.Warn("no connection to the fence", "socket", c.path, "err", err)
		}
		if time.Since(began) > redialMost {
			wait = redialFirst
		}
		pause(ctx, wait)
		wait = min(2*wait, redialMost)
	}
	c.leave()
	return nil
}

// session is the life of one connection. The error says how it ended.
func (c *Client) session(ctx context.Context) error {
	conn, err := dial(ctx, c.path)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	heard := make(chan struct{}, 1)
	c.resume()
	g.Go(func() error { return c.receive(conn, heard) })
	g.Go(func() error { return c.send(ctx, conn, heard) })
	return g.Wait()
}

func (c *Client) receive(conn net.Conn, heard chan<- struct{}) error {
	in := bufio.NewScanner(conn)
	in.Buffer(nil, maxAnswer)
	for in.Scan() {
		var a answer
		if err := json.Unmarshal(in.Bytes(), &a); err != nil {
			return fmt.Errorf("read its answer: %w", err)
		}
		if a.Seq == 0 && a.Error != "" {
			return errors.New(a.Error) // of the connection itself
		}
		c.take(a)
		select {
		case heard <- struct{}{}:
		default:
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("read its answer: %w", err)
	}
	return errors.New("it hung up")
}

func (c *Client) send(ctx context.Context, conn net.Conn, heard <-chan struct{}) error {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	out := json.NewEncoder(conn)
	send := func(r request) error {
		if err := conn.SetWriteDeadline(time.Now().Add(silentFor)); err != nil {
			return err
		}
		if err := out.Encode(r); err != nil {
			return fmt.Errorf("ask it: %w", err)
		}
		return nil
	}
	if err := send(request{Op: opRenew}); err != nil {
		return err
	}
	last := time.Now()
	for {
		select {
		case <-c.wake:
			for _, r := range c.unsent() {
				if err := send(r); err != nil {
					return err
				}
			}
		case <-heard:
			last = time.Now()
		case <-ping.C:
			if time.Since(last) > silentFor {
				return errSilent
			}
			if err := send(request{Op: opRenew}); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// dial connects to a socket, however long its path.
func dial(ctx context.Context, path string) (net.Conn, error) {
	name, done, err := socketName(path)
	if err != nil {
		return nil, err
	}
	defer done()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", name)
	if op := new(net.OpError); errors.As(err, &op) {
		err = op.Err // the name in the rest may be the short one
	}
	return conn, err
}
