package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"ecs/control/state"
	"ecs/internal/task"
	"ecs/proto/api"
)

const interactive = `{"image":"busybox:1","open_stdin":true,"tty":true}`

// caller is one attached caller.
type caller struct {
	*world
	conn     *websocket.Conn
	messages []api.AttachMessage
	text     map[byte]string // by channel
}

func (w *world) attach(id task.ID, query string) *caller {
	w.t.Helper()
	conn, resp, err := websocket.Dial(w.t.Context(), w.url+"/v2/tasks/"+string(id)+"/attach"+query,
		&websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {basic(alice, "a-secret")}}, Subprotocols: []string{api.AttachProtocol}})
	if err != nil {
		w.t.Fatal(err)
	}
	if resp.Header.Get(api.HeaderCID) == "" || conn.Subprotocol() != api.AttachProtocol {
		w.t.Errorf("got headers %v, want a correlation id and the subprotocol", resp.Header)
	}
	w.t.Cleanup(func() { _ = conn.CloseNow() })
	return &caller{world: w, conn: conn, text: make(map[byte]string)}
}

// hear reads until it has heard what done looks for.
func (c *caller) hear(what string, done func() bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	for !done() {
		if err := c.one(ctx); err != nil {
			c.t.Fatalf("waited for %s: %v; heard %+v %q", what, err, c.messages, c.text)
		}
	}
}

func (c *caller) one(ctx context.Context) error {
	kind, b, err := c.conn.Read(ctx)
	if err != nil {
		return err
	}
	if kind != websocket.MessageBinary || len(b) == 0 {
		return fmt.Errorf("got a message %v %q", kind, b)
	}
	if b[0] != api.ChannelControl {
		c.text[b[0]] += string(b[1:])
		return nil
	}
	d, err := described()
	if err == nil {
		err = d.fits("/components/schemas/AttachMessage", b[1:])
	}
	if err != nil {
		c.t.Errorf("%s: %v", b[1:], err)
	}
	var m api.AttachMessage
	if err := json.Unmarshal(b[1:], &m); err != nil {
		return err
	}
	c.messages = append(c.messages, m)
	return nil
}

// last finds the newest message that is of the kind.
func (c *caller) last(is func(*api.AttachMessage) bool) *api.AttachMessage {
	for i := len(c.messages) - 1; i >= 0; i-- {
		if is(&c.messages[i]) {
			return &c.messages[i]
		}
	}
	return nil
}

func (c *caller) exited() *api.Task {
	if m := c.last(func(m *api.AttachMessage) bool { return m.Exit != nil }); m != nil {
		return m.Exit
	}
	return nil
}

func (c *caller) stdin() api.AttachStdin {
	if m := c.last(func(m *api.AttachMessage) bool { return m.Stdin != nil }); m != nil {
		return *m.Stdin
	}
	return api.AttachStdin{}
}

func (c *caller) complaint() string {
	if m := c.last(func(m *api.AttachMessage) bool { return m.Error != nil }); m != nil {
		return string(m.Error.Code) + ": " + m.Error.Detail
	}
	return ""
}

// closed reads to the end and gives the code it was closed with.
func (c *caller) closed() websocket.StatusCode {
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	for {
		if err := c.one(ctx); err != nil {
			return websocket.CloseStatus(err)
		}
	}
}

func (c *caller) typeIn(text string) { c.raw("\x00" + text) }
func (c *caller) say(json string)    { c.raw("\x03" + json) }

func (c *caller) raw(message string) {
	c.t.Helper()
	if err := c.conn.Write(c.t.Context(), websocket.MessageBinary, []byte(message)); err != nil {
		c.t.Fatal(err)
	}
}

