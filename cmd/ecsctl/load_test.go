package main

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestLoadSaysHowOftenWhatFailed(t *testing.T) {
	i := invoke(newService(t), "ECS_SECRET=wrong")
	status := i.main([]string{"load", "--mix", "noop=1", "--rate", "50", "--duration", "100ms"})
	if said := i.err.String(); status != exitFailed || !strings.Contains(said, "5 of 5 noop failed") ||
		!strings.Contains(said, "5 × 401 unauthorized") || !strings.Contains(said, "ECS_SECRET") || strings.Contains(said, "\x1b") {
		t.Errorf("got status %d, %q, want how often what failed, why, and what to do", status, said)
	}
	if !strings.HasPrefix(i.out.String(), "kind\trequests\tfailed") {
		t.Errorf("got %q, want the table", i.out)
	}
}

func TestLoadGoesOnFromAnEndpointThatIsDown(t *testing.T) {
	s := newService(t)
	down := httptest.NewServer(nil)
	down.Close()
	i := invoke(s, "ECS_ENDPOINT="+down.URL+","+s.URL)
	status := i.main([]string{"load", "--mix", "nodes=1", "--rate", "50", "--duration", "100ms"})
	if said := i.err.String(); status != 0 || !strings.Contains(said, "in the place of "+down.URL) || !strings.Contains(said, "3 × connection refused") {
		t.Errorf("got status %d, %q, want all answered, and who did not", status, said)
	}
}
