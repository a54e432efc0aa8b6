package control

import (
	"errors"
	"testing"
)

// A node that was told to stop stays a member, whatever it is asked then: its log
// is not to be thrown away.
func TestANodeThatStopsDoesNotLeave(t *testing.T) {
	s := &Server{goodbye: newGoodbye()}
	s.goodbye.refuse()
	if _, ok := s.goodbye.begin(false, nil); ok {
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
	if _, ok := s.goodbye.begin(false, nil); !ok {
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

// One leave at a time, and another once that is called off.
func TestALeaveThatWasCalledOffMakesRoomForAnother(t *testing.T) {
	g := newGoodbye()
	first, ok := g.begin(false, nil)
	if !ok {
		t.Fatal("a first leave did not begin")
	}
	if _, ok := g.begin(true, nil); ok {
		t.Error("a second one began beside it")
	}
	if got := <-g.asked; got != first {
		t.Errorf("got %+v, want the first", got)
	}
	why := errors.New("the cluster needs it")
	g.callOff(first, why)
	if <-first.off; first.err != why {
		t.Errorf("got %v, want %v", first.err, why)
	}
	if _, ok := g.begin(false, nil); !ok {
		t.Error("another one did not begin")
	}
}
