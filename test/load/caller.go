package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ecs/proto/api"
)

// caller submits tasks over HTTP and waits for their answers, as many programs
// at once would, through all control nodes in turn. It writes requests and reads
// answers on connections of its own: net/http's client hands each of them over
// between three goroutines, which cost a quarter of what the service did.
type caller struct {
	endpoints []*endpoint
	next      atomic.Uint64

	mu struct {
		sync.Mutex
		tasks int
		parts map[string]float64 // sums of the bills' parts, ms
	}
}

// endpoint is one control node and the connections to it that are not in use.
type endpoint struct {
	addr    string
	request []byte
	idle    chan *connection
}

type connection struct {
	net.Conn
	reader *bufio.Reader
}

// fakeTask is a task for the engine in memory.
const fakeTask = `{"image":"fake:1","command":["echo","hi"],"resources":{"memory":"64MiB"}}`

func newCaller(endpoints []string, key, secret, body string) *caller {
	c := &caller{}
	for _, e := range endpoints {
		addr := strings.TrimPrefix(e, "http://")
		c.endpoints = append(c.endpoints, &endpoint{addr: addr, idle: make(chan *connection, mostOpen),
			request: fmt.Appendf(nil, "POST /v2/tasks?wait=60s HTTP/1.1\r\nHost: %s\r\nAuthorization: Basic %s\r\n"+
				"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
				addr, base64.StdEncoding.EncodeToString([]byte(key+":"+secret)), len(body), body)})
	}
	return c
}

// close gives the connections back.
func (c *caller) close() {
	for _, e := range c.endpoints {
		for len(e.idle) > 0 {
			(<-e.idle).Close()
		}
	}
}

// answer is as much of a task as is looked at.
type answer struct {
	Outcome string `json:"outcome"`
	Stdout  struct {
		Data string `json:"data"`
	} `json:"stdout"`
	Warm       string             `json:"warm"`
	OverheadMS float64            `json:"overhead_ms"`
	Times      map[string]float64 `json:"times"`
}

// bill takes the means of all bills' parts, in milliseconds, since the last call.
func (c *caller) bill() map[string]float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	means := make(map[string]float64, len(c.mu.parts))
	for name, sum := range c.mu.parts {
		means[strings.TrimSuffix(name, "_ms")] = sum / float64(c.mu.tasks)
	}
	c.mu.tasks, c.mu.parts = 0, nil
	return means
}

func (c *caller) add(times map[string]float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.parts == nil {
		c.mu.parts = make(map[string]float64)
	}
	c.mu.tasks++
	for name, ms := range times {
		c.mu.parts[name] += ms
	}
}

// answerWithin bounds a task; the service itself gives up before.
const answerWithin = 70 * time.Second

// one runs a task through the next endpoint.
func (c *caller) one(ctx context.Context) error {
	_, err := c.ask(ctx)
	return err
}

// ask is one, and gives the answer.
func (c *caller) ask(ctx context.Context) (answer, error) {
	e := c.endpoints[c.next.Add(1)%uint64(len(c.endpoints))]
	conn, err := e.connection(ctx)
	if err != nil {
		return answer{}, err
	}
	if err := conn.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return answer{}, err
	}
	status, text, err := conn.exchange(e.request)
	if err != nil {
		conn.Close()
		return answer{}, fmt.Errorf("ask %s: %w", e.addr, err)
	}
	select {
	case e.idle <- conn:
	default:
		conn.Close()
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil || status != http.StatusOK || a.Outcome != api.OutcomeExited || a.Stdout.Data != "hi\n" {
		return a, fmt.Errorf("status %d: %s", status, text)
	}
	c.add(a.Times)
	return a, ctx.Err()
}

func (e *endpoint) connection(ctx context.Context) (*connection, error) {
	select {
	case conn := <-e.idle:
		return conn, nil
	default:
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", e.addr)
	if err != nil {
		return nil, err
	}
	return &connection{conn, bufio.NewReader(conn)}, nil
}

// exchange sends a request and reads its answer.
func (c *connection) exchange(request []byte) (status int, body []byte, err error) {
	if _, err := c.Write(request); err != nil {
		return 0, nil, err
	}
	resp, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err == nil && resp.Close {
		err = errors.New("the connection is not kept open")
	}
	return resp.StatusCode, body, err
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
