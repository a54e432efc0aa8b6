package loadtest

import (
	"context"
	"encoding/xml"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestLoadKeepsItsRateAndCountsFromWhenARequestWasDue(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if key, secret, _ := r.BasicAuth(); key != "k" || secret != "s" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/v1.1/_noop":
			time.Sleep(20 * time.Millisecond) // what it has to do
		case "/v2/nodes":
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, "busy")
		}
	}))
	defer s.Close()
	mix, err := ParseMix("noop=3,nodes")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(context.Background(), Target{Endpoints: []string{s.URL + "/"}, Key: "k", Secret: "s", Rate: 100, Duration: time.Second, Mix: mix, Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]Row{}
	for _, row := range r.Rows {
		rows[row.Kind] = row
	}
	noop, nodes := rows["noop"], rows["nodes"]
	if asked.Load() != 100 || noop.Requests+nodes.Requests != 100 || noop.Requests < 60 || nodes.Requests < 10 {
		t.Errorf("got %d requests, %d noop, %d nodes, want 100 in shares of 3 and 1", asked.Load(), noop.Requests, nodes.Requests)
	}
	if noop.Failed != 0 || noop.P50 < 20*time.Millisecond || noop.P50 > noop.P99 || noop.P99 > noop.Max {
		t.Errorf("got %+v, want times of 20 ms and more, in order", noop)
	}
	if nodes.Failed != nodes.Requests || nodes.P50 != 0 || !strings.Contains(nodes.Error, "503") || !strings.Contains(nodes.Error, "busy") {
		t.Errorf("got %+v, want all failed and why", nodes)
	}
	var tsv, svg strings.Builder
	if err := r.WriteTSV(&tsv); err != nil || strings.Count(tsv.String(), "\n") != 3 || !strings.HasPrefix(tsv.String(), "kind\trequests\tfailed\t") {
		t.Errorf("got %q, %v", tsv.String(), err)
	}
	if err := r.WriteSVG(&svg); err != nil || xml.Unmarshal([]byte(svg.String()), new(struct{})) != nil || strings.Count(svg.String(), "p99") != 2 {
		t.Errorf("got %s, %v", svg.String(), err)
	}
}

func TestMixesAreChecked(t *testing.T) {
	for _, bad := range []string{"", "runs=1", "run=0", "run=-1", "run=x", "run,"} {
		if _, err := ParseMix(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
