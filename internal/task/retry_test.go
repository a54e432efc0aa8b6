package task

import (
	"fmt"
	"testing"
	"time"
)

func TestWhatCountsAsAFailureOfTheProgram(t *testing.T) {
	exit := func(code int) Result { return Result{Outcome: Exited, HasExit: true, ExitCode: code} }
	for _, tt := range []struct {
		name    string
		result  Result
		any     bool // without a list of codes
		for3    bool // with 3 in it
		special bool // with 124 and 137
	}{
		{"a good end", exit(0), false, false, false},
		{"a bad one", exit(3), true, true, false},
		{"another", exit(4), true, false, false},
		{"the code of a time limit, by itself", exit(ExitTimedOut), true, false, true},
		{"an exit that is not known", Result{Outcome: Exited}, false, false, false},
		{"out of memory", Result{Outcome: OOMKilled, HasExit: true, ExitCode: 137}, false, false, true},
		{"out of time", Result{Outcome: TimedOut, HasExit: true, ExitCode: 137}, false, false, true},
		{"lost", Result{Outcome: NodeLost}, false, false, false},
		{"no such command", Result{Outcome: StartFailed}, false, false, false},
		{"cancelled", Result{Outcome: Cancelled}, false, false, false},
	} {
		for codes, want := range map[*[]int]bool{{}: tt.any, {3}: tt.for3, {ExitTimedOut, ExitOOMKilled}: tt.special} {
			s := Spec{RetryExitCodes: *codes}
			if got := s.ProgramFailed(&tt.result); got != want {
				t.Errorf("%s, codes %v: got %v, want %v", tt.name, *codes, got, want)
			}
		}
	}
}

func TestPausesDoubleWithJitterUpToABound(t *testing.T) {
	for _, tt := range []struct{ first, third, most time.Duration }{
		{time.Millisecond, 4 * time.Millisecond, longestPause},
		{time.Second, 4 * time.Second, longestPause},
		{4 * time.Minute, longestPause, longestPause},
		{MaxBackoff, MaxBackoff, MaxBackoff},
	} {
		s := Spec{RetryBackoff: tt.first}
		within := func(failures int, low time.Duration) {
			drawn := make(map[time.Duration]bool)
			for i := range 100 {
				id := ID(fmt.Sprint("t", i))
				got := s.Pause(id, failures)
				if got < low || got > low+low/2 {
					t.Errorf("after %d failures, %s first: got %s, want %s and up to half more", failures, tt.first, got, low)
				}
				if got != s.Pause(id, failures) {
					t.Errorf("%s: two pauses for one failure", id)
				}
				drawn[got] = true
			}
			if len(drawn) < 50 {
				t.Errorf("100 tasks have %d pauses", len(drawn))
			}
		}
		within(1, tt.first)
		within(3, tt.third)
		within(70, tt.most) // beyond what a shift could hold
	}
}

func TestWhatIsLostAgainAndAgainPauses(t *testing.T) {
	for _, tt := range []struct {
		backoff time.Duration
		lost    int
		want    time.Duration // and up to half more
	}{
		{0, 0, 0}, {0, 1, 0}, {0, 2, time.Second}, {0, 3, 2 * time.Second}, {0, 10, LongestInfrastructurePause},
		{4 * time.Second, 1, 0}, {4 * time.Second, 2, 4 * time.Second}, {time.Hour, 2, LongestInfrastructurePause},
	} {
		s := Spec{RetryBackoff: tt.backoff}
		if got := s.InfrastructurePause("t", tt.lost); got < tt.want || got > tt.want+tt.want/2 {
			t.Errorf("%d lost, backoff %s: got %s, want %s and up to half more", tt.lost, tt.backoff, got, tt.want)
		}
	}
}
