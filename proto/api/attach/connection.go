package attach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/coder/websocket"

	"ecs/proto/api"
)

const (
	connectWithin = 15 * time.Second
	sendWithin    = 30 * time.Second
	pingEvery     = 15 * time.Second
	pongWithin    = 15 * time.Second
	// maxMessage bounds a message of the service's: a finished task with its
	// whole request in it.
	maxMessage = 4 << 20
)

// connection is one WebSocket of a session.
type connection struct {
	*Session
	conn    *websocket.Conn
	since   time.Time
	brought bool // something new came, or it lasted a good while
	code    websocket.StatusCode
	problem *api.Problem // the last
	final   error        // set when coming back cannot help
}

// run sends and receives until the task has finished or the connection ends.
func (c *connection) run(ctx context.Context, see func(Event) error) (*api.Task, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer func() { _ = c.conn.CloseNow() }()
	defer cancel(nil)
	parts.Go(func() { cancel(c.send(ctx)) })
	parts.Go(func() { cancel(c.ping(ctx)) })
	for {
		kind, message, err := c.conn.Read(ctx)
		if err != nil {
			return nil, c.ended(ctx, err)
		}
		if kind != websocket.MessageBinary || len(message) == 0 {
			c.final = fmt.Errorf("attach to task %s: the service speaks another protocol", c.task)
			return nil, c.final
		}
		done, err := c.take(message[0], message[1:], see)
		if done != nil {
			_ = c.conn.Close(websocket.StatusNormalClosure, "") // it has said everything
			return done, nil
		}
		if err != nil {
			c.final = err
			return nil, err
		}
	}
}

// ended says why the connection did.
func (c *connection) ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	c.code = websocket.CloseStatus(err)
	c.brought = c.brought || time.Since(c.since) > pingEvery
	err = fmt.Errorf("attached to task %s: %w", c.task, err)
	if c.problem != nil && (c.code == api.CloseProtocol || c.code == api.CloseLater) {
		err = fmt.Errorf("attached to task %s: %w", c.task, c.problem)
	}
	if c.code == api.CloseProtocol {
		c.final = err
	}
	return err
}

// take does what one message says. An error is see's own.
func (c *connection) take(channel byte, data []byte, see func(Event) error) (*api.Task, error) {
	switch channel {
	case api.ChannelStdout, api.ChannelStderr:
		i := int(channel - api.ChannelStdout)
		if err := see(Event{Stream: [...]string{api.Stdout, api.Stderr}[i], Data: data}); err != nil {
			return nil, err
		}
		c.offsets[i] += int64(len(data))
		c.brought = true
		return nil, nil
	case api.ChannelControl:
	default:
		return nil, nil // of a later version
	}
	var m api.AttachMessage
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("attach to task %s: read %q: %w", c.task, data, err)
	}
	switch {
	case m.Exit != nil:
		return m.Exit, nil
	case m.State != nil:
		return nil, see(Event{State: m.State})
	case m.Attempt > c.attempt:
		if c.attempt != 0 {
			c.offsets = [2]int64{}
		}
		c.attempt = m.Attempt
		return nil, see(Event{Attempt: m.Attempt})
	case m.Stdin != nil:
		more, closed := c.typed.heard(*m.Stdin)
		c.brought = c.brought || more
		if closed {
			return nil, see(Event{InputClosed: true})
		}
	case m.Error != nil:
		c.problem = m.Error
		return nil, see(Event{Problem: m.Error})
	}
	return nil, nil
}

// send sends what is typed, until that fails.
func (c *connection) send(ctx context.Context) error {
	for {
		message, err := c.typed.next()
		if err != nil {
			return err
		}
		if message == nil {
			select {
			case <-c.typed.poke:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		within, cancel := context.WithTimeout(ctx, sendWithin)
		err = c.conn.Write(within, websocket.MessageBinary, message)
		cancel()
		if err != nil {
			return fmt.Errorf("send to the service: %w", err)
		}
	}
}

// ping notices a node that has vanished.
func (c *connection) ping(ctx context.Context) error {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		within, cancel := context.WithTimeout(ctx, pongWithin)
		err := c.conn.Ping(within)
		cancel()
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("the node does not answer: %w", err)
		}
	}
}
