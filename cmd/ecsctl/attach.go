package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"sync"
	"sync/atomic"

	"github.com/spf13/cobra"

	"ecs/proto/api"
	"ecs/proto/api/attach"
)

var (
	errNoTerminal = errors.New("the input device is not a TTY: -t needs a terminal on standard input (leave -t away to give the program a pipe)")
	errTerminal   = errors.New("the task has a terminal and the input device here is not a TTY (--no-stdin shows its output alone)")
)

// attachment says how a task is attached to.
type attachment struct {
	tty, stdin bool
	own        bool // it was begun here, so Ctrl-C cancels it
	from       attach.Start
}

func (a *app) attachCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "attach ID",
		Short: "Attach to a task: show its output, type into it, and exit with its status",
		Long: `Attach to a task that was left with Ctrl-P Ctrl-Q or begun with run --detach: show
its output as it appears, give its program what is typed, and exit with its
status. The output of a task with a terminal begins where it is now.

Ctrl-C leaves the task running, unless it has a terminal: then every key is the
program's, and Ctrl-P Ctrl-Q leaves it.`,
		Args: exactlyOne("a task's id"),
	}
	noStdin := c.Flags().Bool("no-stdin", false, "show the output alone")
	c.RunE = func(c *cobra.Command, args []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		ctx, leave := context.WithCancel(c.Context())
		defer leave()
		task, err := client.Get(ctx, args[0])
		if err != nil {
			return fmt.Errorf("attach to task %s: %w", args[0], named(err, listsTasks))
		}
		how := attachment{tty: task.Spec.TTY && !*noStdin, stdin: task.Spec.OpenStdin && !*noStdin}
		if task.Finished() {
			how.tty, how.stdin = false, false
		}
		if _, ok := a.terminal(); how.tty && !ok {
			return usage("%w", errTerminal)
		}
		s := &session{app: a, client: client, leave: leave, shown: make(map[string]int64)}
		if how.tty {
			if how.from, err = s.atPrompt(ctx, task); err != nil {
				return fmt.Errorf("attach to task %s: %w", task.ID, err)
			}
		}
		return s.attach(ctx, task.ID, how)
	}
	return c
}

// queries are escape sequences that a terminal answers.
var queries = regexp.MustCompile(`\x1b\[[0-9;?>=]*[nc]`)

// atPrompt passes over what a terminal has shown already: shown again, its
// escape sequences would ask this terminal things whose answers the program
// took for typed. The line it ended in is shown,
// without those.
func (s *session) atPrompt(ctx context.Context, task *api.Task) (attach.Start, error) {
	var start attach.Start
	if n := len(task.Attempts); n > 0 {
		start.Attempt = task.Attempts[n-1].Number
	}
	r, err := s.client.Output(ctx, task.ID, api.Stdout, api.OutputOptions{})
	if err != nil {
		return start, err
	}
	defer r.Close()
	var end tail
	start.Stdout, err = io.Copy(&end, r)
	if err != nil {
		return start, err
	}
	if line := end.kept[bytes.LastIndexByte(end.kept, '\n')+1:]; len(line) < tailBytes {
		_, err = s.stdout.Write(queries.ReplaceAll(line, nil))
	}
	s.number, s.shown[api.Stdout] = start.Attempt, start.Stdout
	return start, err
}

// Write makes a tail the end of what is written to it.
func (t *tail) Write(p []byte) (int, error) {
	t.add(p)
	return len(p), nil
}

// attach stays with a task until it has finished or is left: output comes out
// as it appears, what is typed goes in.
func (s *session) attach(whole context.Context, id string, how attachment) error {
	ctx, stop := context.WithCancel(whole)
	defer stop()
	typing := attach.New(s.client, id, how.from)
	s.typing.Store(typing)
	var parts sync.WaitGroup
	var detached atomic.Bool
	restore := func() error { return nil }
	keyboard := keyboard{to: typing}
	if how.tty {
		var err error
		if restore, err = s.takeTerminal(ctx, &parts, typing, how.stdin, stop); err != nil {
			return &exitError{exitService, err}
		}
		keyboard.detach = func() { detached.Store(true); stop() }
		keyboard.interrupt = func() bool {
			if s.state.Load() == api.StateRunning {
				return false
			}
			if how.own {
				s.cancel(ctx, id)
			} else {
				keyboard.detach()
			}
			return true
		}
	}
	if how.stdin {
		in, err := newInput(s.stdin)
		if err != nil {
			return errors.Join(&exitError{exitService, err}, restore())
		}
		defer in.close()
		parts.Go(func() { keyboard.pump(ctx, in) })
	}
	_, err := typing.Run(ctx, func(e attach.Event) error { return s.see(id, e) })
	stop()
	parts.Wait()
	if failed := restore(); failed != nil {
		s.say("the terminal could not be set back, `reset` does that: %v", failed)
	}
	switch {
	case detached.Load():
		s.say("detached; task %s goes on, and `ecsctl attach %s` comes back to it", id, id)
		return nil
	case context.Cause(ctx) == errInterrupted:
		return &exitError{exitCancelled, fmt.Errorf("left; task %s goes on, and `ecsctl attach %s` comes back to it", id, id)}
	case err != nil:
		return s.lostSight(id, err)
	}
	return s.finish(whole, id)
}

