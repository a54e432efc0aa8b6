package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
		found, err = Measured{}, nil // then it must state nothing
	}
	if err != nil {
		t.Fatal(err)
	}
	want, err := Stated(string(text), found)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != want {
		t.Error("x-latency in proto/api/openapi.yaml is not what docs/bench.json says: go run ./test/load/describe docs/bench.json proto/api/openapi.yaml")
	}
}

func TestStatedReplacesWhatWasStated(t *testing.T) {
	const head = "openapi: 3.1.0\n\n" + begin
	const before = head + "x-latency: {}\n"
	got, err := Stated(before, Measured{map[string]Latency{"POST /v2/tasks": {P50: 1.26, P99: 30}, "GET /v2/tasks/{id}": {P50: 0.5, P99: 2}}, "2 cores, 'fast'"})
	want := head + "x-latency-on: '2 cores, ''fast'''\nx-latency:\n  'GET /v2/tasks/{id}': {p50_ms: 0.5, p99_ms: 2.0}\n  'POST /v2/tasks': {p50_ms: 1.3, p99_ms: 30.0}\n"
	if err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if again, err := Stated(got, Measured{map[string]Latency{"GET /x": {P50: 1, P99: 1}}, "x"}); err != nil || again != head+"x-latency-on: 'x'\nx-latency:\n  'GET /x': {p50_ms: 1.0, p99_ms: 1.0}\n" {
		t.Errorf("got %q, %v", again, err)
	}
	if none, err := Stated(got, Measured{}); err != nil || none != before {
		t.Errorf("got %q, %v without a measurement", none, err)
	}
	if _, err := Stated("openapi: 3.1.0\n", Measured{}); err == nil {
		t.Error("a description without the place is taken")
	}
}

func TestReadSaysWhereAPartWasMeasured(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench.json")
	for text, want := range map[string]string{
		`{"machine":"a","engine":"e","when":"2026-01-02T03:04:05Z"}`:                                                                                   "a; e; 2026-01-02",
		`{"machine":"a","engine":"e","when":"2026-01-02T03:04:05Z","parts":{"operations":{"machine":"b","engine":"f","when":"2026-02-03T00:00:00Z"}}}`: "b; f; 2026-02-03",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path); err != nil || got.On != want {
			t.Errorf("got %q, %v, want %q", got.On, err, want)
		}
	}
}
