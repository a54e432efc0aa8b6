package fake

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"ecs/agent/runtime"
)

// sigkilled is the exit code of a program that SIGKILL ended.
const sigkilled = 128 + int(syscall.SIGKILL)

// handle is a container in the hands of one life of its agent.
type handle struct {
	view
	*container
	may      func() error // the order's; nil allows
	deadline func() time.Duration
}

// Start implements runtime.Container.
func (h *handle) Start(ctx context.Context) error {
	takes := h.view.e.delays().start
	if h.berth != nil {
		takes = 0 // it has started
	}
	if err := h.call(ctx, takes); err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	if h.may != nil {
		if err := h.may(); err != nil {
			return fmt.Errorf("start container: %w", err)
		}
	}
	if h.berth != nil && !h.berth.alive() {
		return fmt.Errorf("start container: %w", runtime.ErrSpent)
	}
	script := slices.Concat(h.spec.Entrypoint, h.spec.Command)
	if !known(script[0]) {
		return startFailed(fmt.Sprintf("no such command: %q", script[0]))
	}
	if !userExists(h.spec.User) {
		return startFailed(fmt.Sprintf("unable to find user %s", h.spec.User))
	}
	if h.dead() {
		<-ctx.Done()
		return ctx.Err()
	}
	var end time.Duration
	if h.deadline != nil {
		end = h.deadline()
	}
	return h.begin(script, end)
}

// Wait implements runtime.Container.
func (h *handle) Wait(ctx context.Context) (runtime.Exit, error) {
	over := h.over
	if h.dead() {
		over = nil
	}
	select {
	case <-over:
		if h.dead() {
			<-ctx.Done()
			return runtime.Exit{}, ctx.Err()
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.mu.exit, h.mu.exitFail
	case <-ctx.Done():
		return runtime.Exit{}, fmt.Errorf("wait for container: %w", ctx.Err())
	}
}

// Kill implements runtime.Container.
func (h *handle) Kill(ctx context.Context) error {
	if h.dead() {
		<-ctx.Done()
		return ctx.Err()
	}
	h.mu.Lock()
	h.mu.killed = true
	program := h.mu.program
	over := h.mu.isOver
	h.mu.Unlock()
	if program == nil || over {
		return nil
	}
	if err := h.call(ctx, 0); err != nil {
		return fmt.Errorf("kill container: %w", err)
	}
	h.quench(&runtime.Exit{Code: sigkilled, Signal: "SIGKILL"})
	select {
	case <-program:
	case <-ctx.Done():
		return fmt.Errorf("kill container: %w", ctx.Err())
	}
	return h.call(ctx, 0) // nobody hears of it who is dead
}

// Renew implements runtime.Container.
func (h *handle) Renew(end time.Duration) {
	if !h.dead() {
		h.renew(end)
	}
}

// Remove implements runtime.Container.
func (h *handle) Remove(ctx context.Context) error {
	h.mu.Lock()
	removed := h.mu.removed
	h.mu.Unlock()
	if removed {
		return nil
	}
	if err := h.Kill(ctx); err != nil {
		return err
	}
	if err := h.call(ctx, 0); err != nil {
		return fmt.Errorf("remove container: %w", err)
	}
	h.mu.Lock()
	h.mu.removed = true
	h.mu.Unlock()
	if h.berth != nil {
		h.berth.leave()
	}
	h.abort()
	h.view.e.drop(h.container)
	return nil
}

// Input implements runtime.Container.
func (h *handle) Input(ctx context.Context, p []byte, eof bool) error {
	if err := h.call(ctx, 0); err != nil {
		return fmt.Errorf("give input: %w", err)
	}
	return h.input.put(ctx, h.over, p, eof)
}

// Resize implements runtime.Container.
func (h *handle) Resize(ctx context.Context, rows, cols uint16) error {
	if err := h.call(ctx, 0); err != nil {
		return fmt.Errorf("resize the terminal: %w", err)
	}
	if h.spec.TTY {
		h.input.resize(rows, cols)
	}
	return nil
}

// Signal implements runtime.Container. No program catches any.
func (h *handle) Signal(ctx context.Context, signal syscall.Signal) error {
	if err := h.call(ctx, 0); err != nil {
		return fmt.Errorf("signal the program: %w", err)
	}
	switch signal {
	case syscall.SIGWINCH, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGCONT, 0:
		return nil // they end nobody
	}
	name := ""
	if signal == syscall.SIGKILL {
		name = "SIGKILL"
	}
	h.end(&runtime.Exit{Code: 128 + int(signal), Signal: name})
	return nil
}
