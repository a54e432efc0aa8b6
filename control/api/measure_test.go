package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ecs/internal/access"
	"ecs/internal/newcomers"
)

// measure, when set in the environment, runs the measurements of time: they want
// the machine for themselves.
const measure = "ECS_MEASURE"

// goodCaller asks for something small as a known key, again and again, and gives
// the times it took, sorted.
func goodCaller(t *testing.T, url string, count int) []time.Duration {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	took := make([]time.Duration, count)
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for i := range took {
		<-pace.C
		req, err := http.NewRequest(http.MethodGet, url+"/v1.1/_noop", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("good", "right")
		begun := time.Now()
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("request %d of a good caller: %v", i, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body) // a few bytes, and the status tells
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("request %d of a good caller: got %d", i, resp.StatusCode)
		}
		took[i] = time.Since(begun)
	}
	slices.Sort(took)
	return took
}

func p99(sorted []time.Duration) time.Duration { return sorted[len(sorted)*99/100] }

// goodWorld is a world with one key whose secret is kept as it is in the record.
func goodWorld(t *testing.T) *world {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{KeyRate: 1_000_000, AddressRate: 1_000_000} })
	hash, err := HashSecret("right")
	if err != nil {
		t.Fatal(err)
	}
	ring := NewKeyring(nil, access.Run, (&keysOnly{access.Key{ID: "good", Role: access.Run, Hash: hash}}).record(t))
	w.handler.cfg.Auth = ring
	return w
}

// compare holds a good caller's p99 under load against its quiet one.
func compare(t *testing.T, url string, load func(ctx context.Context)) {
	t.Helper()
	goodCaller(t, url, 100) // everything is warm
	quiet := goodCaller(t, url, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	var loading sync.WaitGroup
	loading.Go(func() { load(ctx) })
	loaded := goodCaller(t, url, 1000)
	cancel()
	loading.Wait()
	t.Logf("quiet p50 %v p99 %v, loaded p50 %v p99 %v", quiet[500], p99(quiet), loaded[500], p99(loaded))
	if p99(loaded) >= 2*p99(quiet) {
		t.Errorf("p99 is %v under load and %v without, want less than twice that", p99(loaded), p99(quiet))
	}
}

func TestGuessingLeavesAGoodKeysTimesAlone(t *testing.T) {
	if os.Getenv(measure) == "" {
		t.Skip("a measurement of time: set " + measure)
	}
	w := goodWorld(t)
	compare(t, w.url, func(ctx context.Context) {
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 20, MaxConnsPerHost: 20}}
		defer client.CloseIdleConnections()
		var guesses sync.WaitGroup
		defer guesses.Wait()
		var sent atomic.Int64
		begun := time.Now()
		defer func() { t.Logf("%.0f wrong secrets a second", float64(sent.Load())/time.Since(begun).Seconds()) }()
		for pace := time.NewTicker(time.Millisecond); ; {
			select {
			case <-pace.C:
			case <-ctx.Done():
				pace.Stop()
				return
			}
			guesses.Go(func() {
				req, _ := http.NewRequest(http.MethodGet, w.url+"/v1.1/_noop", nil) // the address is one
				req.SetBasicAuth("good", fmt.Sprint("wrong", sent.Load()))
				if resp, err := client.Do(req); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					sent.Add(1)
				}
			})
		}
	})
}

// halfOpen makes connections that begin a request and do not end it, and sends a
// byte a second on each, one after the other, until ctx ends.
func halfOpen(ctx context.Context, t *testing.T, addr string, count int, start string) {
	conns := make([]net.Conn, 0, count)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range count {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			t.Error(err)
			return
		}
		conns = append(conns, c)
		_, _ = io.WriteString(c, start) // one that made room for another is closed
	}
	next := time.NewTicker(time.Second / time.Duration(count))
	defer next.Stop()
	for i := 0; ; i++ {
		select {
		case <-next.C:
		case <-ctx.Done():
			return
		}
		_, _ = conns[i%len(conns)].Write([]byte("x")) // likewise
	}
}

