package procs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ecs/agent/runtime"
)

const sigkilled = 137

// container is one attempt's process, whoever started it.
type container struct {
	dir     string
	program []string
	order   *runtime.Order
	from    int64 // how much of its output an earlier agent had
	mu      sync.Mutex
	pid     int
	began   string // in the kernel's ticks: tells it from a later process of that pid
	dead    bool   // it may not be started any more
	end     time.Duration
}

// Start implements runtime.Container.
func (c *container) Start(context.Context) error {
	if c.order.May != nil {
		if err := c.order.May(); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return errors.New("killed before its start")
	}
	if len(c.order.Spec.Command) == 0 || c.order.Spec.Command[0] != "beat" {
		return &runtime.Failure{Outcome: "start_failed", Reason: "no such command"}
	}
	c.end = max(c.end, c.order.Deadline())
	if err := writeLease(c.dir, c.end); err != nil {
		return err
	}
	args := append(append([]string{}, c.program[1:]...), c.dir)
	cmd := exec.Command(c.program[0], args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives the agent
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the program: %w", err)
	}
	c.pid, c.began = cmd.Process.Pid, startOf(cmd.Process.Pid)
	go cmd.Wait() // takes the zombie away; how it ended is in its own file
	return nil
}

// find looks for the process that an earlier agent started: its command line
// names the directory, so one that was started is found whenever that agent was
// killed. One that has ended has left how.
func (c *container) find() error {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, name := range lines {
		line, err := os.ReadFile(name)
		if err != nil || !bytes.HasSuffix(line, append([]byte("\x00"+c.dir), 0)) {
			continue // it may have ended meanwhile
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if began := startOf(pid); err == nil && began != "" {
			c.pid, c.began = pid, began
			return nil
		}
	}
	if _, err := os.Stat(filepath.Join(c.dir, "exit")); err != nil {
		return fmt.Errorf("no process of it: %w", err)
	}
	return nil
}

// startOf is when a process began, by the kernel's count; empty if it is gone.
func startOf(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

// ended waits for the end of the process.
func (c *container) ended(ctx context.Context) error {
	c.mu.Lock()
	pid, began := c.pid, c.began
	c.mu.Unlock()
	if pid == 0 || began == "" {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if startOf(pid) != began {
		return nil // another one's by now
	}
	const lookUp = 200 // milliseconds until ctx is looked at
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, lookUp)
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("watch process %d: %w", pid, err)
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// Wait implements runtime.Container.
func (c *container) Wait(ctx context.Context) (runtime.Exit, error) {
	if err := c.ended(ctx); err != nil {
		return runtime.Exit{}, err
	}
	f, err := os.Open(filepath.Join(c.dir, "out"))
	if err == nil {
		defer f.Close()
		_, err = f.Seek(c.from, io.SeekStart)
		if err == nil {
			_, err = io.Copy(c.order.Output.Stdout, f)
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return runtime.Exit{}, fmt.Errorf("read its output: %w", err)
	}
	var said Exit
	text, err := os.ReadFile(filepath.Join(c.dir, "exit"))
	if errors.Is(err, os.ErrNotExist) {
		return runtime.Exit{Code: sigkilled, Signal: "SIGKILL"}, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &said)
	}
	if err != nil {
		return runtime.Exit{}, fmt.Errorf("read how it ended: %w", err)
	}
	return runtime.Exit{Code: said.Code, Lapsed: said.Lapsed, RunLimit: said.RunLimit, StartedAt: said.Began, Run: said.Run}, nil
}

// Kill implements runtime.Container.
func (c *container) Kill(ctx context.Context) error {
	c.mu.Lock()
	c.dead = true
	pid, began := c.pid, c.began
	if pid == 0 && c.find() == nil {
		pid, began = c.pid, c.began
	}
	c.mu.Unlock()
	if pid != 0 && began != "" && startOf(pid) == began {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	return c.ended(ctx)
}

// Renew implements runtime.Container.
func (c *container) Renew(end time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if end <= c.end || c.dead {
		return
	}
	c.end = end
	if c.pid != 0 {
		_ = writeLease(c.dir, end) // one that fails ends the program in time
	}
}

// Remove implements runtime.Container.
func (c *container) Remove(ctx context.Context) error {
	if err := c.Kill(ctx); err != nil {
		return err
	}
	return os.RemoveAll(c.dir)
}

// Input implements runtime.Container.
func (c *container) Input(context.Context, []byte, bool) error { return runtime.ErrNoInput }

// Resize implements runtime.Container.
func (c *container) Resize(context.Context, uint16, uint16) error { return nil }

// Signal implements runtime.Container.
func (c *container) Signal(context.Context, syscall.Signal) error {
	return errors.New("programs here take no signals")
}

// CopyOut implements runtime.Container.
func (c *container) CopyOut(context.Context, string) (io.ReadCloser, error) {
	return nil, runtime.ErrNoPath
}
