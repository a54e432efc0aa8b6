package main

import (
	"testing"
	"time"

	"ecs/test/chaos/check"
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

func TestOnlyLatenessMayBeTriedAgain(t *testing.T) {
	for want, rules := range map[error][]string{nil: {}, errLate: {"L3", "floor"}, errViolated: {"L3", "S5", "floor"}} {
		var all []check.Violation
		for _, rule := range rules {
			all = append(all, check.Violation{Rule: rule})
		}
		if got := broken(all); got != want {
			t.Errorf("%v: got %v, want %v", rules, got, want)
		}
	}
	for _, rule := range []string{"fence", "L1"} {
		if got := broken([]check.Violation{{Rule: rule}}); got != errViolated {
			t.Errorf("%s: got %v", rule, got)
		}
	}
}