func TestAttachedCallerTypesAndReads(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(interactive)
	c := w.attach(id, "")
	c.say(`{"resize":{"rows":50,"cols":132}}`)
	c.typeIn("ls\n")
	c.hear("why it waits", func() bool {
		return c.last(func(m *api.AttachMessage) bool { return m.State != nil && m.State.WaitingBecause != "" }) != nil
	})
	tok := w.start(id)
	c.hear("that input was taken", func() bool { return c.stdin().Taken == 3 })
	w.print(id, api.Stdout, "file", false)
	w.print(id, api.Stderr, "oops", false)
	c.hear("the output", func() bool { return c.text[1] == "file" && c.text[2] == "oops" })
	c.say(`{"signal":"INT"}`)
	c.say(`{"close_stdin":true}`)
	c.hear("that input has ended", func() bool { return c.stdin().Ended })
	eventually(t, "size and signal arrive", func() bool {
		w.keys.mu.Lock()
		defer w.keys.mu.Unlock()
		return strings.Join(w.keys.happens, " ") == "50x132 interrupt"
	})
	w.print(id, api.Stdout, "s\n", true)
	w.finish(tok, exited(7))
	if code := c.closed(); code != api.CloseEnded {
		t.Errorf("got closed with %d, want %d", code, api.CloseEnded)
	}
	if got := c.exited(); got == nil || *got.ExitCode != 7 || got.Outcome != api.OutcomeExited || got.OutputIncomplete || c.text[1] != "files\n" {
		t.Errorf("got exit %+v behind %q", got, c.text[1])
	}
	if text, ended := w.keys.text(string(id) + "/1"); text != "ls\n" || !ended {
		t.Errorf("the program read %q, ended %v", text, ended)
	}
	var states []string
	for _, m := range c.messages {
		if m.State != nil && (len(states) == 0 || states[len(states)-1] != m.State.State) {
			states = append(states, m.State.State)
		}
	}
	if got := strings.Join(states, " "); got != "pending assigned running" && got != "pending running" {
		t.Errorf("got states %q", got)
	}
}

func TestAttachToAFinishedTaskGivesOutputThenExit(t *testing.T) {
	w := newWorld(t)
	id := w.ran(big)
	for query, want := range map[string]string{"": big, "?stdout=10": big[10:], "?stdout=120000": "", "?attempt=1&stdout=9000": big[9000:]} {
		c := w.attach(task.ID(id), query)
		if code := c.closed(); code != api.CloseEnded || c.text[1] != want || c.exited() == nil {
			t.Errorf("%s: got %d bytes and code %d, want %d", query, len(c.text[1]), code, len(want))
		}
	}
}

func TestCallerWhoComesBackLosesAndDoublesNothing(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(interactive)
	w.start(id)
	w.print(id, api.Stdout, "0123456789", false)
	c := w.attach(id, "?writer=me")
	c.hear("output", func() bool { return len(c.text[1]) == 10 })
	c.typeIn("abc")
	c.hear("an answer", func() bool { return c.stdin().Taken == 3 })
	_ = c.conn.CloseNow()
	w.print(id, api.Stdout, "tail", false)
	back := w.attach(id, "?writer=me&attempt=1&stdout=10&stdin=1") // the last answer did not arrive
	back.typeIn("bcde")
	back.hear("the rest", func() bool { return back.text[1] == "tail" && back.stdin().Taken == 5 })
	if text, _ := w.keys.text(string(id) + "/1"); text != "abcde" {
		t.Errorf("the program read %q, want abcde", text)
	}
}

func TestInputSurvivesBrokenConnectionsToTheAgent(t *testing.T) {
	w := newWorld(t)
	w.keys.breaks = 3
	id := w.submitted(interactive)
	w.start(id)
	c := w.attach(id, "")
	var want strings.Builder
	for i := range 20 {
		piece := strings.Repeat(string(rune('a'+i)), 10_000)
		want.WriteString(piece)
		c.typeIn(piece)
	}
	c.say(`{"close_stdin":true}`)
	c.hear("the end to be taken", func() bool { return c.stdin().Ended && c.stdin().Taken == 200_000 })
	if text, ended := w.keys.text(string(id) + "/1"); text != want.String() || !ended {
		t.Errorf("the program read %d bytes, ended %v, want each once", len(text), ended)
	}
}

func TestSignalsPassByUnreadInputAndTheWindowHolds(t *testing.T) {
	w := newWorld(t)
	held := make(chan struct{})
	w.keys.held = held
	defer close(held)
	id := w.submitted(interactive)
	w.start(id)
	c := w.attach(id, "")
	for range api.AttachWindow / api.AttachPiece {
		c.typeIn(strings.Repeat("x", api.AttachPiece))
	}
	c.say(`{"signal":"TERM"}`)
	eventually(t, "the signal arrives", func() bool {
		w.keys.mu.Lock()
		defer w.keys.mu.Unlock()
		return len(w.keys.happens) == 1
	})
	c.typeIn("x")
	if code := c.closed(); code != api.CloseProtocol || !strings.HasPrefix(c.complaint(), "bad_request") {
		t.Errorf("got code %d, %q for input beyond the window", code, c.complaint())
	}
}

