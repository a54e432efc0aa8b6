package control

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"ecs/control/state"
	"ecs/internal/gossip"
)

func TestNodeThatOthersWentOnWithoutEnds(t *testing.T) {
	record := state.NewStore(state.Limits{})
	record.Recovered(10, "mine")
	const early, late = time.Second, time.Hour // since this node started
	for _, tt := range []struct {
		name  string
		other gossip.Member
		since time.Duration
		led   bool
		want  error
	}{
		{"the same recovery", gossip.Member{Incarnation: 1, Recovery: "mine"}, early, false, nil},
		{"one of before", gossip.Member{Recovery: ""}, early, false, nil},
		{"one that does not know yet", gossip.Member{Incarnation: 1}, early, false, nil},
		{"a later incarnation", gossip.Member{Incarnation: 2, Recovery: "next"}, late, false, ErrStale},
		{"a later incarnation, this node comes later with others", gossip.Member{Incarnation: 2, Recovery: "next"}, early, true, ErrStale},
		{"a claim to be one, to a node of a majority", gossip.Member{Incarnation: 2, Recovery: "next"}, late, true, nil},
		{"another recovery, this node comes later", gossip.Member{Incarnation: 1, Recovery: "other"}, early, true, ErrApart},
		{"another recovery, this node was there", gossip.Member{Incarnation: 1, Recovery: "other"}, late, true, nil},
	} {
		s := &Server{cfg: Config{ID: "c1", Log: slog.New(slog.DiscardHandler)}, store: record, started: time.Now().Add(-tt.since)}
		tt.other.ID, tt.other.Role = "c2", roleControl
		if err := s.compareRecoveries([]gossip.Member{{ID: "c1", Role: roleControl, Incarnation: 9}, tt.other}, tt.led, map[string]bool{}); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}
