package daemon

import "testing"

func TestCollectorIsRelaxedWhileBusyAndSmall(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name            string
		usual           int
		allocated, live uint64
		want            int
	}{
		{"idle", 100, mib, 10 * mib, 100},
		{"busy and small", 100, 100 * mib, 10 * mib, 800},
		{"busy, some live", 100, 100 * mib, 20 * mib, 400},
		{"busy and large", 100, 100 * mib, 500 * mib, 100},
		{"turned off", -1, 100 * mib, 10 * mib, -1},
		{"set higher by the operator", 900, 100 * mib, 10 * mib, 900},
	} {
		if got := percent(tt.usual, tt.allocated, tt.live, 128*mib); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}
