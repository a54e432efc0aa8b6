package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestOneAtATime: what is readied is readied before every round and not timed,
// warm-ups don't count, and what the answers said is in the rows.
func TestOneAtATime(t *testing.T) {
	var calls []string
	n := 0
	ways := []way{
		{name: rawName, do: func(context.Context) error { calls = append(calls, "raw"); return nil }},
		{name: "warm", do: func(context.Context) error { calls = append(calls, "warm"); n++; return nil },
			ready: func(context.Context) error { calls = append(calls, "ready"); return nil },
			told: func() answer {
				a := answer{OverheadMS: float64(n), Times: map[string]float64{"start_ms": 2}}
				if n > 2 {
					a.Warm = "hit"
				}
				return a
			}},
	}
	rows, err := oneAtATime(t.Context(), ways, 1, 4)
	if err != nil {
		t.Fatal(err)
	}
	if want := slices.Repeat([]string{"raw", "ready", "warm"}, 5); !slices.Equal(calls, want) {
		t.Errorf("got %v, want %v", calls, want)
	}
	if r := rows[0]; r.Rounds != 4 || r.Hits != nil || r.Bill != nil {
		t.Errorf("raw: got %+v, want 4 rounds and no word of a bill", r)
	}
	if r := rows[1]; r.Hits == nil || *r.Hits != 0.75 || *r.OverheadP50 != 3 || r.Bill["start_ms"] != 2 {
		t.Errorf("warm: got %+v, want 3 hits of 4 and the medians", r)
	}
	w := &strings.Builder{}
	printRows(w, rows)
	if !strings.Contains(w.String(), "75 %") || !strings.Contains(w.String(), "2.00") {
		t.Errorf("the table lacks hits or the bill:\n%s", w)
	}
	fault := errors.New("no pool")
	ways[1].ready = func(context.Context) error { return fault }
	if _, err := oneAtATime(t.Context(), ways, 0, 1); !errors.Is(err, fault) {
		t.Errorf("got %v, want the fault of what was to be ready", err)
	}
}
