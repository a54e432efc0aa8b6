package state_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"ecs/control/state"
	"ecs/internal/task"
)

func wish(image string, count int) state.Wish {
	return state.Wish{Spec: task.Spec{Image: image}, Count: count, Owner: "ann"}
}

func TestWishesReplaceEachOther(t *testing.T) {
	w := newWorld(t)
	counts := func() string {
		var all []string
		for wish := range w.sn().Wishes() {
			all = append(all, fmt.Sprint(wish.Spec.Image, wish.Count))
		}
		return fmt.Sprint(all)
	}
	for _, step := range []struct {
		wish state.Wish
		want string
	}{
		{wish("b", 0), "[]"},
		{wish("b", 2), "[b2]"},
		{wish("a", 1), "[a1 b2]"},
		{wish("b", 3), "[a1 b3]"},
		{wish("b", 3), "[a1 b3]"},
		{wish("a", 0), "[b3]"},
	} {
		before := w.sn()
		kept := slices.Collect(before.Wishes())
		w.do(step.wish)
		if got := counts(); got != step.want {
			t.Errorf("after %s %d: got %s, want %s", step.wish.Spec.Image, step.wish.Count, got, step.want)
		}
		if now := slices.Collect(before.Wishes()); fmt.Sprint(now) != fmt.Sprint(kept) {
			t.Errorf("an earlier snapshot has changed: got %v, want %v", now, kept)
		}
	}
	if got, ok := w.sn().Wish("b"); !ok || got.Count != 3 || got.Owner != "ann" {
		t.Errorf("got %+v, %v; want 3 of b", got, ok)
	}
	var text bytes.Buffer
	if err := w.sn().Write(&text); err != nil {
		t.Fatal(err)
	}
	restored := state.NewStore(state.Limits{})
	if err := restored.Restore(&text); err != nil || restored.Snapshot().Hash() != w.sn().Hash() {
		t.Errorf("restored: %v, with %v", err, slices.Collect(restored.Snapshot().Wishes()))
	}
}

func TestWishesAreBounded(t *testing.T) {
	w := newWorld(t)
	code := func(out state.Outcome) task.Code {
		refusal := new(task.Error)
		errors.As(out.Err, &refusal)
		return refusal.Code
	}
	for i := range state.MaxWishes {
		w.do(wish(fmt.Sprintf("i%03d", i), 1))
	}
	for _, tt := range []struct {
		wish state.Wish
		want task.Code
	}{
		{wish("one-more", 1), task.CodeTooLarge},
		{wish("i000", state.MaxWishCount+1), task.CodeBadRequest},
		{wish("", 1), task.CodeBadRequest},
		{wish("i000", 2), ""},
	} {
		if got := code(w.do(tt.wish)); got != tt.want {
			t.Errorf("%q %d: got %q, want %q", tt.wish.Spec.Image, tt.wish.Count, got, tt.want)
		}
	}
	w.do(wish("i000", 0))
	if got := code(w.do(wish("one-more", 1))); got != "" {
		t.Errorf("after one was taken back: got %q", got)
	}
}
