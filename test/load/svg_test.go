package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPlotIsWellFormedAndShowsEveryRow(t *testing.T) {
	r := &report{origin: origin{Machine: "a & b"}, Rows: []row{{Name: rawName, P50: 200}, {Name: "ECS <cold>", P50: 170}},
		Throughput: []throughput{{Name: rawName, InFlight: 8, PerSec: 8.5}}, ControlPlane: &controlPlane{Closed: []closedRun{{InFlight: 64, PerSec: 3000}}}}
	file := filepath.Join(t.TempDir(), "plot.svg")
	if err := r.plot(file); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bars := 0
	for d := xml.NewDecoder(strings.NewReader(string(text))); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "rect" {
			bars++
		}
	}
	if bars != 1+4 || !strings.Contains(string(text), "200.0 ms") {
		t.Errorf("got %d rectangles, want the ground and 4 bars:\n%s", bars, text)
	}
}
