package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ecs/internal/memnet"
	"ecs/proto/api"
)

// wired is a client whose bytes come when the test wants.
type wired struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

// slowly serves the API in a bubble and gives what connects to it.
func slowly(t *testing.T, test func(t *testing.T, connect func() *wired)) {
	synctest.Test(t, func(t *testing.T) {
		network := memnet.New(1)
		l, err := network.Host("c1").Listen(80)
		if err != nil {
			t.Fatal(err)
		}
		s := NewServer(New(Config{Auth: pairs{alice: "a-secret"}, Sealer: seals{}, Log: slog.New(slog.DiscardHandler)}))
		ended := make(chan error)
		go func() { ended <- s.Serve(l) }()
		test(t, func() *wired {
			conn, err := network.Host("far").Dial(t.Context(), "tcp", "c1:80")
			if err != nil {
				t.Fatal(err)
			}
			return &wired{t, conn, bufio.NewReader(conn)}
		})
		s.Close()
		<-ended
	})
}

func (c *wired) say(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, format, args...); err != nil {
		c.t.Fatal(err)
	}
}

// begin sends the head of a request with so long a body.
func (c *wired) begin(path, authorization string, length int) {
	c.t.Helper()
	c.say("POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n", path, authorization, length)
}

// answer reads an answer, and says whether the connection ends with it.
func (c *wired) answer() (status int, p api.Problem, last bool) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, p, resp.Close
}

func (c *wired) ended() {
	c.t.Helper()
	if _, err := c.in.ReadByte(); err == nil {
		c.t.Error("there is more behind the last answer")
	}
	c.Close()
}

func TestABodyThatComesTooSlowlyEndsItsRequest(t *testing.T) {
	slowly(t, func(t *testing.T, connect func() *wired) {
		began := time.Now()
		c := connect()
		c.begin("/v1.1/tasks", basic(alice, "a-secret"), 5000)
		stop := make(chan struct{})
		sending := make(chan struct{})
		go func() {
			defer close(sending)
			for second := time.NewTicker(time.Second); ; {
				select {
				case <-second.C:
					_, _ = c.Write([]byte("x")) // it is closed at the end
				case <-stop:
					second.Stop()
					return
				}
			}
		}()
		status, p, last := c.answer()
		if took := time.Since(began); status != http.StatusRequestTimeout || p.Code != api.CodeTooSlow || p.Limit != limitBodyRate || !last || took < bodyGrace || took > bodyGrace+2*time.Second {
			t.Errorf("got %d %+v after %s, the connection's last: %v", status, p, took, last)
		}
		c.ended()
		close(stop)
		<-sending
	})
}

// What keeps the rate is taken, however long that is within a request's time.
func TestABodyThatComesSteadilyIsTaken(t *testing.T) {
	slowly(t, func(t *testing.T, connect func() *wired) {
		began := time.Now()
		const pieces = 25
		c := connect()
		c.begin("/v2/tasks", basic(alice, "a-secret"), pieces*bodyRate)
		for range pieces {
			time.Sleep(time.Second)
			c.say("%s", strings.Repeat("x", bodyRate))
		}
		status, p, last := c.answer()
		if took := time.Since(began); status != http.StatusBadRequest || p.Code != api.CodeBadRequest || last || took < pieces*time.Second {
			t.Errorf("got %d %+v after %s, want the body found to be no JSON", status, p, took)
		}
		c.Close()
	})
}

// What is done with a body may take longer than was left for it to come.
func TestNothingEndsARequestBehindItsBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := memnet.New(1)
		l, err := network.Host("c1").Listen(80)
		if err != nil {
			t.Fatal(err)
		}
		s := NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := readBody(w, r, 1<<20)
			select {
			case <-r.Context().Done():
				err = r.Context().Err()
			case <-time.After(readTimeout):
			}
			fmt.Fprintf(w, "%d %v", len(body), err)
		}))
		ended := make(chan error)
		go func() { ended <- s.Serve(l) }()
		conn, err := network.Host("far").Dial(t.Context(), "tcp", "c1:80")
		if err != nil {
			t.Fatal(err)
		}
		c := &wired{t, conn, bufio.NewReader(conn)}
		c.begin("/", "", 25*bodyRate)
		for range 25 {
			time.Sleep(time.Second)
			c.say("%s", strings.Repeat("x", bodyRate))
		}
		resp, err := http.ReadResponse(c.in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(resp.Body); string(text) != "25600 <nil>" || err != nil {
			t.Errorf("got %q, %v", text, err)
		}
		c.Close()
		s.Close()
		<-ended
	})
}

func TestTheBodyOfARefusedRequestIsHardlyWaitedFor(t *testing.T) {
	slowly(t, func(t *testing.T, connect func() *wired) {
		began := time.Now()
		// The first ones are waited for a moment: the answer finds who sends first
		// and reads then.
		waiting := make([]*wired, patiencePerAddress)
		for i := range waiting {
			waiting[i] = connect()
			waiting[i].begin("/v2/tasks", basic(alice, "wrong"), 5000)
		}
		synctest.Wait()
		for range 10 {
			c := connect()
			c.begin("/v2/tasks", basic(alice, "wrong"), 5000)
			if status, _, last := c.answer(); status != http.StatusUnauthorized || !last || time.Since(began) > 0 {
				t.Errorf("got %d after %s, the connection's last: %v; want no wait", status, time.Since(began), last)
			}
			c.ended()
		}
		// What is there with the head costs nobody a wait.
		whole := connect()
		for range 2 {
			whole.say("POST /v2/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
			if status, _, last := whole.answer(); status != http.StatusUnauthorized || last || time.Since(began) > 0 {
				t.Errorf("got %d after %s, the connection's last: %v; want it kept", status, time.Since(began), last)
			}
		}
		whole.Close()
		prompt := waiting[0]
		if _, err := prompt.Write(bytes.Repeat([]byte("x"), 5000)); err != nil {
			t.Fatal(err)
		}
		if status, _, last := prompt.answer(); status != http.StatusUnauthorized || last {
			t.Errorf("got %d, the connection's last: %v; want it kept", status, last)
		}
		prompt.Close()
		for _, c := range waiting[1:] {
			if status, _, last := c.answer(); status != http.StatusUnauthorized || !last {
				t.Errorf("got %d, the connection's last: %v; want it to end", status, last)
			}
			c.ended()
		}
		if took := time.Since(began); took < refusedWait || took > refusedWait+time.Second {
			t.Errorf("they were waited for %s, want %s", took, refusedWait)
		}
	})
}

// A client that waits to be asked for its body is not asked.
func TestARefusedRequestIsNotToldToContinue(t *testing.T) {
	slowly(t, func(t *testing.T, connect func() *wired) {
		c := connect()
		c.say("POST /v2/tasks HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		if status, _, last := c.answer(); status != http.StatusUnauthorized || !last {
			t.Errorf("got %d, the connection's last: %v", status, last)
		}
		rest, err := io.ReadAll(c.in)
		if len(rest) > 0 || err != nil {
			t.Errorf("got %q, %v behind it", rest, err)
		}
		c.Close()
	})
}
