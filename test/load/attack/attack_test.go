package attack_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"ecs/test/load/attack"
)

// until attacks until the condition holds.
func until(t *testing.T, cfg attack.Config, holds func() bool) attack.Done {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	begun := make(chan struct{})
	go func() {
		<-begun
		for !holds() && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		if ctx.Err() != nil {
			t.Error("not in time")
		}
		cancel()
	}()
	done, err := attack.Run(ctx, cfg, func() { close(begun) })
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func TestGuessesComeFromAllAddressesAndAreCounted(t *testing.T) {
	var served atomic.Int64
	from := make(chan string, 1000)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		from <- host
		if served.Add(1)%2 == 0 {
			w.Header().Set("Connection", "close")
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer s.Close()
	done := until(t, attack.Config{Kind: attack.Guess, Addr: s.Listener.Addr().String(), From: []string{"127.0.9.1", "127.0.9.2"},
		Request: "GET / HTTP/1.1\r\nHost: x\r\n\r\n", Connections: 6, Rate: 500}, func() bool { return served.Load() >= 100 })
	if done.Status["401"] < 90 || int64(done.Status["401"]) != done.Answered || done.Sent < done.Answered {
		t.Errorf("got %+v, want some 100 answers, all of them 401", done)
	}
	seen := map[string]bool{}
	for range served.Load() {
		seen[<-from] = true
	}
	if len(seen) != 2 || !seen["127.0.9.1"] || !seen["127.0.9.2"] {
		t.Errorf("it came from %v", seen)
	}
}

func TestEveryConnectionIsHeldByAByteASecond(t *testing.T) {
	var bytes atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for one := make([]byte, 1); ; {
			if _, err := io.ReadFull(r.Body, one); err != nil {
				return
			}
			bytes.Add(1)
		}
	}))
	defer s.Close()
	const conns = 40
	done := until(t, attack.Config{Kind: attack.Hold, Addr: s.Listener.Addr().String(), From: []string{"127.0.9.1"},
		Request: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", Connections: conns, Rate: 10}, func() bool { return bytes.Load() >= 2*conns })
	if done.Held != conns || done.Opened != conns || done.Seconds < 1.5 || done.Seconds > 10 {
		t.Errorf("got %+v, want %d connections held for some two seconds", done, conns)
	}
}
