package control

import (
	"testing"
)

// A node that was told to stop stays a member, whatever it is asked then: its log
// is not to be thrown away.
func TestANodeThatStopsDoesNotLeave(t *testing.T) {
	s := &Server{goodbye: newGoodbye()}
	s.goodbye.refuse()
	if s.goodbye.begin(nil) {
		t.Error("a leave began after the stop")
	}
	close(s.goodbye.done)
	if s.Left() {
		t.Error("it says that it left")
	}
}

// A leave whose turn never came is no leave either.
func TestALeaveThatWasAskedForIsNotYetOne(t *testing.T) {
	s := &Server{goodbye: newGoodbye()}
	if !s.goodbye.begin(nil) {
		t.Fatal("a first leave did not begin")
	}
	if s.Left() {
		t.Error("it says that it left before Run has ended")
	}
	close(s.goodbye.done)
	if s.Left() {
		t.Error("it says that it left")
	}
	if err := s.goodbye.outcome(); err != errStopping {
		t.Errorf("got %v, want %v", err, errStopping)
	}
}
