package main

import (
	"strings"
	"testing"
)

func TestNotesOnWishesGoToPeople(t *testing.T) {
	s := newService(t)
	for _, args := range []string{"images warm busybox:1 --count 3", "images warm --json busybox:1", "images ls"} {
		s.notes = nil
		quiet := invoke(s)
		if status := quiet.main(strings.Fields(args)); status != exitOK || quiet.err.String() != "" {
			t.Errorf("%s: got status %d, %q, want nothing said", args, status, quiet.err)
		}
		s.notes = []string{"the pool is off\x1b", "nobody has it"}
		i := invoke(s)
		said := func(text string) bool { return strings.Contains(i.err.String(), text) }
		if status := i.main(strings.Fields(args)); status != exitOK || !said(`ecsctl: the pool is off\x1b`) || !said("ecsctl: nobody has it") {
			t.Errorf("%s: got status %d, %q, want both notes", args, status, i.err)
		}
		if strings.Contains(args, "warm") != said("`ecsctl images ls` shows") {
			t.Errorf("%s: got %q, want it said where to look when there is more to come", args, i.err)
		}
		if json := strings.Contains(args, "--json"); !json && i.out.String() != quiet.out.String() {
			t.Errorf("%s: got %q, want %q with notes, too", args, i.out, quiet.out)
		}
	}
}
