package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"ecs/proto/api"
)

func TestExitCodesAreTheProgramsOwn(t *testing.T) {
	c := sharedCluster(t)
	for i, code := range []int{0, 1, 125, 126, 127, 137, 255} {
		got := c.run(t, i, api.TaskRequest{Image: prog, Command: []string{"prog", "exit", sizeOf(code)}})
		if got.Outcome != api.OutcomeExited || got.ExitCode == nil || *got.ExitCode != code {
			t.Errorf("exit %d: got %s %s (%s)", code, got.Outcome, codeOf(got), got.Reason)
		}
		if v1 := c.v1(t, i, prog, "prog", "exit", sizeOf(code)); v1.ExitCode != code {
			t.Errorf("v1 exit %d: got %d", code, v1.ExitCode)
		}
	}
	got := c.run(t, 0, api.TaskRequest{Image: busybox, Command: sh("sh -c 'kill -TERM $$'; echo survived; exit $?")})
	if text := string(content(t, got.Stdout)); got.Outcome != api.OutcomeExited || text != "survived\n" {
		t.Errorf("a child killed by a signal: got %s %q", got.Outcome, text)
	}
}

func TestProgramKilledByASignal(t *testing.T) {
	c := sharedCluster(t)
	for i, tc := range []struct {
		signal string
		code   int
	}{{"SIGTERM", 143}, {"SIGKILL", 137}} {
		got := c.run(t, i, api.TaskRequest{Image: prog, Command: []string{"prog", "print", "before", ";", "signal", tc.signal}})
		if got.Outcome != api.OutcomeExited || got.ExitCode == nil || *got.ExitCode != tc.code {
			t.Errorf("%s: got %s %s (%s), want exited %d", tc.signal, got.Outcome, codeOf(got), got.Reason, tc.code)
		}
		if text := string(content(t, got.Stdout)); text != "before" {
			t.Errorf("%s: got stdout %q, want what it printed before", tc.signal, text)
		}
	}
}

// codeOf is a task's exit code for people.
func codeOf(t api.Task) string {
	if t.ExitCode == nil {
		return "without exit code"
	}
	return fmt.Sprint(*t.ExitCode)
}

func TestProgramThatCannotStart(t *testing.T) {
	c := sharedCluster(t)
	for _, tc := range []struct {
		name, reason string
		req          api.TaskRequest
	}{
		{"no such command", "no-such", api.TaskRequest{Image: busybox, Command: []string{"/no-such"}}},
		{"not executable", "permission denied", api.TaskRequest{Image: busybox, Command: []string{"/etc/passwd"}}},
		{"no such user", "nobody-here", api.TaskRequest{Image: busybox, User: "nobody-here", Command: []string{"true"}}},
	} {
		got := c.run(t, 1, tc.req)
		if got.Outcome != api.OutcomeStartFailed || !strings.Contains(got.Reason, tc.reason) {
			t.Errorf("%s: got %s %q, want start_failed with %q", tc.name, got.Outcome, got.Reason, tc.reason)
		}
	}
	status, header, body := c.call(0, http.MethodPost, "/v1.1/tasks", map[string]any{"docker_image": busybox, "cmd": []string{"/no-such"}})
	if status != 422 {
		t.Fatalf("v1: got %d %s, want 422", status, body)
	}
	if p := problem(t, header, body); string(p.Code) != api.OutcomeStartFailed {
		t.Errorf("v1: got code %s, want start_failed", p.Code)
	}
}

func TestOutOfMemoryIsSaid(t *testing.T) {
	c := sharedCluster(t)
	got := c.run(t, 0, api.TaskRequest{Image: prog, Command: []string{"prog", "print", "so far", ";", "alloc", "268435456"},
		Resources: api.Resources{Memory: 32 << 20}})
	if got.Outcome != api.OutcomeOOMKilled || got.ExitCode == nil || *got.ExitCode != 137 {
		t.Errorf("got %s %s (%s), want oom_killed 137", got.Outcome, codeOf(got), got.Reason)
	}
	if text := string(content(t, got.Stdout)); text != "so far" {
		t.Errorf("got stdout %q, want the output so far", text)
	}
}

func TestRunLimitKeepsTheOutputSoFar(t *testing.T) {
	c := sharedCluster(t)
	got := c.run(t, 0, api.TaskRequest{Image: busybox, Command: sh("echo so far; sleep 60"),
		Timeouts: api.Timeouts{Run: api.Duration(2 * time.Second)}})
	if got.Outcome != api.OutcomeTimedOut {
		t.Errorf("got %s (%s), want timed_out", got.Outcome, got.Reason)
	}
	if text := string(content(t, got.Stdout)); text != "so far\n" {
		t.Errorf("got stdout %q, want the output so far", text)
	}
	if ms := *got.Times.Run; ms < 1900 || ms > 10_000 {
		t.Errorf("ran %.0f ms, want about its 2 s", ms)
	}
}
