package main

import (
	"testing"
	"time"
)

func TestWhatAnAgentSaysOfItsLeader(t *testing.T) {
	for health, want := range map[string]struct {
		leader   string
		answered time.Duration
	}{
		"ready, 3 tasks, leader 10.0.0.1:7448, last answer 0.4 s ago\n": {"10.0.0.1:7448", 400 * time.Millisecond},
		"ready, 3 tasks, leader 10.0.0.1:7448\n":                        {},
		"no session with a leader\n":                                    {},
	} {
		if leader, answered := toldOf(health); leader != want.leader || answered != want.answered {
			t.Errorf("%q: got %q, %s", health, leader, answered)
		}
	}
}
