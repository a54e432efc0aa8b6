package agent

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"ecs/agent/output"
	"ecs/agent/runtime"
	"ecs/agent/runtime/fake"
	"ecs/internal/task"
)

func TestProgramsAreReachedAlsoAfterARestart(t *testing.T) {
	inRestarts(t, func(c *cluster, engine *fake.Engine) {
		spec := task.Spec{Image: "i", Command: []string{"cat", ";", "size", ";", "exit", "3"}, OpenStdin: true, TTY: true}
		tok := c.assign("t1", spec)
		closed := c.assign("t2", command("sleep 1h"))
		time.Sleep(time.Second)
		say := func(text string, eof bool) {
			t.Helper()
			if err := c.agent.Input(c.t.Context(), tok, []byte(text), eof); err != nil {
				t.Errorf("input: %v", err)
			}
		}
		say("one ", false)
		c.killAgent(engine)
		c.restart(engine)
		c.connected(5 * time.Second)
		if err := c.agent.Resize(c.t.Context(), tok, 7, 9); err != nil {
			t.Errorf("resize: %v", err)
		}
		say("two\n", true)
		if got := c.result(tok, 5*time.Second).result; got.ExitCode != 3 || string(got.Stdout.Head) != "one two\n7 9\n" {
			t.Errorf("got %+v with %q, want what was given and the size", got, got.Stdout.Head)
		}
		if err := c.agent.Input(c.t.Context(), tok, nil, true); !errors.Is(err, output.ErrNoAttempt) {
			t.Errorf("input after the end: got %v, want %v", err, output.ErrNoAttempt)
		}
		if err := c.agent.Input(c.t.Context(), closed, []byte("x"), false); !errors.Is(err, runtime.ErrNoInput) {
			t.Errorf("input that was not asked for: got %v, want %v", err, runtime.ErrNoInput)
		}
		if err := c.agent.Signal(c.t.Context(), closed, syscall.SIGTERM); err != nil {
			t.Errorf("signal: %v", err)
		}
		if got := c.result(closed, 5*time.Second).result; got.ExitCode != 143 {
			t.Errorf("got %+v, want it ended by the signal", got)
		}
	})
}
