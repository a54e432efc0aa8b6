package memnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

// pair gives the two ends of a stream from a to b.
func pair(t testing.TB, n *Net, a, b string) (near, far net.Conn) {
	t.Helper()
	l, err := n.Host(b).Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err = n.Host(a).Dial(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func write(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if n, err := c.Write([]byte(s)); n != len(s) || err != nil {
		t.Fatalf("write %d bytes: got %d and %v", len(s), n, err)
	}
}

func read(t testing.TB, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("got %q and %v, want %q", b[:n], err, want)
	}
}

// silent asserts that nothing arrives within d.
func silent(t testing.TB, c net.Conn, d time.Duration) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(d))
	defer c.SetReadDeadline(time.Time{})
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %d bytes and %v, want silence for %v", n, err, d)
	}
}

// took asserts how much time of the bubble f needs.
func took(t testing.TB, want time.Duration, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if got := time.Since(start); got != want {
		t.Errorf("took %v, want %v", got, want)
	}
}

func TestStreamsBehaveAsConnections(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		n := New(1)
		l, err := n.Host("b").Listen(80)
		if err != nil {
			return nil, nil, nil, err
		}
		defer l.Close()
		near, err := n.Host("a").Dial(context.Background(), "tcp", "b:80")
		if err != nil {
			return nil, nil, nil, err
		}
		far, err := l.Accept()
		return near, far, func() { near.Close(); far.Close() }, err
	})
}

func TestDelayAppliesEachWayAndKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		n.Delay("a", "b", 100*time.Millisecond, 0)
		var near, far net.Conn
		took(t, 200*time.Millisecond, func() { near, far = pair(t, n, "a", "b") })
		write(t, near, "hello")
		took(t, 100*time.Millisecond, func() { read(t, far, "hello") })

		n.Delay("a", "b", 10*time.Millisecond, 90*time.Millisecond)
		var want strings.Builder
		for i := range 200 {
			s := strings.Repeat(string(rune('a'+i%26)), i%7+1)
			want.WriteString(s)
			write(t, near, s)
		}
		read(t, far, want.String())
	})
}

func TestCutIsSilentAndStreamsGoOnAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		near, far := pair(t, n, "a", "b")
		write(t, near, "before ")
		n.Cut("a", "b")
		read(t, far, "before ") // it had arrived
		write(t, near, "during ")
		silent(t, far, time.Minute)
		if n.Dropped() == 0 {
			t.Error("got no sign that the cut bit")
		}
		n.Heal("a", "b")
		write(t, near, "after")
		read(t, far, "during after")
		write(t, far, "back")
		read(t, near, "back")
	})
}

func TestCutHoldsWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		n.Delay("a", "b", time.Second, 0)
		near, far := pair(t, n, "a", "b")
		write(t, near, "x")
		time.Sleep(500 * time.Millisecond)
		n.Cut("a", "b")
		silent(t, far, 10*time.Second)
		n.HealAll()
		took(t, time.Second, func() { read(t, far, "x") })
	})
}

func TestOneWayCutLetsTheOtherWayPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		near, far := pair(t, n, "a", "b")
		n.CutOneWay("a", "b")
		write(t, near, "lost for now")
		write(t, far, "heard")
		read(t, near, "heard")
		silent(t, far, time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Host("b").Dial(ctx, "tcp", "a:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial without a way back: got %v, want to wait in vain", err)
		}
	})
}

func TestPartitionAndIsolateCutAcrossOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		for _, h := range []string{"a", "b", "c"} {
			n.Host(h)
		}
		ab, ba := pair(t, n, "a", "b")
		ac, ca := pair(t, n, "a", "c")
		n.Partition([]string{"a", "b"}, []string{"c"})
		write(t, ab, "1")
		read(t, ba, "1")
		write(t, ac, "2")
		silent(t, ca, time.Second)
		n.HealAll()
		read(t, ca, "2")
		n.Isolate("a")
		write(t, ab, "3")
		silent(t, ba, time.Second)
		n.Reset()
		read(t, ba, "3")
	})
}

func TestDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		a, b := n.Host("a"), n.Host("b")
		dial := func() (net.Conn, error) { return a.Dial(t.Context(), "tcp", "b:80") }
		if _, err := dial(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("no listener: got %v, want ECONNREFUSED", err)
		}
		var dns *net.DNSError
		if _, err := a.Dial(t.Context(), "tcp", "nobody:80"); !errors.As(err, &dns) {
			t.Errorf("no such host: got %v, want a DNS error", err)
		}
		for _, bad := range []string{"", "b", "b:http", "b:0", "b:70000"} {
			if _, err := a.Dial(t.Context(), "tcp", bad); err == nil {
				t.Errorf("dial %q: got no error", bad)
			}
		}
		l, err := b.Listen(80)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Listen(80); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("second listener: got %v, want EADDRINUSE", err)
		}
		n.Cut("a", "b")
		took(t, connectTimeout, func() {
			if _, err := dial(); !errors.Is(err, syscall.ETIMEDOUT) {
				t.Errorf("cut: got %v, want ETIMEDOUT", err)
			}
		})
		time.AfterFunc(time.Second, func() { n.Heal("a", "b") })
		took(t, time.Second, func() {
			c, err := dial()
			if err != nil {
				t.Fatalf("healed while dialing: %v", err)
			}
			c.Close()
		})
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		l.Close() // accepted neither
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("never accepted: got %v, want ECONNRESET", err)
		}
		c.Close()
	})
}

func TestFullWindowBlocksTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		near, far := pair(t, n, "a", "b")
		data := bytes.Repeat([]byte("0123456789abcdef"), window/8) // twice the window
		near.SetWriteDeadline(time.Now().Add(time.Second))
		k, err := near.Write(data)
		if k != window || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("nobody reads: got %d bytes and %v, want %d and a timeout", k, err, window)
		}
		near.SetWriteDeadline(time.Time{})
		var wg sync.WaitGroup
		wg.Go(func() { near.Write(data[k:]); near.Close() })
		got, err := io.ReadAll(far)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("got %d bytes and %v, want all %d", len(got), err, len(data))
		}
		wg.Wait()
		if _, err := far.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write to a closed end: got %v, want EPIPE", err)
		}
	})
}

func TestBlockedWriterLearnsThatTheReaderClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		n.Delay("a", "b", time.Second, 0)
		near, far := pair(t, n, "a", "b")
		time.AfterFunc(time.Minute, func() { far.Close() })
		took(t, time.Minute+time.Second, func() {
			if _, err := near.Write(make([]byte, 2*window)); !errors.Is(err, syscall.EPIPE) {
				t.Errorf("got %v, want EPIPE", err)
			}
		})
	})
}

func TestLossSlowsStreamsAndDropsDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(7)
		near, far := pair(t, n, "a", "b")
		from, _ := n.Host("a").Packets(0)
		to, _ := n.Host("b").Packets(53)
		n.Loss("a", "b", 0.5)
		start := time.Now()
		for range 100 {
			write(t, near, "x")
			from.WriteTo([]byte("y"), to.LocalAddr())
		}
		read(t, far, strings.Repeat("x", 100))
		if time.Since(start) < firstRetransmit {
			t.Error("a lossy stream lost no time")
		}
		to.SetReadDeadline(time.Now().Add(time.Second))
		got := 0
		for ; ; got++ {
			if _, _, err := to.ReadFrom(make([]byte, 8)); err != nil {
				break
			}
		}
		if got < 25 || got > 75 {
			t.Errorf("got %d of 100 datagrams at 50%% loss", got)
		}
	})
}

func TestDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		from, err := n.Host("a").Packets(53)
		if err != nil {
			t.Fatal(err)
		}
		to, _ := n.Host("b").Packets(53)
		send := func(s string) {
			t.Helper()
			if k, err := from.WriteTo([]byte(s), to.LocalAddr()); k != len(s) || err != nil {
				t.Fatalf("send %q: got %d and %v", s, k, err)
			}
		}
		receive := func(want string) {
			t.Helper()
			b := make([]byte, 100)
			k, a, err := to.ReadFrom(b)
			if err != nil || string(b[:k]) != want || a.String() != "a:53" {
				t.Fatalf("got %q from %v and %v, want %q from a:53", b[:k], a, err, want)
			}
		}
		none := func() {
			t.Helper()
			to.SetReadDeadline(time.Now().Add(time.Minute))
			if k, _, err := to.ReadFrom(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("got %d bytes and %v, want a timeout", k, err)
			}
			to.SetReadDeadline(time.Time{})
		}
		send("one")
		send("")
		receive("one")
		receive("")

		n.Delay("a", "b", time.Second, 0)
		send("slow")
		n.Delay("a", "b", 0, 0)
		send("fast")
		receive("fast")
		took(t, time.Second, func() { receive("slow") })

		n.Cut("a", "b")
		send("lost")
		n.Heal("a", "b")
		none()
		for range window/1000 + 50 {
			send(strings.Repeat("z", 1000))
		}
		if got := n.Dropped(); got < 50 {
			t.Errorf("got %d dropped of an overrun, want at least 50", got)
		}
		if _, err := from.WriteTo(make([]byte, mostDatagram+1), to.LocalAddr()); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("too large: got %v, want EMSGSIZE", err)
		}
		time.AfterFunc(time.Second, func() { from.Close() })
		if _, _, err := from.ReadFrom(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed while reading: got %v", err)
		}
		n.Host("b").Crash(true)
		if _, _, err := to.ReadFrom(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("crashed: got %v, want closed", err)
		}
	})
}

// A leaked goroutine would fail the bubble.
func TestHTTPRunsOverIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		n.Delay("client", "server", 5*time.Millisecond, 5*time.Millisecond)
		l, err := n.Host("server").Listen(80)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(25 * time.Second)
			io.Copy(w, r.Body)
		})}
		var wg sync.WaitGroup
		wg.Go(func() { server.Serve(l) })
		transport := &http.Transport{DialContext: n.Host("client").Dial}
		body := strings.Repeat("payload ", 100_000)
		for range 20 {
			wg.Go(func() {
				answer, err := (&http.Client{Transport: transport}).Post("http://server:80/", "text/plain", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				defer answer.Body.Close()
				if got, err := io.ReadAll(answer.Body); err != nil || string(got) != body {
					t.Errorf("got %d bytes and %v, want %d", len(got), err, len(body))
				}
			})
		}
		time.Sleep(time.Minute)
		transport.CloseIdleConnections()
		server.Shutdown(t.Context())
		wg.Wait()
	})
}
