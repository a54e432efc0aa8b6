package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Client calls the service through any of its control nodes. Calls are repeated: on
// a connection error or a 503 the next endpoint is asked at once, and when none
// could help they are asked again, not before the answer's Retry-After, until the
// call's context or the client's patience ends. MakeKey and MakeToken, which would
// make another one each time, are repeated only where nothing can have been made;
// else the error is an *Uncertain.
//
// A Client may be used by many goroutines. Errors that the service answered are
// *Problem.
type Client struct {
	endpoints   []string
	key, secret string
	http        *http.Client
	upgrades    *http.Client // HTTP/1.1 alone, which WebSockets need
	patience    time.Duration
	last        atomic.Uint32 // the endpoint that answered last
}

// Option changes a Client.
type Option func(*Client)

// WithTransport replaces the HTTP transport.
func WithTransport(t http.RoundTripper) Option { return func(c *Client) { c.http.Transport = t } }

// WithRoots has the service's certificate be of these authorities instead of the
// system's. It goes with the client's own transport.
func WithRoots(roots *x509.CertPool) Option {
	return func(c *Client) {
		if t, ok := c.http.Transport.(*http.Transport); ok {
			t.TLSClientConfig = &tls.Config{RootCAs: roots}
		}
	}
}

// WithPatience sets how long a call is repeated while no endpoint can serve it.
// Default 20s, a good deal more than the election of a leader takes.
func WithPatience(d time.Duration) Option { return func(c *Client) { c.patience = d } }

// New makes a client of the control nodes at endpoints, such as
// "http://127.0.0.1:8448". It makes no connection.
func New(endpoints []string, key, secret string, options ...Option) (*Client, error) {
	c := &Client{key: key, secret: secret, patience: 20 * time.Second, http: &http.Client{Transport: transport()}}
	for _, e := range endpoints {
		u, err := url.Parse(e)
		if err != nil {
			return nil, fmt.Errorf("endpoint %q: %w", e, err)
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf(`endpoint %q: write it like "http://127.0.0.1:8448"`, e)
		}
		c.endpoints = append(c.endpoints, strings.TrimRight(e, "/"))
	}
	if len(c.endpoints) == 0 {
		return nil, errors.New("no endpoint given")
	}
	for _, o := range options {
		o(c)
	}
	c.upgrades = c.http
	if t, ok := c.http.Transport.(*http.Transport); ok {
		t = t.Clone()
		t.ForceAttemptHTTP2, t.Protocols = false, new(http.Protocols)
		t.Protocols.SetHTTP1(true)
		c.upgrades = &http.Client{Transport: t}
	}
	return c, nil
}

// transport notices within some 20 s when a node it waits for has vanished.
func transport() *http.Transport {
	dialer := &net.Dialer{
		Timeout:         5 * time.Second,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 100,
		IdleConnTimeout:     50 * time.Second, // the service closes idle ones after 60
	}
}

// Close closes idle connections.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	c.upgrades.CloseIdleConnections()
}

// Endpoint is one control node, for a call that Client has no method for.
type Endpoint struct {
	URL    string
	HTTP   *http.Client // speaks HTTP/1.1 alone
	Header http.Header  // authentication and correlation id
}

// Reach offers endpoints to try, in the way that all calls go, until it
// succeeds or repeating cannot help.
func (c *Client) Reach(ctx context.Context, try func(context.Context, Endpoint) error) error {
	return c.repeat(ctx, func(endpoint string) error {
		req, err := http.NewRequest(http.MethodGet, endpoint, nil)
		if err != nil {
			return err
		}
		c.mark(ctx, req)
		return try(ctx, Endpoint{URL: endpoint, HTTP: c.upgrades, Header: req.Header})
	})
}

// Elsewhere makes the next call begin with another endpoint.
func (c *Client) Elsewhere() { c.last.Add(1) }

type cidKey struct{}

// WithCID makes calls under ctx carry the correlation id.
func WithCID(ctx context.Context, cid string) context.Context {
	return context.WithValue(ctx, cidKey{}, cid)
}

// call is one request, to be repeated until it is answered.
type call struct {
	method, path string
	query        url.Values
	header       http.Header
	body         []byte
	// wait is how long the service may hold the answer back.
	wait time.Duration
	// once: the call does something each time it arrives, and is not repeated where
	// it may have arrived.
	once bool
	// into is filled from a JSON answer. When nil, the response itself is
	// handed out with its body open.
	into any
}

// Uncertain is the error of a call that is not repeated, and may have done what it
// is for.
type Uncertain struct{ Err error }

// Error implements error.
func (e *Uncertain) Error() string {
	return "it may have been done, and was not tried again: " + e.Err.Error()
}

// Unwrap gives what went wrong.
func (e *Uncertain) Unwrap() error { return e.Err }

