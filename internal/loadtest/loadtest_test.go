package loadtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ecs/proto/api"
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
	if nodes.Failed != nodes.Requests || nodes.P50 != 0 || len(nodes.Faults) != 1 || nodes.Faults[0].What != "503" || !strings.Contains(nodes.Faults[0].First.Error(), "busy") {
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

// TestFaultsAreCountedByWhatTheyAre: what differs from request to request makes no
// kind of its own.
func TestFaultsAreCountedByWhatTheyAre(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n := asked.Add(1); {
		case n <= 5:
			w.Header().Set("Content-Type", api.ProblemType)
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprintf(w, `{"title":"A limit is reached","code":"rate_limited","cid":"c%d"}`, n)
		case n <= 8:
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprintf(w, "<html>%d", n)
		}
	}))
	defer s.Close()
	r, err := Run(context.Background(), Target{Endpoints: []string{s.URL}, Rate: 100, Duration: 100 * time.Millisecond, Mix: []Share{{"noop", 1}}})
	if err != nil || len(r.Rows) != 1 {
		t.Fatalf("got %+v, %v", r, err)
	}
	got := map[string]int{}
	for _, f := range r.Rows[0].Faults {
		got[f.What] = f.Count
	}
	if want := map[string]int{"429 rate_limited": 5, "502": 3}; !maps.Equal(got, want) || r.Rows[0].Failed != 8 || r.Rows[0].Requests != 10 {
		t.Errorf("got %v, %+v, want %v", got, r.Rows[0], want)
	}
	if first := r.Rows[0].Faults[0]; first.Count != 5 || !strings.Contains(first.First.Error(), "A limit is reached") {
		t.Errorf("got %+v, want the most frequent first, with what was answered", first)
	}
}

func TestFaultsHaveNames(t *testing.T) {
	request := func(err error) error { return &url.Error{Op: "Get", URL: "http://a/" + err.Error(), Err: err} }
	dial := func(err error) error { return request(&net.OpError{Op: "dial", Err: err}) }
	for want, err := range map[string]error{
		"connection refused":      dial(syscall.ECONNREFUSED),
		"host not found":          dial(&net.DNSError{Err: "no such host", Name: "a", IsTimeout: true}),
		"no answer in time":       request(context.DeadlineExceeded),
		"connection broken":       request(io.EOF),
		"certificate not trusted": request(&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}),
		"called off":              request(context.Canceled),
		"too many under way":      fmt.Errorf("%w: 7", errFull),
		"503 busy":                &api.Problem{Status: 503, Code: api.CodeBusy},
		"202":                     &odd{202, 200, "{}"},
		"other":                   request(errors.New("of its own")),
	} {
		if got := whatOf(err); got != want {
			t.Errorf("%v: got %q, want %q", err, got, want)
		}
	}
}

func TestMixesAreChecked(t *testing.T) {
	for _, bad := range []string{"", "runs=1", "run=0", "run=-1", "run=x", "run,"} {
		if _, err := ParseMix(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
