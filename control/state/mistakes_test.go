//go:build !race

package state_test

import (
	"os/exec"
	"regexp"
	"testing"
)

// TestSeededMistakesAreCaught builds the state machine with a deliberate mistake
// and wants the model to notice: agents here forget what they may not report, so
// that a whole cluster does not bring it about in every run.
func TestSeededMistakesAreCaught(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the package again for each mistake")
	}
	for tag, says := range map[string]string{
		"ecs_mistake_token": "accepted true, live false",
		"ecs_mistake_once":  "at most 1 are allowed",
		"ecs_mistake_key":   "have one key|existed false, known true", // whichever comes first
	} {
		out, err := exec.Command("go", "test", "-tags", tag, "-run", "^TestRandomCommandsKeepTheInvariants$", "-count=1", ".", "-seeds", "2").CombinedOutput()
		if err == nil || !regexp.MustCompile(says).Match(out) {
			t.Errorf("with %s: got %v, want a failure that says %q\n%s", tag, err, says, out)
		}
	}
}
