package api

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"ecs/control/state"
	"ecs/internal/telemetry"
	"ecs/proto/api"
)

// FuzzHeaders reads what callers put into headers.
func FuzzHeaders(f *testing.F) {
	f.Add("abc-1", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "bytes=0-1", "1.2.3.4.2.1", "127.0.0.1:80")
	f.Add("", "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what", "bytes=-5", "0.0.0.0.0.0", "[fe80::1%eth0]:80")
	f.Add("x\ny", "00-", "bytes=18446744073709551616-", "-1.0.0.0.0.0", "pipe")
	f.Fuzz(func(t *testing.T, cid, traceparent, ranged, lastEvent, remote string) {
		if saneCID(cid) && (cid == "" || len(cid) > maxCID || strings.ContainsAny(cid, "\r\n\" ")) {
			t.Errorf("%q is taken for a correlation id", cid)
		}
		if id := telemetry.TraceID(traceparent); id != "" && (len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "") {
			t.Errorf("%q gives the trace %q", traceparent, id)
		}
		for _, size := range []int64{0, 1, 1 << 40} {
			if from, n, ok, err := parseRange(ranged, size); ok && (err != nil || from < 0 || n < 1 || from+n > size) {
				t.Errorf("%q of %d bytes gives %d from %d", ranged, size, n, from)
			}
		}
		m := parseMark(lastEvent)
		for _, p := range m.streams {
			if p.offset < 0 || p.attempt < 0 {
				t.Errorf("%q gives %+v", lastEvent, m)
			}
		}
		if again := parseMark(m.String()); again != m {
			t.Errorf("%q gives %+v and, written and read, %+v", lastEvent, m, again)
		}
		addressOf(&http.Request{RemoteAddr: remote})
	})
}

// FuzzQuery reads what callers ask for behind a question mark.
func FuzzQuery(f *testing.F) {
	f.Add("state=running,finished&label=a%3Db&label=c&limit=5&cursor=zz")
	f.Add("wait=5s&max_inline=1MiB&wait=6s")
	f.Add("cid=x&limit=10;%zz")
	f.Fuzz(func(t *testing.T, raw string) {
		r := &http.Request{URL: &url.URL{RawQuery: raw}}
		q, err := query(r, []string{"limit", "cursor", "owner", "wait"}, "state", "label")
		if err != nil {
			return
		}
		for name, values := range q {
			if name != "state" && name != "label" && len(values) != 1 {
				t.Errorf("%s has %d values", name, len(values))
			}
		}
		if list, err := filterOf(q); err == nil && (list.limit < 1 || list.limit > api.MaxList) {
			t.Errorf("got a limit of %d", list.limit)
		}
	})
}

// FuzzHtpasswdHash reads the second half of a line of an htpasswd file.
func FuzzHtpasswdHash(f *testing.F) {
	f.Add(nobodysHash)
	f.Add("$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e")
	f.Add("$apr1$4NBeIjR3$X3ZbyRQkyRrUeO1u3VvKQ0")
	f.Add("$5$rounds=1000$saltstring$pQlRgOPGjBXjTDSSGeYEAKXQZt5dvtw4nlg6nYiCcU6")
	f.Add("{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=")
	f.Fuzz(func(t *testing.T, hash string) {
		p, err := parseHash(hash)
		if err == nil && (p.matches == nil || p.stored != hash) {
			t.Errorf("%q is taken and can't be checked", hash)
		}
		if err != nil && hash != "" && len(hash) > 8 && strings.Contains(err.Error(), hash) {
			t.Errorf("the error shows the hash: %v", err)
		}
	})
}

// FuzzSmallBodies reads the bodies of tokens, revocations and wishes. Those of
// tasks, keys and admissions have targets of their own.
func FuzzSmallBodies(f *testing.F) {
	f.Add([]byte(`{"role":"agent","ttl":"10m"}`))
	f.Add([]byte(`{"node":"01m","serial":""}`))
	f.Add([]byte(`{"serial":"00ff"}`))
	f.Add([]byte(`{"image":"busybox:1","count":3}`))
	p := &parser{grammar: newGrammar()}
	f.Fuzz(func(t *testing.T, body []byte) {
		if q, err := parseTokenRequest(body); err == nil && (q.TTL <= 0 || q.TTL > api.Duration(api.MaxTokenTTL)) {
			t.Errorf("a token for %v is taken", q.TTL)
		}
		if r, _, err := parseRevocation(body); err == nil && (r.Node == "") == (r.Serial == "") {
			t.Errorf("%+v is taken", r)
		}
		if w, err := p.wish(body); err == nil && (w.Count < 0 || w.Count > state.MaxWishCount || w.Spec.Image == "") {
			t.Errorf("%+v is taken", w)
		}
	})
}

// FuzzAttachMessage takes what a caller sends over a WebSocket.
func FuzzAttachMessage(f *testing.F) {
	f.Add([]byte{api.ChannelStdin, 'h', 'i'})
	f.Add(append([]byte{api.ChannelControl}, `{"resize":{"rows":24,"cols":80}}`...))
	f.Add(append([]byte{api.ChannelControl}, `{"signal":"sigint"}`...))
	f.Add(append([]byte{api.ChannelControl}, `{"close_stdin":true}`...))
	f.Add([]byte{9})
	f.Fuzz(func(t *testing.T, message []byte) {
		a := &attachment{typed: newTyped(0, true)}
		for range 3 {
			fault := a.take(websocket.MessageBinary, message)
			if fault != nil && fault.detail == "" {
				t.Error("a fault without a word")
			}
		}
		if len(a.typed.rest) > api.AttachWindow {
			t.Errorf("%d bytes wait", len(a.typed.rest))
		}
		if fault := a.take(websocket.MessageText, message); fault == nil || !fault.fatal {
			t.Error("text is taken")
		}
	})
}
