package api

import (
	"bufio"
	"context"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/crypto/bcrypt"

	"ecs/control/state"
	"ecs/internal/access"
	"ecs/proto/api"
)

// watched is a world with a keyring of record and file, whose requests end with
// their keys.
func watched(t *testing.T, lines ...string) (*world, *Keyring) {
	w := newWorld(t)
	ring := recordRing(t, w, lines...)
	w.handler.cfg.Auth = ring
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() { defer close(over); _ = w.handler.EndLapsed(ctx) }()
	t.Cleanup(func() { cancel(); <-over })
	return w, ring
}

// What a key has open ends when it is revoked: following, events, waiting, typing.
func TestWhatARevokedKeyHasOpenEnds(t *testing.T) {
	w, _ := watched(t, "z:"+hashed(t, "z", bcrypt.MinCost))
	w.putKey("boss", "boss", access.Admin, access.Limits{})
	w.putKey("gone", "gone", access.Run, access.Limits{})
	w.putKey("stays", "stays", access.Run, access.Limits{})
	open := func(key string) (id string, ended []<-chan error) {
		t.Helper()
		auth := []string{"Authorization", basic(key, key)}
		a := w.do(http.MethodPost, "/v2/tasks", `{"image":"busybox:1","open_stdin":true}`, auth...)
		id = w.task(a).ID
		for _, path := range []string{"/events", "/output?stream=stdout&follow=true"} {
			req, err := http.NewRequest(http.MethodGet, w.url+"/v2/tasks/"+id+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set(auth[0], auth[1])
			done := make(chan error, 1)
			ended = append(ended, done)
			go func() {
				resp, err := http.DefaultClient.Do(req)
				if err == nil {
					_, err = bufio.NewReader(resp.Body).WriteTo(discard{})
					resp.Body.Close()
				}
				done <- err
			}()
		}
		conn, resp, err := websocket.Dial(t.Context(), w.url+"/v2/tasks/"+id+"/attach", &websocket.DialOptions{
			Subprotocols: []string{api.AttachProtocol}, HTTPHeader: http.Header{auth[0]: {auth[1]}}})
		if err != nil {
			t.Fatal(resp, err)
		}
		typing := make(chan error, 1)
		ended = append(ended, typing)
		go func() {
			for {
				if _, _, err := conn.Read(t.Context()); err != nil {
					typing <- err
					return
				}
			}
		}()
		t.Cleanup(func() { _ = conn.CloseNow() })
		waiting := make(chan error, 1)
		ended = append(ended, waiting)
		go func() {
			a, err := w.try(http.MethodGet, "/v2/tasks/"+id+"?wait=1m", "", auth...)
			if err == nil && a.status != http.StatusUnauthorized && key == "gone" {
				t.Errorf("who waits got %d %s", a.status, a.body)
			}
			waiting <- err
		}()
		return id, ended
	}
	_, gone := open("gone")
	id, stays := open("stays")
	eventually(t, "all are served", func() bool {
		w.handler.holders.mu.Lock()
		defer w.handler.holders.mu.Unlock()
		return len(w.handler.holders.all) == len(gone)+len(stays)
	})
	w.apply(state.RevokeKey{ID: "gone", By: "boss"})
	late := time.After(10 * time.Second)
	for i, ended := range gone {
		select {
		case <-ended:
		case <-late:
			t.Fatalf("request %d of the revoked key goes on", i)
		}
	}
	for i, ended := range stays {
		select {
		case err := <-ended:
			t.Errorf("request %d of another key ended: %v", i, err)
		default:
		}
	}
	// Let them go: the task ends.
	w.do(http.MethodPost, "/v2/tasks/"+id+"/cancel", "", "Authorization", basic("stays", "stays"))
	for _, ended := range stays {
		<-ended
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// A key that leaves its file, or gets another secret there, ends as well.
func TestWhatAKeyOfTheFileHasOpenEndsWithItsLine(t *testing.T) {
	keep := "keep:" + hashed(t, "keep", bcrypt.MinCost)
	w, ring := watched(t, keep, "gone:"+hashed(t, "gone", bcrypt.MinCost))
	who := func(key string) access.Principal {
		p, err := ring.Authenticate(t.Context(), Attempt{key, key, ""})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	count := ring.Counts
	left, release := w.handler.holders.hold(t.Context(), who("gone"), count)
	defer release()
	stays, release := w.handler.holders.hold(t.Context(), who("keep"), count)
	defer release()
	text := strings.Join([]string{keep, "gone:" + hashed(t, "another", bcrypt.MinCost), ""}, "\n")
	if err := os.WriteFile(ring.file.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case <-left.Done():
	case <-time.After(20 * time.Second):
		t.Error("a request goes on whose secret counts no more")
	}
	if stays.Err() != nil {
		t.Error("another key's request ended")
	}
	// Who was let in just before is not missed.
	if late, release := w.handler.holders.hold(t.Context(), access.Principal{Owner: "gone"}, count); late.Err() == nil {
		t.Error("a request begins whose key counts no more")
	} else {
		release()
	}
}
