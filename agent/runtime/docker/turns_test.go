package docker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestTurnsToSpareComeLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(1)
		if err := turns.take(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		came := make(chan string, 3)
		wait := func(name string, spare bool) {
			go func() {
				if err := turns.take(t.Context(), spare); err != nil {
					t.Error(err)
				}
				came <- name
			}()
			synctest.Wait()
		}
		wait("spare", true)
		wait("first", false)
		wait("second", false)
		for _, want := range []string{"first", "second", "spare"} {
			turns.give()
			if got := <-came; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		turns.give()
	})
}

func TestTurnIsNotLostWithItsWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(1)
		if err := turns.take(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		gaveUp := make(chan error)
		go func() { gaveUp <- turns.take(ctx, false) }()
		synctest.Wait()
		cancel(gone)
		if err := <-gaveUp; !errors.Is(err, gone) {
			t.Errorf("got %v, want %v", err, gone)
		}
		turns.give()
		if err := turns.take(t.Context(), true); err != nil { // at once
			t.Error(err)
		}
	})
}
