package main

import (
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

// TestProgramCannotReachInit runs every attack that is known, as root and not.
func TestProgramCannotReachInit(t *testing.T) {
	for _, user := range []string{"", "app"} {
		t.Run("user "+user, func(t *testing.T) {
			o := order("prog", "attack")
			o.User = user
			s := run(t, o)
			if s.failed != nil || s.exit.Code != 0 {
				t.Fatalf("got %+v, %+v, %q", s.exit, s.failed, s.stderr.String())
			}
			tried := strings.Split(strings.TrimSpace(s.stdout.String()), "\n")
			if len(tried) < 25 {
				t.Errorf("only %d attacks: %q", len(tried), tried)
			}
			for _, line := range tried {
				result := line[strings.LastIndexByte(line, ' ')+1:]
				refused := []string{"1", strconv.Itoa(int(unix.EPERM)), strconv.Itoa(int(unix.EACCES))}
				if !slices.Contains(refused, result) {
					t.Errorf("an attack was not refused: %s", line)
				}
			}
		})
	}
}

// TestInitHasLittle looks at PID 1 while a program runs.
func TestInitHasLittle(t *testing.T) {
	c := start(t)
	s := c.accept(initwire.Position{})
	s.send(shell("echo on; sleep 1000"))
	s.until(func() bool { return s.stdout.Len() > 0 })
	pid := c.cmd.Process.Pid
	for field, want := range map[string]int{"Uid": initwire.ReservedID, "Gid": initwire.ReservedID, "NoNewPrivs": 1} {
		if got := statusOf(t, pid, field); got != want {
			t.Errorf("%s: got %d, want %d", field, got, want)
		}
	}
	out, err := exec.Command("sh", "-c", "cat /proc/"+strconv.Itoa(pid)+"/task/*/status").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 2 && (f[0] == "CapPrm:" || f[0] == "CapEff:") && f[1] != "0000000000000020" {
			t.Errorf("a thread has %s", line)
		}
	}
	s.send(initwire.Kill{})
	c.done(s.finish())
}

func TestNobodyElseRunsInit(t *testing.T) {
	s := run(t, shell("/.ecs/init; echo $?; /.ecs/init stage2; echo $?; /.ecs/init stage2 3</dev/null; echo $?"))
	if s.stdout.String() != "64\n64\n64\n" {
		t.Errorf("got %q, %q", s.stdout.String(), s.stderr.String())
	}
}

// TestTracedProgramHasNotEnded stops a program that asked to be traced: it stays
// until something ends it.
func TestTracedProgramHasNotEnded(t *testing.T) {
	o := order("prog", "traced")
	o.RunLimit = 3 * time.Second
	s := run(t, o)
	if s.exit.Cause != initwire.CauseRunLimit || s.exit.Code != 137 || s.stdout.String() != "stopping\n" {
		t.Errorf("got %+v with output %q, want it to stop until its run limit", s.exit, s.stdout.String())
	}
}
