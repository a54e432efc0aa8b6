// Package verify calls every operation of a running service once and says
// whether it answered as its contract says: what the first ECS called its sanity
// tests.
//
// It speaks HTTP by itself, not through the client, so that it sees statuses and
// headers as any caller would, of any service that has the contract. It changes
// nothing that outlives it but the records of its own few tasks.
package verify

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"ecs/proto/api"
)

// Target is the service that is asked.
type Target struct {
	Endpoint    string // URL of one control node or of what stands before several
	Key, Secret string
	Image       string // with sh, echo and cat; present or to be pulled
	HTTP        *http.Client
	Roots       *x509.CertPool // of the service's certificate, without HTTP; nil: the system's
	// Saw, if there is one, is told of every request that was answered with
	// success, and how long that took.
	Saw func(method, path string, took time.Duration)
	// Drain allows a node to be drained for a moment.
	Drain bool
}

// ErrSkipped is a check that could not be made here; its text says why.
var ErrSkipped = errors.New("skipped")

// Result is what became of one check.
type Result struct {
	Check
	Took time.Duration
	Err  error // nil: it answered as it must; ErrSkipped: it was not asked
}

// Check is one thing that is asked.
type Check struct {
	// Operation is the operationId in openapi.yaml, or the path where it has none.
	Operation string
	What      string // in few words
	run       func(*session, context.Context) error
}

// timeLimit bounds one check.
const timeLimit = 2 * time.Minute

// Run makes every check, in order, and tells each result as it comes.
func Run(ctx context.Context, t Target, tell func(Result)) error {
	if t.HTTP == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = &tls.Config{RootCAs: t.Roots}
		defer transport.CloseIdleConnections()
		t.HTTP = &http.Client{Transport: transport}
	}
	s := &session{Target: t, mark: "verify-" + strings.ToLower(rand.Text()[:12])}
	failed := 0
	checks := Checks()
	for _, c := range checks {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		limited, cancel := context.WithTimeout(ctx, timeLimit)
		began := time.Now()
		err := c.run(s, limited)
		cancel()
		if err != nil && !errors.Is(err, ErrSkipped) {
			failed++
		}
		tell(Result{Check: c, Took: time.Since(began), Err: err})
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(checks))
	}
	return nil
}

// session is what one run remembers from check to check.
type session struct {
	Target
	mark string // correlation id, idempotency key and label of this run
	task string // a finished one
	node string // an agent's
	key  string // one that was made, and its secret

	secret string
}

// answer is what came back, whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// most is the largest answer that is read.
const most = 8 << 20

// ask makes a request, again when a limit of the key or the address was reached
// and as soon as the service allows it.
func (s *session) ask(ctx context.Context, method, path, body string, header ...string) (answer, error) {
	for {
		a, err := s.once(ctx, method, path, body, header...)
		if err != nil || a.status != http.StatusTooManyRequests {
			return a, err
		}
		seconds, bad := strconv.Atoi(a.header.Get("Retry-After"))
		if bad != nil || guessed(a) {
			return a, nil // whoever looks at it says so
		}
		again := time.NewTimer(time.Duration(max(seconds, 1)) * time.Second)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return a, nil
		}
	}
}

// guessed reports whether the limit is that of wrong secrets: waiting makes none
// right.
func guessed(a answer) bool {
	var p api.Problem
	return json.Unmarshal(a.body, &p) == nil && p.Limit == "guesses"
}

// once makes one request; header pairs are added, and an empty Authorization
// leaves the key out.
func (s *session) once(ctx context.Context, method, path, body string, header ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(s.Endpoint, "/")+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.SetBasicAuth(s.Key, s.Secret)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i+1] == "" {
			req.Header.Del(header[i])
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	began := time.Now()
	resp, err := s.HTTP.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return answer{}, fmt.Errorf("read the answer of %s %s: %w", method, path, err)
	}
	if s.Saw != nil && resp.StatusCode < http.StatusBadRequest {
		s.Saw(method, path, time.Since(began))
	}
	return answer{resp.StatusCode, resp.Header, got}, nil
}

// want asks and holds the status, the correlation id and, of an error, the form
// of the answer against the contract. It reads a JSON answer into into, if any.
func (s *session) want(ctx context.Context, status int, into any, method, path, body string, header ...string) (answer, error) {
	a, err := s.ask(ctx, method, path, body, header...)
	if err != nil {
		return a, err
	}
	if a.status == http.StatusForbidden && status != http.StatusForbidden && !ofEveryKey(path) {
		return a, fmt.Errorf("%w: the key's role does not allow it", ErrSkipped)
	}
	if a.status != status {
		return a, fmt.Errorf("%s %s: got %d %s, want %d", method, path, a.status, short(a.body), status)
	}
	if a.header.Get("X-Correlation-ID") == "" {
		return a, fmt.Errorf("%s %s: the answer has no X-Correlation-ID", method, path)
	}
	if status >= http.StatusBadRequest {
		return a, problem(a, path)
	}
	if into != nil {
		if err := json.Unmarshal(a.body, into); err != nil {
			return a, fmt.Errorf("%s %s: answer %s: %w", method, path, short(a.body), err)
		}
	}
	return a, nil
}

// ofEveryKey says whether keys of every role may ask for it.
func ofEveryKey(path string) bool {
	for _, prefix := range []string{"/v1.", "/v2/tasks", "/v2/logs", "/docs", "/openapi.yaml"} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

func problem(a answer, path string) error {
	var p struct {
		Type, Title, Code, CID string
		Status                 int
	}
	if err := json.Unmarshal(a.body, &p); err != nil || a.header.Get("Content-Type") != "application/problem+json" {
		return fmt.Errorf("%s: the error is no application/problem+json: %s", path, short(a.body))
	}
	if p.Status != a.status || p.Title == "" || p.Code == "" || p.CID != a.header.Get("X-Correlation-ID") {
		return fmt.Errorf("%s: the error lacks status, title, code or cid: %s", path, short(a.body))
	}
	if a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable {
		if a.header.Get("Retry-After") == "" {
			return fmt.Errorf("%s: the error has no Retry-After", path)
		}
	}
	return nil
}

func short(body []byte) string {
	const keep = 200
	body = bytes.TrimSpace(body)
	if len(body) > keep {
		return string(body[:keep]) + "..."
	}
	return string(body)
}
