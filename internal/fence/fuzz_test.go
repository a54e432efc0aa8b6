package fence

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// unixPair is two ends of a unix socket, as client and fence have them.
func unixPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	end := func(fd int) *net.UnixConn {
		f := os.NewFile(uintptr(fd), "")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		return c.(*net.UnixConn)
	}
	return end(fds[0]), end(fds[1])
}

// harmless reports whether none of the requests could end anything.
func harmless(text []byte) bool {
	for line := range bytes.Lines(text) {
		var r request
		if json.Unmarshal(line, &r) == nil && (r.Op == opAdd || r.Op == opKill) && r.Cgroup != "" && r.Entry.check() == nil {
			if _, err := os.Stat(r.Cgroup); err == nil {
				return false
			}
		}
	}
	return true
}

// FuzzRequests sends a fence whatever a client could: it answers every line or hangs
// up, and works for the next client.
func FuzzRequests(f *testing.F) {
	f.Add([]byte(`{"seq":1,"op":"add","id":"a","cgroup":"/sys/fs/cgroup/none/here","deadline":9000000000000000}` + "\n"))
	f.Add([]byte(`{"seq":2,"op":"renew","renewals":[{"id":"a","deadline":1}]}` + "\n" + `{"seq":3,"op":"list"}` + "\n"))
	f.Add([]byte(`{"seq":4,"op":"kill","id":"a"}` + "\n" + `{"seq":5,"op":"remove","id":"../x"}` + "\n"))
	f.Add([]byte("{}\n[]\nnull\n{\"op\":1}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if !harmless(text) {
			return
		}
		s := NewServer(config(t.TempDir()))
		var err error
		if s.store, err = openStore(s.cfg.StateDir); err != nil {
			t.Fatal(err)
		}
		defer s.store.close()
		if s.alarm, err = newAlarm(); err != nil {
			t.Fatal(err)
		}
		defer s.alarm.close()
		for client, said := range [][]byte{text, []byte(`{"seq":7,"op":"list"}` + "\n")} {
			near, far := unixPair(t)
			served := make(chan struct{})
			go func() { defer close(served); s.client(context.Background(), far) }()
			go func() {
				_, _ = near.Write(said) // it may hang up before the end
				_ = near.CloseWrite()
			}()
			answers, _ := io.ReadAll(near) // a reset: it hung up with some unread
			<-served
			near.Close()
			var last answer
			for line := range bytes.Lines(answers) {
				last = answer{}
				if err := json.Unmarshal(line, &last); err != nil {
					t.Fatalf("it answered %q", line)
				}
			}
			if client == 1 && (last.Seq != 7 || last.Error != "" || len(last.Entries) != 0) {
				t.Errorf("afterwards it answers %+v", last)
			}
		}
	})
}

// FuzzAnswers has a fence say whatever it could to an agent: the connection ends, and
// no entry is given up that the fence did not say it has ended.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"seq":1}` + "\n"))
	f.Add([]byte(`{"seq":1,"error":"x","ended":true}` + "\n" + `{"seq":2,"lost":["held"],"trouble":"no disk"}` + "\n"))
	f.Add([]byte(`{"seq":3,"entries":[{"id":"a","cgroup":"/sys/fs/cgroup/a/b","deadline":5}]}` + "\n"))
	f.Add([]byte(`{"seq":0,"error":"only root"}` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c := New("none", slog.New(slog.DiscardHandler))
		entry := Entry{ID: "held", Cgroup: "/sys/fs/cgroup/none/here", Deadline: time.Hour}
		c.mu.held["held"] = &held{Entry: entry, confirmed: true}
		waiting := make(chan answer, 1)
		c.mu.Lock()
		c.queueLocked(request{Op: opList}, waiting)
		c.addAgainLocked(c.mu.held["held"])
		c.mu.Unlock()
		near, far := net.Pipe()
		go func() {
			_, _ = far.Write(text) // it may hang up before the end
			far.Close()
		}()
		if err := c.receive(near, make(chan struct{}, 1)); err == nil {
			t.Error("a connection ended without a reason")
		}
		near.Close()
		if c.mu.held["held"] == nil && !bytes.Contains(bytes.ToLower(text), []byte(`ended`)) && !bytes.Contains(text, []byte(`\u`)) {
			t.Errorf("%q made it give its entry up", text)
		}
		c.leave()
		if len(c.mu.calls) != 0 || len(waiting) != 1 {
			t.Errorf("%d calls are left, and one that waits got %d answers", len(c.mu.calls), len(waiting))
		}
	})
}
