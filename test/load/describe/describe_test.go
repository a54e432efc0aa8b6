package main

import (
	"errors"
	"io/fs"
	"os"
	"testing"
)

// What openapi.yaml states is what the last bench found.
func TestOpenAPIStatesWhatTheBenchFound(t *testing.T) {
	text, err := os.ReadFile("../../../proto/api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	found, err := Read("../../../docs/bench.json")
	if errors.Is(err, fs.ErrNotExist) {
		found, err = nil, nil // then it must state nothing
	}
	if err != nil {
		t.Fatal(err)
	}
	want, err := Stated(string(text), found)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		want = want[:len(want)-1] + " {}\n"
	}
	if string(text) != want {
		t.Error("x-latency in proto/api/openapi.yaml is not what docs/bench.json says: go run ./test/load/describe docs/bench.json proto/api/openapi.yaml")
	}
}

func TestStatedReplacesWhatWasStated(t *testing.T) {
	const before = "openapi: 3.1.0\n\n" + begin + " {}\n"
	got, err := Stated(before, map[string]Latency{"POST /v2/tasks": {P50: 1.26, P99: 30}, "GET /v2/tasks/{id}": {P50: 0.5, P99: 2}})
	want := "openapi: 3.1.0\n\n" + begin + "\n  'GET /v2/tasks/{id}': {p50_ms: 0.5, p99_ms: 2.0}\n  'POST /v2/tasks': {p50_ms: 1.3, p99_ms: 30.0}\n"
	if err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if again, err := Stated(got, map[string]Latency{"GET /x": {P50: 1, P99: 1}}); err != nil || again != "openapi: 3.1.0\n\n"+begin+"\n  'GET /x': {p50_ms: 1.0, p99_ms: 1.0}\n" {
		t.Errorf("got %q, %v", again, err)
	}
	if _, err := Stated("openapi: 3.1.0\n", nil); err == nil {
		t.Error("a description without the place is taken")
	}
}
