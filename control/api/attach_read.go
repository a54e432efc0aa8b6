package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"

	"ecs/proto/api"
)

// fault is what is wrong with a message. A fatal one ends the attachment.
type fault struct {
	detail string
	fatal  bool
}

// read takes what the caller sends until the connection ends. It never waits
// for the program: so pings are answered, and a signal passes by input that is
// not read.
func (a *attachment) read(ctx context.Context, faults chan<- *fault) error {
	for {
		kind, message, err := a.conn.Read(context.WithoutCancel(ctx))
		if err != nil {
			return fmt.Errorf("read from the caller: %w", err)
		}
		p := a.take(kind, message)
		if p == nil {
			continue
		}
		select {
		case faults <- p:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take does what one message says.
func (a *attachment) take(kind websocket.MessageType, message []byte) *fault {
	if kind != websocket.MessageBinary || len(message) == 0 {
		return &fault{detail: "every message is binary and begins with its channel", fatal: true}
	}
	switch channel, data := message[0], message[1:]; channel {
	case api.ChannelStdin:
		if !a.typed.add(data) {
			return &fault{detail: fmt.Sprintf("more than %d bytes of standard input are not taken yet", api.AttachWindow), fatal: true}
		}
	case api.ChannelControl:
		var m api.AttachMessage
		if err := json.Unmarshal(data, &m); err != nil {
			return &fault{detail: "the control message is no JSON: " + err.Error(), fatal: true}
		}
		return a.control(&m)
	default:
		return &fault{detail: fmt.Sprintf("there is no channel %d to send on", channel), fatal: true}
	}
	return nil
}

// control does what a control message says. What is wrong with it does not end
// the attachment.
func (a *attachment) control(m *api.AttachMessage) *fault {
	switch {
	case m.Resize != nil:
		if m.Resize.Rows == 0 || m.Resize.Cols == 0 {
			return &fault{detail: "a terminal has at least one row and one column"}
		}
		a.typed.resize(*m.Resize)
	case m.Signal != "":
		s := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(m.Signal), "SIG"))
		if s == 0 {
			return &fault{detail: fmt.Sprintf("there is no signal %q", m.Signal)}
		}
		if !a.typed.signal(syscall.Signal(s)) {
			return &fault{detail: "too many signals wait for the program; this one is left out"}
		}
	case m.CloseStdin:
		a.typed.close()
	default:
		return &fault{detail: "a control message has one of resize, signal and close_stdin"}
	}
	return nil
}
