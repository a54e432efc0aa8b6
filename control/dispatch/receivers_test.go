package dispatch

import (
	"testing"

	"ecs/internal/task"
)

func TestOutputIsSpreadOverZonesAndRoom(t *testing.T) {
	at := func(id task.NodeID, free, zoneLoad int64, busy int) receiver {
		return receiver{session: &session{node: id}, free: free, zoneLoad: zoneLoad, busy: busy}
	}
	for name, tc := range map[string]struct {
		of   []receiver
		want int
	}{
		"nobody":                       {nil, -1},
		"all busy":                     {[]receiver{at("a", 9, 0, takesOfOne), at("b", 9, 0, takesOfOne)}, -1},
		"the zone with less":           {[]receiver{at("a", 90, 50, 0), at("b", 20, 10, 0)}, 1},
		"room before the zone":         {[]receiver{at("a", 90, 50, 0), at("b", 9, 0, 0)}, 0},
		"most room in a zone":          {[]receiver{at("a", 20, 10, 0), at("b", 30, 10, 1)}, 1},
		"the busy one is left alone":   {[]receiver{at("a", 20, 10, 0), at("b", 30, 10, takesOfOne)}, 0},
		"a full one rather than none":  {[]receiver{at("a", 0, 10, 0)}, 0},
		"the first, where all is even": {[]receiver{at("a", 20, 0, 0), at("b", 20, 0, 0)}, 0},
	} {
		if got := choose(tc.of, 10); got != tc.want {
			t.Errorf("%s: got %d, want %d", name, got, tc.want)
		}
	}
}