// uncertain reports whether a request that failed may have done something. It did
// not where no connection was made, and where the service answers that it refused.
func uncertain(err error) bool {
	var p *Problem
	if errors.As(err, &p) {
		return p.Status >= http.StatusInternalServerError && p.Code != CodeNoLeader && p.Code != CodeBusy &&
			p.Code != CodeNoAuthority && p.Code != CodeNotYet
	}
	var dial *net.OpError
	return !errors.As(err, &dial) || dial.Op != "dial"
}

// answerWithin is what the service gets to answer beyond call.wait.
const answerWithin = 30 * time.Second

// do makes the call until it is answered. The response's body is open only
// when call.into is nil.
func (c *Client) do(ctx context.Context, q call) (resp *http.Response, err error) {
	err = c.repeat(ctx, func(endpoint string) error {
		resp, err = c.once(ctx, endpoint, q)
		if err != nil && q.once && uncertain(err) {
			return &Uncertain{err}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// repeat tries endpoints until one succeeds, repeating cannot help, or the
// client's patience ends.
func (c *Client) repeat(ctx context.Context, try func(endpoint string) error) error {
	deadline := time.Now().Add(c.patience)
	for round := 0; ; round++ {
		pause, err := c.round(ctx, try)
		if err == nil || pause < 0 {
			return err
		}
		pause = max(pause, backoff(round))
		if time.Now().Add(pause).After(deadline) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(ctx.Err(), err)
		}
	}
}

// round tries every endpoint once, beginning with the one that answered last. A
// negative pause says that repeating cannot help.
func (c *Client) round(ctx context.Context, try func(endpoint string) error) (pause time.Duration, err error) {
	first := c.last.Load()
	for i := range uint32(len(c.endpoints)) {
		n := (first + i) % uint32(len(c.endpoints))
		err = try(c.endpoints[n])
		if err == nil {
			c.last.Store(n)
			return 0, nil
		}
		var open *Uncertain
		if ctx.Err() != nil || errors.As(err, &open) {
			return -1, err
		}
		var p *Problem
		if errors.As(err, &p) {
			switch p.Status {
			case http.StatusServiceUnavailable:
			case http.StatusTooManyRequests:
				return p.RetryAfter, err // the others count alike: they are not asked
			default:
				return -1, err
			}
			pause = max(pause, p.RetryAfter)
		}
	}
	return pause, err
}

func (c *Client) once(ctx context.Context, endpoint string, q call) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	limit := time.AfterFunc(q.wait+answerWithin, func() { cancel(errors.New("no answer in time")) })
	resp, err := c.send(ctx, endpoint, q)
	if err == nil && q.into != nil {
		err = readJSON(resp, q.into)
	}
	if err == nil && q.into == nil {
		limit.Stop() // a stream may last
		resp.Body = &stream{ReadCloser: resp.Body, cancel: cancel}
		return resp, nil
	}
	limit.Stop()
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
	}
	cancel(nil)
	return resp, err
}

func (c *Client) send(ctx context.Context, endpoint string, q call) (*http.Response, error) {
	target := endpoint + q.path
	if len(q.query) > 0 {
		target += "?" + q.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, q.method, target, bytes.NewReader(q.body))
	if err != nil {
		return nil, err
	}
	for name, values := range q.header {
		req.Header[name] = values
	}
	if q.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	c.mark(ctx, req)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return nil, ReadProblem(resp)
	}
	return resp, nil
}

// mark says who calls, and for what.
func (c *Client) mark(ctx context.Context, req *http.Request) {
	if cid, _ := ctx.Value(cidKey{}).(string); cid != "" {
		req.Header.Set(HeaderCID, cid)
	}
	req.SetBasicAuth(c.key, c.secret)
}

// stream ends its request's context when its reader is done.
type stream struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (s *stream) Close() error {
	err := s.ReadCloser.Close()
	s.cancel(nil)
	return err
}

func readJSON(resp *http.Response, into any) error {
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("read answer of %s: %w", resp.Request.URL.Path, err)
	}
	return nil
}

// ReadProblem reads the error of an answer, whoever wrote it, and closes its
// body.
func ReadProblem(resp *http.Response) error {
	defer resp.Body.Close()
	const most = 1 << 20
	body, _ := io.ReadAll(io.LimitReader(resp.Body, most)) // what can be had of it will do
	p := new(Problem)
	if json.Unmarshal(body, p) != nil || p.Code == "" {
		p = &Problem{Title: resp.Status, CID: resp.Header.Get(HeaderCID)}
	}
	p.Status = resp.StatusCode
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds >= 0 {
		p.RetryAfter = time.Duration(seconds) * time.Second
	}
	return p
}

// backoff grows from 100 ms to 2 s, with jitter so that clients who lost the
// same node do not come back at once.
func backoff(round int) time.Duration {
	ceiling := min(100*time.Millisecond<<min(round, 10), 2*time.Second)
	n, err := rand.Int(rand.Reader, big.NewInt(int64(ceiling)))
	if err != nil {
		return ceiling
	}
	return ceiling/2 + time.Duration(n.Int64())/2
}

func newKey() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return hex.EncodeToString(b)
}
