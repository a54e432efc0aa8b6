package admin

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type node struct {
	addrs []string
	force bool
	err   error
}

func (n *node) About() About { return About{Role: "agent", ID: "n1"} }

func (n *node) Join(_ context.Context, addrs []string, say func(string)) error {
	n.addrs = addrs
	say("one")
	say("two")
	return n.err
}

func (n *node) Leave(_ context.Context, force bool, say func(string)) error {
	n.force = force
	return n.err
}

// door serves a node from a directory whose name is too long for a socket.
func door(t *testing.T, n Node) *Client {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds what the first left
		l, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- Serve(ctx, l, n) }()
		stop := func() {
			cancel()
			if err := <-served; err != nil {
				t.Errorf("serve: %v", err)
			}
		}
		info, err := os.Stat(filepath.Join(dir, Socket))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("got %v, %v, want a socket for its owner alone", info, err)
		}
		t.Cleanup(stop)
	}
	return NewClient(dir)
}

func TestProgressAndErrorsReachTheOperator(t *testing.T) {
	n := &node{}
	c := door(t, n)
	if a, err := c.About(t.Context()); err != nil || a.ID != "n1" {
		t.Errorf("got %+v, %v", a, err)
	}
	var said []string
	say := func(s string) { said = append(said, s) }
	if err := c.Join(t.Context(), []string{"a:1", "b:2"}, say); err != nil || !slices.Equal(said, []string{"one", "two"}) || len(n.addrs) != 2 {
		t.Errorf("got %v, %v and %v", said, err, n.addrs)
	}
	n.err = errors.New("last voter")
	if err := c.Leave(t.Context(), true, say); err == nil || err.Error() != "last voter" || !n.force {
		t.Errorf("got %v, want the daemon's own error", err)
	}
}

func TestNoDaemonIsSaidWithWhatToDo(t *testing.T) {
	if _, err := NewClient(t.TempDir()).About(t.Context()); err == nil || !strings.Contains(err.Error(), "does it run") {
		t.Errorf("got %v", err)
	}
}

// A daemon without a certificate starts once, when what was put in place is good.
func TestADaemonWaitsForItsCertificate(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	bad, starts := errors.New("no such certificate"), 0
	start := func() error { starts++; return bad }
	type end struct {
		started bool
		err     error
	}
	ended := make(chan end, 1)
	go func() {
		started, err := ServeAwaiting(context.Background(), l, About{Role: "agent", Awaits: &Awaited{UID: 7}}, start)
		ended <- end{started, err}
	}()
	c := NewClient(dir)
	if a, err := c.About(t.Context()); err != nil || a.Awaits == nil || a.Awaits.UID != 7 {
		t.Errorf("got %+v, %v", a, err)
	}
	if err := c.Join(t.Context(), []string{"a:1"}, func(string) {}); err == nil || !strings.Contains(err.Error(), "ecsctl ca token") {
		t.Errorf("got %v, want told how to get a certificate", err)
	}
	if err := c.Start(t.Context()); err == nil || err.Error() != bad.Error() {
		t.Errorf("got %v, want what is wrong with the files", err)
	}
	bad = nil
	if err := c.Start(t.Context()); err != nil {
		t.Error(err)
	}
	if e := <-ended; e.err != nil || !e.started || starts != 2 {
		t.Errorf("got %+v after %d starts", e, starts)
	}
}
