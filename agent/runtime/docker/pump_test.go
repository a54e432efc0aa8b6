package docker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/client"

	"ecs/agent/runtime"
	"ecs/internal/task"
	"ecs/internal/telemetry"
)

// slowDisk takes each write only after stall.
type slowDisk struct {
	bytes.Buffer
	stall time.Duration
}

func (s *slowDisk) Write(b []byte) (int, error) {
	time.Sleep(s.stall)
	return s.Buffer.Write(b)
}

func TestSlowSinkLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, engines := net.Pipe()
		disk := &slowDisk{stall: 10 * outputPatience}
		p := startPump(ours, ours, runtime.Sink{Stdout: disk, Stderr: io.Discard}, sniffed)
		big := strings.Repeat("x", 64<<10)
		const frames = 4 * queueLimit / (64 << 10) // far more than the queue holds
		go func() {
			defer engines.Close()
			for range frames {
				engines.Write(frame(1, big))
			}
		}()
		if err := p.settle(t.Context(), outputPatience); err != nil {
			t.Fatal(err)
		}
		if got := disk.Len(); got != frames*len(big) || p.broken() != "" {
			t.Errorf("got %d bytes, %q; want %d and no complaint", got, p.broken(), frames*len(big))
		}
	})
}

func TestReadingGoesOnWhileTheSinkStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, engines := net.Pipe()
		disk := &slowDisk{stall: time.Hour}
		p := startPump(ours, ours, runtime.Sink{Stdout: disk, Stderr: io.Discard}, sniffed)
		began := time.Now()
		for range 100 {
			if _, err := engines.Write(frame(1, "line")); err != nil {
				t.Fatal(err)
			}
		}
		engines.Close()
		<-p.over
		if took := time.Since(began); took > 0 {
			t.Errorf("the engine waited %s for the disk, want 0s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.settle(ctx, outputPatience); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("settle: got %v, want its context's end", err)
		}
		p.close()
		if disk.Len() != 400 {
			t.Errorf("got %d bytes, want 400", disk.Len())
		}
	})
}

func TestBrokenStreamIsNoEnd(t *testing.T) {
	whole := string(frame(1, "abc"))
	for _, tt := range []struct {
		name string
		in   io.Reader
		want string
	}{
		{"good order", strings.NewReader(whole), ""},
		{"nothing", strings.NewReader(""), ""},
		{"half a frame", strings.NewReader(whole + whole[:9]), "unexpected EOF"},
		{"half a header", strings.NewReader(whole + whole[:3]), "unexpected EOF"},
		{"a reset", io.MultiReader(strings.NewReader(whole), readerFunc(func([]byte) (int, error) { return 0, errors.New("reset") })), "reset"},
	} {
		conn, other := net.Pipe()
		p := startPump(conn, tt.in, runtime.Sink{Stdout: io.Discard, Stderr: io.Discard}, sniffed)
		<-p.done
		if got := p.broken(); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
		other.Close()
	}
}

// stubbed gives an attempt on an engine that says that nothing runs.
func stubbed(t *testing.T) *attempt {
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/kill") {
			http.Error(w, `{"message":"it is not running"}`, http.StatusConflict)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"Id":"x","State":{"Running":false}}`)
	}))
	t.Cleanup(engine.Close)
	c, err := client.NewClientWithOpts(client.WithHost("tcp://"+engine.Listener.Addr().String()), client.WithVersion("1.41"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	r := New(Config{Client: c, Cluster: "c", Node: "n", Metrics: telemetry.Discard()})
	return newAttempt(t.Context(), r, "x", runtime.Order{})
}

func TestExitThatComesLateIsPreferred(t *testing.T) {
	for _, tt := range []struct {
		name string
		why  string
		note *exitNote
		want ending
	}{
		{"an exit", trackLost, &exitNote{code: 7}, ending{code: 7}},
		{"none", trackLost, nil, ending{lost: trackLost}},
		{"a wait that broke", trackLost, &exitNote{err: io.EOF}, ending{lost: trackLost}},
		{"an exit that is our doing", "somebody paused the container", &exitNote{code: 137}, ending{lost: "somebody paused the container"}},
	} {
		c := stubbed(t)
		if tt.note != nil {
			c.exits <- *tt.note
		}
		got, err := c.lose(t.Context(), tt.why)
		got.at = time.Time{}
		if err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v; want %+v", tt.name, got, err, tt.want)
		}
	}
}

func TestCommandLongerThanAnyPath(t *testing.T) {
	long := "/" + strings.Repeat("x", maxPath)
	if f := refuse(runtime.Order{Spec: task.Spec{Entrypoint: []string{long}}}); f == nil || f.Outcome != task.StartFailed {
		t.Errorf("entrypoint: got %v, want start_failed", f)
	}
	// Of a command alone the image may make an argument.
	o := runtime.Order{Spec: task.Spec{Command: []string{long}}}
	if f := refuse(o); f != nil {
		t.Errorf("command: got %v, want none yet", f)
	}
	line := "[FATAL tini (7)] exec " + long + " failed: File name too long\n"
	if c := newAttempt(t.Context(), nil, "x", o); len(line) > c.sniff {
		t.Errorf("kept of stderr: got %d, want at least %d", c.sniff, len(line))
	}
	if f := initFailure(1, 0, []byte(line)); f == nil || len(f.Reason) > 1100 {
		t.Errorf("got %v, want a short reason", f)
	}
}