// see shows one event.
func (s *session) see(id string, e attach.Event) error {
	switch {
	case e.Data != nil:
		s.shown[e.Stream] += int64(len(e.Data))
		return s.write(e.Stream, e.Data)
	case e.Attempt != 0:
		s.begin(e.Attempt)
	case e.State != nil:
		s.state.Store(e.State.State)
		if because := e.State.WaitingBecause; because != "" && because != s.waits {
			s.waits = because
			s.say("task %s waits: %s", id, printable(because))
		}
	case e.Problem != nil:
		s.say("%s", printable(e.Problem.Error()))
	case e.Lost != nil:
		s.say("the connection was lost, attaching again")
	}
	return nil
}

// keyboard passes on what is typed.
type keyboard struct {
	to     *attach.Session
	detach func() // not nil: the terminal is raw, and there are keys to leave by
	held   bool   // the first of these was typed
	// interrupt takes a Ctrl-C that comes before there is a program for it.
	interrupt func() bool
}

// The keys to leave by are those of docker.
const (
	ctrlC = 'C' & 0x1f
	ctrlP = 'P' & 0x1f
	ctrlQ = 'Q' & 0x1f
)

// pump ends with what is typed, or when in is closed.
func (k *keyboard) pump(ctx context.Context, in *input) {
	buf := make([]byte, api.AttachPiece)
	for {
		n, err := in.read(ctx, buf)
		typed, leave := k.filter(buf[:n])
		if leave {
			k.detach()
			return
		}
		// What a program does not take is thrown away; a terminal is read on,
		// for the keys to leave by.
		if _, closed := k.to.Write(typed); closed != nil && k.detach == nil {
			return
		}
		switch {
		case errors.Is(err, errStopped):
			return
		case err != nil:
			k.to.CloseInput()
			return
		}
	}
}

// filter takes the keys to leave by out of what is typed.
func (k *keyboard) filter(typed []byte) (rest []byte, leave bool) {
	if k.detach == nil {
		return typed, false
	}
	for _, key := range typed {
		switch {
		case key == ctrlC && k.interrupt():
			continue
		case k.held && key == ctrlQ:
			return nil, true
		case key == ctrlP && !k.held:
			k.held = true
			continue
		case k.held:
			rest = append(rest, ctrlP)
			k.held = key == ctrlP
			if k.held {
				continue
			}
		}
		rest = append(rest, key)
	}
	return rest, false
}

// localFiles reads the files of --file SRC:DST[:mode].
func localFiles(flags []string) ([]api.File, error) {
	var files []api.File
	var faults []error
	for _, flag := range flags {
		f, err := localFile(flag)
		if err != nil {
			faults = append(faults, fmt.Errorf("--file %s: %w", flag, err))
		}
		files = append(files, f)
	}
	return files, errors.Join(faults...)
}

func localFile(flag string) (api.File, error) {
	src, dst, mode, err := splitFile(flag)
	if err != nil {
		return api.File{}, err
	}
	info, err := os.Stat(src)
	switch {
	case err != nil:
		return api.File{}, err
	case !info.Mode().IsRegular():
		return api.File{}, errors.New("it is no regular file")
	case info.Size() > api.MaxBodyV2:
		return api.File{}, fmt.Errorf("it has %s, and a task with all its files at most %s: send it on stdin, or put it into an image",
			bytesText(info.Size()), bytesText(api.MaxBodyV2))
	}
	b, err := os.ReadFile(src)
	if err != nil {
		return api.File{}, err
	}
	if mode == "" {
		mode = fmt.Sprintf("%04o", info.Mode().Perm())
	}
	return api.File{Path: dst, Mode: mode, Content: api.NewContent(b)}, nil
}

// splitFile takes SRC:DST[:mode] apart. DST is absolute, so a colon in SRC does
// no harm.
func splitFile(flag string) (src, dst, mode string, err error) {
	src, dst, ok := cutLast(flag, ":/")
	if !ok || src == "" || dst == "" {
		return "", "", "", errors.New("want SRC:DST or SRC:DST:mode, with an absolute DST")
	}
	dst, mode, _ = cutLast("/"+dst, ":")
	return src, dst, mode, nil
}

// cutLast is strings.Cut at the last separator.
func cutLast(s, separator string) (before, after string, found bool) {
	if i := bytes.LastIndex([]byte(s), []byte(separator)); i >= 0 {
		return s[:i], s[i+len(separator):], true
	}
	return s, "", false
}