func TestNextAttemptIsAnnouncedAndReadFromItsBeginning(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(`{"image":"busybox:1","open_stdin":true,"delivery":"at_least_once"}`)
	tok := w.start(id)
	c := w.attach(id, "")
	w.print(id, api.Stdout, "first", false)
	c.hear("the first attempt", func() bool { return c.text[1] == "first" })
	w.apply(state.LoseAttempt{Token: tok, Reason: "its node is gone"})
	tok = w.start(id)
	w.print(id, api.Stdout, "second", true)
	w.finish(tok, exited(0))
	c.closed()
	if m := c.last(func(m *api.AttachMessage) bool { return m.Attempt != 0 }); m == nil || m.Attempt != 2 || c.text[1] != "firstsecond" {
		t.Errorf("got %q, attempts %+v, want the second announced", c.text[1], c.messages)
	}
}

func TestInputNobodyTakesIsThrownAway(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(hello)
	w.start(id)
	c := w.attach(id, "")
	c.hear("that it is closed", func() bool { return c.stdin().Closed })
	c.typeIn("abc")
	c.hear("that it is gone", func() bool { return c.stdin() == api.AttachStdin{Taken: 3, Closed: true} })
	w.keys.mu.Lock()
	w.keys.noInput = true
	w.keys.mu.Unlock()
	open := w.submitted(interactive)
	w.start(open)
	c = w.attach(open, "")
	c.typeIn("abc")
	c.hear("that the program closed it", func() bool { return c.stdin() == api.AttachStdin{Taken: 3, Closed: true} })
}

func TestAttachRefusesWhatItCannotDo(t *testing.T) {
	w := newWorld(t)
	id := string(w.submitted(interactive))
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}
	w.problem(w.do(http.MethodGet, "/v2/tasks/"+id+"/attach", ""), http.StatusBadRequest, api.CodeBadRequest)
	w.problem(w.do(http.MethodGet, "/v2/tasks/nope/attach", "", upgrade...), http.StatusNotFound, api.CodeNotFound)
	w.problem(w.do(http.MethodGet, "/v2/tasks/"+id+"/attach", "", append(upgrade, "Authorization", basic(bob, "b-secret"))...), http.StatusNotFound, api.CodeNotFound)
	w.problem(w.do(http.MethodGet, "/v2/tasks/"+id+"/attach", "", append(upgrade, "Authorization", "")...), http.StatusUnauthorized, api.CodeUnauthorized)
	for _, query := range []string{"?stdout=-1", "?stderr=x", "?attempt=-1", "?writer=a+b", "?stdout=99999999999999999999", "?offset=1"} {
		w.problem(w.do(http.MethodGet, "/v2/tasks/"+id+"/attach"+query, "", upgrade...), http.StatusBadRequest, api.CodeBadRequest)
	}
	if a := w.do(http.MethodGet, "/v2/tasks/"+id+"/attach", "", append(upgrade, "Origin", "https://elsewhere.example")...); a.status != http.StatusForbidden {
		t.Errorf("got %d for another site's page, want 403", a.status)
	}
	for message, want := range map[string]string{`{"signal":"NONSENSE"}`: "signal", `{"resize":{"rows":0,"cols":1}}`: "row", `{}`: "one of"} {
		c := w.attach(task.ID(id), "")
		c.say(message)
		c.hear("a complaint", func() bool { return strings.Contains(c.complaint(), want) })
	}
	for _, message := range []string{"\x03{", "\x01x", "\x00" + strings.Repeat("x", api.AttachPiece+1)} {
		c := w.attach(task.ID(id), "")
		c.raw(message)
		if code := c.closed(); code != api.CloseProtocol && code != websocket.StatusMessageTooBig {
			t.Errorf("%.5q: got code %d", message, code)
		}
	}
}

func TestStoppingNodeSendsTheAttachedAway(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(interactive)
	w.start(id)
	c := w.attach(id, "")
	c.hear("that it runs", func() bool { return c.last(func(m *api.AttachMessage) bool { return m.State != nil }) != nil })
	gone := make(chan struct{})
	go func() { defer close(gone); w.handler.Detach() }()
	if code := c.closed(); code != api.CloseRestart {
		t.Errorf("got code %d, want %d", code, api.CloseRestart)
	}
	<-gone
	a := w.do(http.MethodGet, "/v2/tasks/"+string(id)+"/attach", "", "Connection", "Upgrade", "Upgrade", "websocket")
	w.problem(a, http.StatusServiceUnavailable, api.CodeBusy)
}

func TestCallerThatVanishesLeavesNothing(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(interactive)
	w.start(id)
	c := w.attach(id, "")
	c.typeIn("x")
	c.hear("an answer", func() bool { return c.stdin().Taken == 1 })
	_ = c.conn.CloseNow()
	gone := make(chan struct{})
	go func() { defer close(gone); w.handler.attached.here.Wait() }()
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		t.Fatal("the attachment outlives its caller")
	}
}
