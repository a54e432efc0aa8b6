package main

import (
	"strings"
	"testing"
)

func TestLoadSaysHowOftenWhatFailed(t *testing.T) {
	i := invoke(newService(t), "ECS_SECRET=wrong")
	status := i.main([]string{"load", "--mix", "noop=1", "--rate", "50", "--duration", "100ms"})
	if said := i.err.String(); status != exitFailed || !strings.Contains(said, "5 of 5 noop failed") ||
		!strings.Contains(said, "5 × 401 unauthorized") || !strings.Contains(said, "ECS_SECRET") || strings.Contains(said, "\x1b") {
		t.Errorf("got status %d, %q, want how often what failed, why, and what to do", status, said)
	}
	if !strings.HasPrefix(i.out.String(), "kind\trequests\tfailed") {
		t.Errorf("got %q, want the table", i.out)
	}
}
