package main

import "testing"

// Only what tasks leave in a control node's record is no leak.
func TestGrowth(t *testing.T) {
	const ended = 18_000
	for name, tt := range map[string]struct {
		before, after process
		grown         bool
	}{
		"the record of a control node": {before: process{control: true, residentMiB: 54}, after: process{control: true, residentMiB: 155}},
		"more than the record":         {before: process{control: true, residentMiB: 54}, after: process{control: true, residentMiB: 300}, grown: true},
		"an agent's memory":            {before: process{residentMiB: 33}, after: process{residentMiB: 90}, grown: true},
		"an agent's cache":             {before: process{residentMiB: 33}, after: process{residentMiB: 44}},
		"files":                        {before: process{files: 30}, after: process{files: 60}, grown: true},
		"goroutines":                   {before: process{goroutines: 90}, after: process{goroutines: 200}, grown: true},
	} {
		if err := tt.after.grown(tt.before, ended); (err != nil) != tt.grown {
			t.Errorf("%s: got %v, want grown %t", name, err, tt.grown)
		}
	}
}
