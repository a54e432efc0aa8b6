package telemetry

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestFindGivesOnlyWhatIsTheOwners(t *testing.T) {
	l, ring := NewLoggerWithRing(io.Discard, slog.LevelInfo, slog.String("node", "c1"))
	ctx := WithOwner(WithCID(context.Background(), "c"), "alice")
	l.InfoContext(ctx, "one")
	l.InfoContext(WithOwner(ctx, "bob"), "two", "owner", "bob")
	l.Info("three", "cid", "c", "task", "t") // the gatherer asks the record
	l.Info("four", "cid", "c")               // the operator's
	l.Info("five", slog.Group("g", "cid", "c"), "owner", "alice")
	l.InfoContext(WithCID(ctx, "other"), "six")
	for _, tt := range []struct {
		search Search
		want   string
		cut    bool
	}{
		{Search{CID: "c", Owner: "alice", Lines: 10, Bytes: 1 << 20}, "one three", false},
		{Search{CID: "c", Owner: "bob", Lines: 10, Bytes: 1 << 20}, "two three", false},
		{Search{CID: "c", Lines: 10, Bytes: 1 << 20}, "one two three four", false},
		{Search{CID: "c", Lines: 2, Bytes: 1 << 20}, "three four", true},
		{Search{CID: "c", Lines: 10, Bytes: 150}, "four", true},
		{Search{CID: "none", Lines: 10, Bytes: 1 << 20}, "", false},
	} {
		found := ring.Find(tt.search)
		var msgs []string
		for _, line := range found.Lines {
			msgs = append(msgs, decode(t, line)["msg"].(string))
		}
		if got := strings.Join(msgs, " "); got != tt.want || found.Cut != tt.cut || found.Since.IsZero() {
			t.Errorf("%+v: got %q, cut %v, since %v, want %q, cut %v", tt.search, got, found.Cut, found.Since, tt.want, tt.cut)
		}
	}
}

func TestSecretsAreNotWritten(t *testing.T) {
	const secret = "hunter2hunter2"
	var out bytes.Buffer
	l := NewLogger(&out, slog.LevelInfo)
	address, err := url.Parse("https://user:" + secret + "@registry.example/v2")
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{"Authorization": "Basic " + secret, "api_secret": secret, "registry-auth": secret, "password": secret,
		"header": http.Header{"X": {secret}}, "request": &http.Request{Host: secret}, "url": address} {
		out.Reset()
		l.Info("m", name, value)
		if strings.Contains(out.String(), secret) {
			t.Errorf("%s is written: %s", name, &out)
		}
	}
	out.Reset()
	l.Info("m", "author", "kept", "key", "kept")
	if strings.Count(out.String(), "kept") != 2 {
		t.Errorf("got %s, want what is no secret", &out)
	}
}

func TestWhatLooksLikeASecretDoesNotLeaveTheNode(t *testing.T) {
	var out bytes.Buffer
	l, ring := NewLoggerWithRing(&out, slog.LevelInfo)
	const secret = "aGVsbG86d29ybGQ"
	for _, text := range []string{"sent Authorization: Basic " + secret, `got "bearer ` + secret + `"`, "GET https://me:" + secret + "@host/path: refused",
		"token=" + secret + "&x=1", "password=" + secret, "join with ecsjoin1." + secret + ": refused"} {
		l.Info("failed", "cid", "c", "err", text)
	}
	found := ring.Find(Search{CID: "c", Lines: 10, Bytes: 1 << 20})
	if len(found.Lines) != 6 {
		t.Fatalf("got %d lines, want 6", len(found.Lines))
	}
	for _, line := range found.Lines {
		if m := decode(t, line); strings.Contains(string(line), secret) || m["msg"] != "failed" || !strings.Contains(m["err"].(string), hidden) {
			t.Errorf("got %s, want the line without its secret", line)
		}
	}
}

func TestTraceparentsAreChecked(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for text, want := range map[string]string{
		good: "0af7651916cd43dd8448eb211c80319c", "01" + good[2:] + "-more": "0af7651916cd43dd8448eb211c80319c",
		"": "", "00-short": "", good + "-more": "", "ff" + good[2:]: "", strings.ToUpper(good): "",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": "", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": "",
		"01" + good[2:] + strings.Repeat("-", 300): "",
	} {
		if got := TraceID(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
