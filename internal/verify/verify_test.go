package verify

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
)

// A service that answers everything with an empty 200 passes nothing that has a
// contract.
func TestAServiceThatSaysYesToEverythingFails(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Correlation-ID", "c")
		w.Write([]byte("{}"))
	}))
	defer s.Close()
	made, passed := 0, []string{}
	err := Run(context.Background(), Target{Endpoint: s.URL, Key: "k", Secret: "s", Image: "busybox:1"}, func(r Result) {
		made++
		if r.Err == nil {
			passed = append(passed, r.Operation)
		}
	})
	if err == nil || made != len(Checks()) {
		t.Errorf("got %v after %d of %d checks", err, made, len(Checks()))
	}
	for _, operation := range passed {
		// Their answers hold nothing that is looked at, or is built yet.
		if operation != "/v1.1/_version" && operation != "/v1.1/_noop" && operation != "/v2/cluster/snapshot" && operation != "/v2/keys" {
			t.Errorf("%s passed", operation)
		}
	}
}

func TestNothingIsAskedAfterTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := Run(ctx, Target{Endpoint: "http://127.0.0.1:1"}, func(r Result) { t.Errorf("%s was asked", r.Operation) })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
