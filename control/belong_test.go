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
		want  error
	}{
		{"the same recovery", gossip.Member{Incarnation: 1, Recovery: "mine"}, early, nil},
		{"one of before", gossip.Member{Recovery: ""}, early, nil},
		{"one that does not know yet", gossip.Member{Incarnation: 1}, early, nil},
		{"a later incarnation", gossip.Member{Incarnation: 2, Recovery: "next"}, late, ErrStale},
		{"another recovery, this node comes later", gossip.Member{Incarnation: 1, Recovery: "other"}, early, ErrApart},
		{"another recovery, this node was there", gossip.Member{Incarnation: 1, Recovery: "other"}, late, nil},
	} {
		s := &Server{cfg: Config{ID: "c1", Log: slog.New(slog.DiscardHandler)}, store: record, started: time.Now().Add(-tt.since)}
		tt.other.ID, tt.other.Role = "c2", roleControl
		if err := s.compareRecoveries([]gossip.Member{{ID: "c1", Role: roleControl, Incarnation: 9}, tt.other}, map[string]bool{}); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}
