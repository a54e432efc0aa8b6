package daemon

import (
	"log/slog"
	"testing"

	ecsv1 "ecs/proto/ecs/v1"
)

func TestAnOlderListOfRevocationsIsNotTaken(t *testing.T) {
	w := &RevocationWatch{Log: slog.New(slog.DiscardHandler)}
	for i, c := range []struct {
		incarnation, index uint64
		taken              bool
	}{{0, 10, true}, {0, 9, false}, {0, 10, true}, {0, 12, true}, {0, 0, false}, // of a node that says none: of an earlier version
		{1, 3, true}, {0, 20, false}, {1, 4, true}} {
		if got := w.newer(&ecsv1.RevokedCertificates{Incarnation: c.incarnation, Index: c.index}); got != c.taken {
			t.Errorf("list %d, %d of %d: got taken %v", i, c.index, c.incarnation, got)
		}
	}
}