const (
	slowHeader = "GET /v1.1/_noop HTTP/1.1\r\nHost: x\r\nX-Slow: "
	slowBody   = "POST /v1.1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{"
)

func TestHalfOpenConnectionsLeaveAGoodKeysTimesAlone(t *testing.T) {
	if os.Getenv(measure) == "" {
		t.Skip("a measurement of time: set " + measure)
	}
	w := goodWorld(t)
	for name, start := range map[string]string{"headers": slowHeader, "bodies": slowBody} {
		t.Run(name, func(t *testing.T) {
			compare(t, w.url, func(ctx context.Context) { halfOpen(ctx, t, w.url[len("http://"):], 2000, start) })
		})
	}
}

// TestHalfOpenConnectionsKeepNobodyOut is the small form: many more than may
// wait, and a caller that comes after them.
func TestHalfOpenConnectionsKeepNobodyOut(t *testing.T) {
	w := goodWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	var holding sync.WaitGroup
	holding.Go(func() { halfOpen(ctx, t, w.url[len("http://"):], maxNewcomers+100, slowHeader) })
	goodCaller(t, w.url, 50)
	cancel()
	holding.Wait()
}

func TestNewcomersMakeRoomForTheNext(t *testing.T) {
	d := &doorman{set: newcomers.New(2)}
	s := &http.Server{Handler: http.NotFoundHandler()}
	d.watch(s)
	var pipes []net.Conn
	for range 6 {
		a, b := net.Pipe()
		defer b.Close()
		pipes = append(pipes, a)
		s.ConnState(a, http.StateNew)
		switch len(pipes) {
		case 2: // it brought a good key
			d.began(a)
			d.knows(a)
			d.ended(a)
		case 4: // it is at a request
			d.began(a)
		}
	}
	closed := func(c net.Conn) bool {
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := c.Read(make([]byte, 1))
		return err == io.ErrClosedPipe
	}
	for i, want := range []bool{true, false, true, false, false, false} {
		if got := closed(pipes[i]); got != want {
			t.Errorf("connection %d: closed %v, want %v", i, got, want)
		}
	}
	d.ended(pipes[3]) // with a wrong key: it is the newest of those that wait
	if closed(pipes[3]) || !closed(pipes[4]) {
		t.Error("the one whose request has ended was closed, not the oldest")
	}
	for _, c := range pipes {
		s.ConnState(c, http.StateClosed)
		d.ended(c) // its handler is late
	}
	if got := d.set.Len() + len(d.open); got != 0 {
		t.Errorf("%d are remembered after all have gone", got)
	}
}

// Idle connections that brought wrong secrets only stay newcomers: else as many
// as there are descriptors could be held with one request each. So do those of a key
// whose requests are beyond its limits: one key would hold them all.
func TestOnlyAGoodKeyWithinItsLimitsMakesAConnectionSomebodys(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits = Limits{KeyConcurrency: 1} })
	id := w.submitted(hello)
	addr := w.url[len("http://"):]
	dial := func(path, authorization string, want int) net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n\r\n", path, authorization)
		if want == 0 {
			return c
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Fatalf("got %d, want %d", resp.StatusCode, want)
		}
		return c
	}
	const noop = "/v1.1/_noop"
	good := dial(noop, basic(bob, "b-secret"), http.StatusOK)
	guess := dial(noop, basic(bob, "wrong"), http.StatusUnauthorized)
	waits := dial("/v2/tasks/"+string(id)+"?wait=30s", basic(alice, "a-secret"), 0)
	eventually(t, "alice has what she may have", func() bool {
		w.handler.gates.keys.mu.Lock()
		defer w.handler.gates.keys.mu.Unlock()
		e := w.handler.gates.keys.known[alice]
		return e != nil && e.Value.(*usage).atOnce == 1
	})
	beyond := dial(noop, basic(alice, "a-secret"), http.StatusTooManyRequests)
	for range maxNewcomers {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for name, c := range map[string]net.Conn{"with a wrong secret": guess, "beyond its key's limit": beyond} {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("the connection %s: got %v, want it closed", name, err)
		}
	}
	for name, c := range map[string]net.Conn{"with a good key": good, "that waits for a task": waits} {
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); !os.IsTimeout(err) {
			t.Errorf("the connection %s: got %v, want it open", name, err)
		}
	}
}

