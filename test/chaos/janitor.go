package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/docker/docker/client"
)

const (
	// janitorCommand makes this program the janitor of a run.
	janitorCommand = "janitor"
	// runPrefix begins the names of all that any run makes.
	runPrefix    = "ecsx"
	runsDir      = "/tmp"
	lockFile     = "/run/lock/ecs-chaos"
	removeWithin = time.Minute
)

// janitor is a process that removes everything of a run once the run is over,
// however it ended: it reads a pipe whose other end the run holds, so that even a
// kill lets it know.
type janitor struct {
	tag        string
	containers bool
	cmd        *exec.Cmd
	pipe       *os.File
}

// startJanitor starts it. lock is held by both, so that no other run begins before
// the last one's janitor is done.
func startJanitor(dir, tag string, containers bool, lock *os.File) (*janitor, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	said, err := os.OpenFile(filepath.Join(dir, "janitor.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer said.Close()
	read, write, err := os.Pipe() // not for children: they would hold it open
	if err != nil {
		return nil, err
	}
	defer read.Close()
	cmd := exec.Command(self, janitorCommand, tag, fmt.Sprint(containers))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = read, said, said
	if lock != nil {
		cmd.ExtraFiles = []*os.File{lock}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a terminal's Ctrl-C is not for it
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the janitor: %w", err), write.Close())
	}
	return &janitor{tag: tag, containers: containers, cmd: cmd, pipe: write}, nil
}

// close lets the janitor do its work, and waits for it. Where it could not, or was
// killed, the work is done here.
func (j *janitor) close(ctx context.Context) error {
	err := j.pipe.Close()
	if ended := j.cmd.Wait(); ended != nil {
		err = errors.Join(err, fmt.Errorf("the janitor failed, see janitor.log: %w", ended), sweep(ctx, j.tag, j.containers))
	}
	return err
}

// clean is the janitor's process.
func clean(tag string, containers bool) error {
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return fmt.Errorf("wait for the run to end: %w", err)
	}
	return sweep(context.Background(), tag, containers)
}

// sweep removes what has names that begin with prefix.
func sweep(ctx context.Context, prefix string, containers bool) error {
	r := remains{prefix: prefix}
	if containers {
		engine, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
		if err != nil {
			return err
		}
		defer engine.Close()
		r.engine = engine
	}
	ctx, cancel := context.WithTimeout(ctx, removeWithin)
	defer cancel()
	return r.remove(ctx)
}

// onlyRun makes sure that there is no other run, whose network would be this one's.
func onlyRun() (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(lockFile), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another run is at work, or its janitor still is; wait for its end (lock %s: %w)", lockFile, err), f.Close())
	}
	return f, nil
}
