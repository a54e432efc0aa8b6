package verify

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.yaml.in/yaml/v3"

	"ecs/proto/api"
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
		// Their answers hold nothing that is looked at.
		if operation != "/v1.1/_version" && operation != "/v1.1/_noop" {
			t.Errorf("%s passed", operation)
		}
	}
}

// What the contract has is checked, and what is checked it has.
func TestEveryOperationOfTheContractIsChecked(t *testing.T) {
	var described struct {
		Paths map[string]map[string]yaml.Node
	}
	if err := yaml.Unmarshal([]byte(api.OpenAPI()), &described); err != nil {
		t.Fatal(err)
	}
	want := make(map[string]bool)
	for path, methods := range described.Paths {
		for _, method := range []string{"get", "post", "delete"} {
			node, there := methods[method]
			if !there {
				continue
			}
			var operation struct {
				OperationID string `yaml:"operationId"`
			}
			if err := node.Decode(&operation); err != nil {
				t.Fatal(err)
			}
			// Both versions of the small ones are asked by one check.
			want[cmp.Or(operation.OperationID, strings.Replace(path, "/v1.0/_", "/v1.1/_", 1))] = false
		}
	}
	delete(want, "/") // not yet
	if len(want) < 30 {
		t.Fatalf("the contract has %d operations, want all of them", len(want))
	}
	for _, c := range Checks() {
		if _, there := want[c.Operation]; !there && c.Operation != "/v2/nodes" {
			t.Errorf("%q is checked, and the contract does not have it", c.Operation)
		}
		want[c.Operation] = true
	}
	for operation, checked := range want {
		if !checked {
			t.Errorf("%q is not checked", operation)
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

// answers plays a service without a network.
type answers func(*http.Request) (status int, header http.Header, body string)

func (f answers) RoundTrip(r *http.Request) (*http.Response, error) {
	status, header, body := f(r)
	if header == nil {
		header = make(http.Header)
	}
	header.Set("X-Correlation-ID", "c")
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func TestWhatTheKeysRoleForbidsIsSkippedAndNotItsOwnTasks(t *testing.T) {
	service := answers(func(*http.Request) (int, http.Header, string) { return http.StatusForbidden, nil, "{}" })
	skipped := make(map[string]bool)
	_ = Run(context.Background(), Target{Endpoint: "http://s", HTTP: &http.Client{Transport: service}}, func(r Result) {
		skipped[r.Operation] = errors.Is(r.Err, ErrSkipped)
	})
	for operation, want := range map[string]bool{"/v1.1/tasks": false, "submitTask": false, "listTasks": true, "/docs": false,
		"listNodes": true, "getCluster": true, "saveCluster": true, "listKeys": true, "/metrics": true} {
		if skipped[operation] != want {
			t.Errorf("%s: skipped %v, want %v", operation, skipped[operation], want)
		}
	}
}

func TestALimitIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		service := answers(func(*http.Request) (int, http.Header, string) {
			if asked++; asked < 3 {
				return http.StatusTooManyRequests, http.Header{"Retry-After": {"7"}}, "{}"
			}
			return http.StatusOK, nil, `{"images":[]}`
		})
		s := &session{Target: Target{Endpoint: "http://s", HTTP: &http.Client{Transport: service}}}
		began := time.Now()
		if err := s.images(t.Context()); err != nil || time.Since(began) != 14*time.Second {
			t.Errorf("got %v after %v and %d requests", err, time.Since(began), asked)
		}
		service = func(*http.Request) (int, http.Header, string) {
			return http.StatusTooManyRequests, http.Header{"Retry-After": {"7"}}, `{"limit":"guesses"}`
		}
		s.HTTP, began = &http.Client{Transport: service}, time.Now()
		if err := s.images(t.Context()); err == nil || time.Since(began) != 0 {
			t.Errorf("got %v after %v for a secret that is wrong", err, time.Since(began))
		}
		service = func(*http.Request) (int, http.Header, string) {
			return http.StatusTooManyRequests, http.Header{"Retry-After": {"7"}}, "{}"
		}
		s.HTTP = &http.Client{Transport: service}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.images(ctx); err == nil || !strings.Contains(err.Error(), "got 429") {
			t.Errorf("got %v of a service that allows nothing", err)
		}
	})
}
