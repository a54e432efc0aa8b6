//go:build !race

package ecstest_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// defaultSeeds take about a minute on two cores.
const defaultSeeds = 100

// mistakenSeeds are as many as find a mistake that one run in ten meets: an at-most-once
// task has to run where one of a few faults strikes. The first that is found ends them.
const mistakenSeeds = "60"

// TestSeededMistakesAreCaught builds the simulation with one deliberate mistake
// each and wants it to fail: a check that nothing can fail checks nothing.
func TestSeededMistakesAreCaught(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the simulation again for each mistake")
	}
	for _, m := range []struct{ tag, violation string }{
		{"ecs_mistake_margin", "S5:"},
		{"ecs_mistake_key", "S8:"},
		{"ecs_mistake_once", "S6:"},
	} {
		t.Run(m.tag, func(t *testing.T) {
			cmd := exec.Command("go", "test", "-tags", m.tag, "-run", "^Test(PromisesHoldUnderFaults|AProgramThatEndsSlowlyNeverOverlaps)$", "-count=1", "-failfast", ".", "-seeds", mistakenSeeds)
			cmd.Env = os.Environ()
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatalf("the simulation passed with %s", m.tag)
			}
			if !strings.Contains(string(out), m.violation) {
				t.Fatalf("with %s the simulation failed otherwise than by %s\n%s", m.tag, m.violation, out)
			}
		})
	}
}