// smuggled is what must never be taken for a request of its own.
const smuggled = "GET /v1.1/_noop HTTP/1.1\r\nHost: x\r\nAuthorization: Basic Z29vZDpyaWdodA==\r\n\r\n"

// TestSmuggledRequestsAreNotAnswered sends requests whose length can be read in
// two ways, each followed by one that hides in the difference.
func TestSmuggledRequestsAreNotAnswered(t *testing.T) {
	w := goodWorld(t)
	head := "POST /v1.1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Basic Z29vZDpyaWdodA==\r\n"
	for name, request := range map[string]string{
		"CL.TE":                    head + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"TE.CL":                    head + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + smuggled,
		"TE twice":                 head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + smuggled,
		"TE list":                  head + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"TE unknown":               head + "Transfer-Encoding: xchunked\r\n\r\n" + smuggled,
		"TE with a tab":            head + "Transfer-Encoding:\tchunked\x0b\r\n\r\n0\r\n\r\n" + smuggled,
		"space before the colon":   head + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"folded":                   head + "Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled,
		"CL twice":                 head + "Content-Length: 2\r\nContent-Length: 0\r\n\r\n{}" + smuggled,
		"CL list":                  head + "Content-Length: 2, 0\r\n\r\n{}" + smuggled,
		"CL signed":                head + "Content-Length: +2\r\n\r\n{}" + smuggled,
		"CL negative":              head + "Content-Length: -1\r\n\r\n" + smuggled,
		"CL hexadecimal":           head + "Content-Length: 0x2\r\n\r\n{}" + smuggled,
		"chunk size signed":        head + "Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n" + smuggled,
		"chunk size with 0x":       head + "Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n" + smuggled,
		"chunk size too long":      head + "Transfer-Encoding: chunked\r\n\r\n00000000000000002\r\n{}\r\n0\r\n\r\n" + smuggled,
		"chunk ends in bare LF":    head + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\n0\r\n\r\n" + smuggled,
		"chunk line ends in LF":    head + "Transfer-Encoding: chunked\r\n\r\n2;x\n{}\r\n0\r\n\r\n" + smuggled,
		"chunk longer than it is":  head + "Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n" + smuggled,
		"chunked under HTTP/1.0":   "POST /v1.1/tasks HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n" + smuggled,
		"two hosts":                "GET /v1.1/_noop HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + smuggled,
		"no host":                  "GET /v1.1/_noop HTTP/1.1\r\n\r\n" + smuggled,
		"version unknown":          "GET /v1.1/_noop HTTP/9.9\r\nHost: x\r\n\r\n" + smuggled,
		"NUL in a header":          "GET /v1.1/_noop HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n" + smuggled,
		"CR in a header":           "GET /v1.1/_noop HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n" + smuggled,
		"a body that is not taken": "GET /nope HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", w.url[len("http://"):])
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			in := bufio.NewReader(conn)
			first, err := http.ReadResponse(in, nil)
			if err != nil {
				return // cut without an answer
			}
			_, _ = io.Copy(io.Discard, first.Body)
			first.Body.Close()
			if first.StatusCode < 400 {
				t.Errorf("got %d", first.StatusCode)
			}
			if second, err := http.ReadResponse(in, nil); err == nil {
				t.Errorf("the hidden request was answered with %d after %d", second.StatusCode, first.StatusCode)
			}
		})
	}
}
