package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"ecs/internal/verify"
	"ecs/test/images"
)

// latency is how long one operation takes, in milliseconds.
type latency struct {
	P50    float64 `json:"p50_ms"`
	P99    float64 `json:"p99_ms"`
	Rounds int     `json:"rounds"`
}

// identified finds the part of a path that openapi.yaml calls {id}.
var identified = regexp.MustCompile(`^(/v2/(?:tasks|nodes|keys))/[^/]+`)

// operations calls every operation as `ecsctl verify` does, round after round,
// at the endpoints in turn. Those that run a program to its end say so in their
// times.
func (c *cluster) operations(ctx context.Context, rounds int) (map[string]latency, error) {
	var mu sync.Mutex
	took := make(map[string][]float64)
	saw := func(method, path string, d time.Duration) {
		path, _, _ = strings.Cut(path, "?")
		name := method + " " + identified.ReplaceAllString(path, "$1/{id}")
		mu.Lock()
		defer mu.Unlock()
		took[name] = append(took[name], float64(d)/float64(time.Millisecond))
	}
	for round := range max(rounds/2, 1) {
		var failed error
		endpoint := c.Endpoints[round%len(c.Endpoints)]
		err := verify.Run(ctx, verify.Target{Endpoint: endpoint, Key: c.Key, Secret: c.Secret, Image: images.Busybox, HTTP: http.DefaultClient, Drain: true, Saw: saw},
			func(r verify.Result) {
				if failed == nil && r.Err != nil {
					failed = r.Err
				}
			})
		if err != nil {
			return nil, fmt.Errorf("round %d at %s: %w: %w", round, endpoint, err, failed)
		}
	}
	found := make(map[string]latency, len(took))
	for name, values := range took {
		slices.Sort(values)
		found[name] = latency{P50: at(values, 0.5), P99: at(values, 0.99), Rounds: len(values)}
	}
	return found, nil
}

func printOperations(w *strings.Builder, found map[string]latency) {
	fmt.Fprintf(w, "every operation of the API, one at a time, milliseconds\n\n")
	t := newTable(w, "", "p50", "p99", "calls")
	for _, name := range slices.Sorted(maps.Keys(found)) {
		t.row("%s\t%.1f\t%.1f\t%d", name, found[name].P50, found[name].P99, found[name].Rounds)
	}
	t.end()
}
