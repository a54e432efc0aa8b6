// Package loadtest asks a running service for a mix of requests at a steady rate
// and says how long each kind took: what the first ECS called its load test.
//
// The load is open: a request is due at its time whether those before it have
// been answered or not, and its time counts from when it was due. A service that
// falls behind so shows in the percentiles instead of slowing its callers down.
package loadtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ecs/proto/api"
)

// Target is the service that is asked, and how.
type Target struct {
	Endpoints   []string // asked in turn, and for each other where one is down
	Key, Secret string
	Image       string // with echo
	HTTP        *http.Client
	Roots       *x509.CertPool // of the service's certificate, without HTTP; nil: the system's

	Rate     float64 // requests a second
	Duration time.Duration
	Mix      []Share
	Seed     uint64
}

// Share is how much of the load is of one kind.
type Share struct {
	Kind   string
	Weight int
}

// kind is one kind of request.
type kind struct {
	method, path, body string
	status             int
}

func kinds(image string) map[string]kind {
	v2 := fmt.Sprintf(`{"image":%q,"command":["echo","hi"],"labels":{"load":"test"},"retention":"10m"}`, image)
	return map[string]kind{
		"run":     {http.MethodPost, "/v2/tasks?wait=60s", v2, http.StatusOK},
		"submit":  {http.MethodPost, "/v2/tasks", v2, http.StatusAccepted},
		"v1":      {http.MethodPost, "/v1.1/tasks", fmt.Sprintf(`{"docker_image":%q,"cmd":["echo","hi"]}`, image), http.StatusCreated},
		"list":    {http.MethodGet, "/v2/tasks?limit=20", "", http.StatusOK},
		"nodes":   {http.MethodGet, "/v2/nodes", "", http.StatusOK},
		"cluster": {http.MethodGet, "/v2/cluster", "", http.StatusOK},
		"noop":    {http.MethodGet, "/v1.1/_noop", "", http.StatusOK},
		"version": {http.MethodGet, "/v1.1/_version", "", http.StatusOK},
		"health":  {http.MethodGet, "/v1.1/_health?quick=true", "", http.StatusOK},
	}
}

// Kinds names every kind there is.
func Kinds() []string {
	var names []string
	for name := range kinds("") {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// ParseMix reads "run=1,noop=9"; a kind without a number weighs 1.
func ParseMix(text string) ([]Share, error) {
	var mix []Share
	for part := range strings.SplitSeq(text, ",") {
		name, weight, given := strings.Cut(strings.TrimSpace(part), "=")
		n := 1
		if given {
			var err error
			if n, err = strconv.Atoi(weight); err != nil || n < 1 {
				return nil, fmt.Errorf("%s: the weight must be a whole number above 0", part)
			}
		}
		if !slices.Contains(Kinds(), name) {
			return nil, fmt.Errorf("there is no kind of request %q: there are %s", name, strings.Join(Kinds(), ", "))
		}
		mix = append(mix, Share{name, n})
	}
	return mix, nil
}

// Row is what one kind of request came to.
type Row struct {
	Kind               string
	Requests, Failed   int
	P50, P90, P99, Max time.Duration // of those that were answered as they must be
	Faults             []Fault       // of the others, the most frequent first
}

// Report is what a run found.
type Report struct {
	Target
	Took  time.Duration
	Rows  []Row  // by kind
	Moves []Move // in the order of endpoints
}

// answeredWithin is how long a request may take at all endpoints together, and so
// how far behind the end the last answers may come.
const answeredWithin = 90 * time.Second

// maxInFlight bounds the requests under way, so that a service that answers
// nothing costs this process no more. One that finds no room has failed.
const maxInFlight = 10_000

// Run makes the load and waits for the last answers.
func Run(ctx context.Context, t Target) (*Report, error) {
	if t.HTTP == nil {
		// One connection a request under way, kept for the next.
		transport := &http.Transport{MaxIdleConnsPerHost: 1000, IdleConnTimeout: 30 * time.Second,
			DialContext:     (&net.Dialer{Timeout: connectWithin}).DialContext,
			TLSClientConfig: &tls.Config{RootCAs: t.Roots}, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		t.HTTP = &http.Client{Transport: transport}
	}
	l := &load{Target: t, kinds: kinds(t.Image), took: make(map[string][]time.Duration), faults: make(map[string][]Fault), moves: make(map[*endpoint][]Fault)}
	for _, url := range t.Endpoints {
		l.ends = append(l.ends, &endpoint{url: strings.TrimRight(url, "/")})
	}
	began := time.Now()
	l.run(ctx, began)
	report := &Report{Target: t, Took: time.Since(began)}
	for _, name := range Kinds() {
		took, faults, failed := l.took[name], sorted(l.faults[name]), 0
		for _, f := range faults {
			failed += f.Count
		}
		if len(took)+failed > 0 {
			slices.Sort(took)
			report.Rows = append(report.Rows, Row{Kind: name, Requests: len(took) + failed, Failed: failed,
				P50: at(took, 0.5), P90: at(took, 0.9), P99: at(took, 0.99), Max: at(took, 1), Faults: faults})
		}
	}
	for _, e := range l.ends {
		if faults := l.moves[e]; len(faults) > 0 {
			report.Moves = append(report.Moves, Move{From: e.url, Faults: sorted(faults)})
		}
	}
	return report, ctx.Err()
}

// at gives a quantile of sorted values; 0 of none.
func at(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

type load struct {
	Target
	kinds map[string]kind
	ends  []*endpoint

	mu     sync.Mutex
	took   map[string][]time.Duration
	faults map[string][]Fault
	moves  map[*endpoint][]Fault // by the endpoint whose turn it was
}

func (l *load) run(ctx context.Context, began time.Time) {
	random := rand.New(rand.NewPCG(l.Seed, 0))
	slots := make(chan struct{}, maxInFlight)
	var all sync.WaitGroup
	defer all.Wait()
	for i := 0; ; i++ {
		due := time.Duration(float64(i) / l.Rate * float64(time.Second))
		if due >= l.Duration {
			return
		}
		name := l.draw(random)
		timer := time.NewTimer(time.Until(began.Add(due)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		select {
		case slots <- struct{}{}:
		default:
			l.note(name, 0, fmt.Errorf("%w: %d", errFull, maxInFlight))
			continue
		}
		all.Go(func() {
			defer func() { <-slots }()
			err := l.reach(ctx, i, l.kinds[name])
			l.note(name, time.Since(began.Add(due)), err)
		})
	}
}

func (l *load) draw(random *rand.Rand) string {
	total := 0
	for _, s := range l.Mix {
		total += s.Weight
	}
	n := random.IntN(total)
	for _, s := range l.Mix {
		if n -= s.Weight; n < 0 {
			return s.Kind
		}
	}
	return l.Mix[0].Kind
}

func (l *load) ask(ctx context.Context, endpoint string, k kind, key string) error {
	req, err := http.NewRequestWithContext(ctx, k.method, endpoint+k.path, strings.NewReader(k.body))
	if err != nil {
		return err
	}
	req.SetBasicAuth(l.Key, l.Secret)
	if k.body != "" {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(api.HeaderIdempotencyKey, key)
	}
	resp, err := l.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode != k.status {
		return refusal(resp, k.status, body)
	}
	return nil
}

func (l *load) note(name string, took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.took[name] = append(l.took[name], took)
		return
	}
	l.faults[name] = add(l.faults[name], err)
}
