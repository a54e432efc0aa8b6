package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ecs/proto/api"
)

// caller submits tasks over HTTP and waits for their answers, as many programs
// at once would, through all control nodes in turn.
type caller struct {
	endpoints   []string
	key, secret string
	body        string
	http        *http.Client
	next        atomic.Uint64
}

// fakeTask is a task for the engine in memory.
const fakeTask = `{"image":"fake:1","command":["echo","hi"],"resources":{"memory":"64MiB"}}`

// connections bounds those to one endpoint.
const connections = 2048

func newCaller(endpoints []string, key, secret string) *caller {
	return &caller{endpoints: endpoints, key: key, secret: secret, body: fakeTask, http: &http.Client{Transport: &http.Transport{
		MaxIdleConns: 3 * connections, MaxIdleConnsPerHost: connections, DisableCompression: true}}}
}

// answer is as much of a task as is looked at.
type answer struct {
	Outcome string `json:"outcome"`
	Stdout  struct {
		Data string `json:"data"`
	} `json:"stdout"`
}

// one runs a task through the next endpoint.
func (c *caller) one(ctx context.Context) error {
	endpoint := c.endpoints[c.next.Add(1)%uint64(len(c.endpoints))]
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint+"/v2/tasks?wait=60s", strings.NewReader(c.body))
	if err != nil {
		return err
	}
	req.SetBasicAuth(c.key, c.secret)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil || resp.StatusCode != http.StatusOK || a.Outcome != api.OutcomeExited || a.Stdout.Data != "hi\n" {
		return fmt.Errorf("status %d: %s", resp.StatusCode, text)
	}
	return nil
}

// closed keeps so many tasks in flight for a time, and gives how long each took
// in milliseconds, in order, and how long it all took.
func (c *caller) closed(ctx context.Context, inFlight int, span time.Duration) ([]float64, time.Duration, error) {
	began := time.Now()
	took := make([][]float64, inFlight)
	failed := make([]error, inFlight)
	var all sync.WaitGroup
	for i := range inFlight {
		all.Go(func() {
			for time.Since(began) < span {
				start := time.Now()
				if failed[i] = c.one(ctx); failed[i] != nil {
					return
				}
				took[i] = append(took[i], millis(start))
			}
		})
	}
	all.Wait()
	end := time.Since(began)
	times := slices.Concat(took...)
	slices.Sort(times)
	return times, end, errors.Join(failed...)
}

// mostOpen bounds what an open run has in flight: beyond it the service is not
// keeping up, and the run says so.
const mostOpen = 4096

// open begins tasks at a rate, evenly, whatever the answers take. Each is counted
// from when it was due, so that a late start is not forgiven.
func (c *caller) open(ctx context.Context, perSec float64, span time.Duration) ([]float64, error) {
	total := int(perSec * span.Seconds())
	took, failed := make([]float64, total), make([]error, total)
	room := make(chan struct{}, mostOpen)
	began := time.Now()
	var all sync.WaitGroup
	for i := range total {
		due := began.Add(time.Duration(float64(i) / perSec * float64(time.Second)))
		time.Sleep(time.Until(due))
		select {
		case room <- struct{}{}:
		default:
			all.Wait()
			return nil, fmt.Errorf("%d tasks are in flight at %.0f a second: it does not keep up", mostOpen, perSec)
		}
		all.Go(func() {
			defer func() { <-room }()
			failed[i] = c.one(ctx)
			took[i] = millis(due)
		})
	}
	all.Wait()
	slices.Sort(took)
	return took, errors.Join(failed...)
}

func millis(since time.Time) float64 { return float64(time.Since(since).Microseconds()) / 1000 }

// at gives a quantile of sorted times.
func at(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1))]
}
