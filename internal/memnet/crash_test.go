package memnet

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestKilledProcessResetsItsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		near, far := pair(t, n, "a", "b")
		l, _ := n.Host("b").Listen(80)
		write(t, far, "last words")
		n.Host("b").Crash(false)
		read(t, near, "last words")
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("peer's read: got %v, want ECONNRESET", err)
		}
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ENETDOWN) {
			t.Errorf("own read: got %v, want ENETDOWN", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: got %v, want closed", err)
		}
		if _, err := n.Host("a").Dial(t.Context(), "tcp", "b:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: got %v, want ECONNREFUSED", err)
		}
		if _, err := n.Host("b").Listen(80); !errors.Is(err, syscall.ENETDOWN) {
			t.Errorf("listen: got %v, want ENETDOWN", err)
		}
		n.Host("b").Restart()
		if _, err := n.Host("b").Listen(80); err != nil {
			t.Errorf("listen after restart: %v", err)
		}
	})
}

func TestPowerLossLeavesHalfOpenStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		idle, _ := pair(t, n, "a", "b")
		busy, _ := pair(t, n, "a", "b")
		n.Host("b").Crash(true)
		write(t, busy, "to nobody")
		silent(t, busy, time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := n.Host("a").Dial(ctx, "tcp", "b:80"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial: got %v, want to wait in vain", err)
		}
		n.Host("b").Restart()
		if _, err := busy.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("stream with bytes under way: got %v, want ECONNRESET", err)
		}
		silent(t, idle, time.Hour) // nobody told it
		write(t, idle, "anyone there?")
		if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("idle stream that writes: got %v, want ECONNRESET", err)
		}
	})
}
