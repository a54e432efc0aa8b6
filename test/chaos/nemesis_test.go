package main

import (
	"os/exec"
	"testing"
)

// An agent that could not leave as it should proves no leaving.
func TestOnlyStatusZeroIsALeaving(t *testing.T) {
	for command, want := range map[string]string{"exit 0": "left with status 0", "exit 1": "", "kill -9 $$": ""} {
		cmd := exec.Command("sh", "-c", command)
		_ = cmd.Run() // how it ended is what is looked at
		if got := leftWell(cmd.ProcessState); got != want {
			t.Errorf("%s: got %q, want %q", command, got, want)
		}
	}
}
