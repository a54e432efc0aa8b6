package agent

import (
	"context"
	"syscall"

	"ecs/agent/output"
	"ecs/agent/runtime"
	"ecs/internal/task"
)

var _ output.Attempts = (*Agent)(nil)

// Input gives the standard input of an attempt's program more bytes, and its
// end with eof. See output.Attempts.
func (a *Agent) Input(ctx context.Context, tok task.Token, p []byte, eof bool) error {
	c, err := a.supervisor.program(tok)
	if err != nil {
		return err
	}
	return c.Input(ctx, p, eof)
}

// Resize sets the size of an attempt's terminal, if it has one.
func (a *Agent) Resize(ctx context.Context, tok task.Token, rows, cols uint16) error {
	c, err := a.supervisor.program(tok)
	if err != nil {
		return err
	}
	return c.Resize(ctx, rows, cols)
}

// Signal sends an attempt's program a signal.
func (a *Agent) Signal(ctx context.Context, tok task.Token, signal syscall.Signal) error {
	c, err := a.supervisor.program(tok)
	if err != nil {
		return err
	}
	return c.Signal(ctx, signal)
}

// program gives the container in which the attempt's program runs, or
// output.ErrNoAttempt.
func (s *supervisor) program(tok task.Token) (runtime.Container, error) {
	var live *runtime.Container
	err := s.do(func() {
		if m := s.members[tok]; m != nil && !m.ended {
			live = m.live.Load()
		}
	})
	if err != nil || live == nil {
		return nil, output.ErrNoAttempt
	}
	return *live, nil
}

// goesOn notes that the program runs in the runner's container.
func (r *runner) goesOn() {
	r.lease.bind(r.token, r.container.Renew)
	r.live.Store(&r.container)
}
