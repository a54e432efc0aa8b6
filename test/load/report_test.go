package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// A run of some parts leaves the others in the file as they are, and says where
// its own were measured.
func TestPartsOfARunTakeTheirPlaceAmongTheOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench.json")
	write := func(r *report, only ...string) (got report) {
		t.Helper()
		if err := r.write(options{json: path, only: only}); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(text, &got)
		}
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	write(&report{origin: origin{Machine: "a"}, Rows: []row{{Name: rawName}, {Name: "swarm"}}, Idle: []idle{{Process: "p"}}})
	got := write(&report{origin: origin{Machine: "b"}, Operations: map[string]latency{"GET /x": {P50: 1}}}, "operations")
	if got.Machine != "a" || len(got.Rows) != 2 || len(got.Idle) != 1 || got.Operations["GET /x"].P50 != 1 || got.Parts["operations"].Machine != "b" {
		t.Errorf("got %+v", got)
	}
	got = write(&report{origin: origin{Machine: "c"}, Rows: []row{{Name: "swarm", P50: 2}}}, "swarm")
	if len(got.Rows) != 2 || got.Rows[1].P50 != 2 || got.Parts["swarm"].Machine != "c" || got.Operations == nil {
		t.Errorf("got %+v", got)
	}
	both := write(&report{Rows: []row{{Name: rawName, P50: 3}, {Name: "swarm", P50: 4}}}, "single", "swarm")
	if want := []row{{Name: rawName, P50: 3}, {Name: "swarm", P50: 4}}; !reflect.DeepEqual(both.Rows, want) {
		t.Errorf("got %+v, want %+v", both.Rows, want)
	}
	if got = write(&report{origin: origin{Machine: "d"}}); got.Machine != "d" || got.Parts != nil || got.Rows != nil {
		t.Errorf("got %+v of a whole run", got)
	}
	for _, part := range parts { // none is forgotten
		whole := &report{Rows: []row{{}}, Parked: &parked{}, Throughput: []throughput{{}}, Idle: []idle{{}}, ControlPlane: &controlPlane{}, Door: &door{},
			Operations: map[string]latency{"GET /x": {}}, Prototype: []row{{}}}
		before, err := json.Marshal(whole)
		if err != nil {
			t.Fatal(err)
		}
		whole.replace(part, &report{Rows: []row{{Name: part}}})
		if after, err := json.Marshal(whole); err != nil || string(after) == string(before) && part != "swarm" && part != "nomad" {
			t.Errorf("%s is not replaced: %v", part, err)
		}
	}
}
