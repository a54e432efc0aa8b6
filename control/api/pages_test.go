package api

import (
	"bufio"
	"context"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ecs/control/dashboard"
	"ecs/control/state"
	"ecs/internal/access"
	"ecs/internal/task"
	"ecs/proto/api"
)

// withPages serves the dashboard as control does.
func withPages(cfg *Config) {
	pages, err := dashboard.New(PagesPath, cfg.Log)
	if err != nil {
		panic(err)
	}
	cfg.Pages = func(w http.ResponseWriter, r *http.Request, v *Visit) { pages.Serve(w, r, v) }
}

// browser is somebody with cookies who does not follow to other pages.
type browser struct {
	w      *world
	client *http.Client
}

func (w *world) browser() *browser {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &browser{w, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (b *browser) do(method, path, form string, header ...string) answer {
	b.w.t.Helper()
	req, err := http.NewRequest(method, b.w.url+path, strings.NewReader(form))
	if err != nil {
		b.w.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := b.client.Do(req)
	if err != nil {
		b.w.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.w.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{resp.StatusCode, resp.Header, body}
}

func (b *browser) get(path string) answer { return b.do(http.MethodGet, path, "") }

func (b *browser) signIn(key string) answer {
	b.w.t.Helper()
	return b.do(http.MethodPost, "/ui/sign-in", url.Values{"key": {key}, "secret": {key[:1] + "-secret"}}.Encode())
}

func (w *world) signedIn(key string) *browser {
	w.t.Helper()
	b := w.browser()
	if a := b.signIn(key); a.status != http.StatusSeeOther {
		w.t.Fatalf("sign in as %s: got %d %s", key, a.status, a.body)
	}
	return b
}

// shows wants a page of a status with every one of some texts.
func (w *world) shows(a answer, status int, texts ...string) {
	w.t.Helper()
	if a.status != status || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		w.t.Errorf("got %d %s, want a page with %d", a.status, a.header.Get("Content-Type"), status)
	}
	for _, text := range texts {
		if !strings.Contains(string(a.body), text) {
			_, main, _ := strings.Cut(string(a.body), "<main")
			w.t.Errorf("the page lacks %q:\n%s", text, main)
		}
	}
}

func TestBrowsersAreSentToTheDashboard(t *testing.T) {
	w := newWorld(t, withPages)
	b := w.browser()
	for _, c := range [][2]string{{"/", "/ui/"}, {"/ui/", "/ui/sign-in"}, {"/ui/tasks?state=running", "/ui/sign-in?next=%2Fui%2Ftasks%3Fstate%3Drunning"}} {
		if a := b.get(c[0]); a.status != http.StatusSeeOther || a.header.Get("Location") != c[1] {
			t.Errorf("%s: got %d to %s, want %s", c[0], a.status, a.header.Get("Location"), c[1])
		}
	}
	if index := decodeAs[api.Index](t, w.do(http.MethodGet, "/", "", "Authorization", "")); index.Dashboard != "/ui/" {
		t.Errorf("got %+v for a program", index)
	}
	w.shows(b.get("/ui/sign-in"), http.StatusOK, `type="password"`, `name="next" value="/ui/"`)
	if a := b.do(http.MethodGet, "/ui/tasks", "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"); a.status != http.StatusOK || !strings.Contains(string(a.body), `http-equiv="refresh"`) {
		t.Errorf("by a link from elsewhere: got %d %s", a.status, a.body)
	}
	for _, path := range []string{"/ui/tasks/live", "/ui/tasks/x/events"} { // scripts ask for these
		w.shows(b.get(path), http.StatusUnauthorized, "sign in again")
	}
}

func TestSessionBeginsAndEnds(t *testing.T) {
	w := newWorld(t, withPages)
	b := w.browser()
	a := b.do(http.MethodPost, "/ui/sign-in", url.Values{"key": {" olga"}, "secret": {"o-secret\n"}, "next": {"/ui/logs?cid=c"}}.Encode())
	cookie := a.header.Get("Set-Cookie")
	if a.status != http.StatusSeeOther || a.header.Get("Location") != "/ui/logs?cid=c" {
		t.Errorf("got %d to %q", a.status, a.header.Get("Location"))
	}
	for _, want := range []string{"ecs_session=", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"} {
		if !strings.Contains(cookie, want) {
			t.Errorf("cookie %q lacks %s", cookie, want)
		}
	}
	if strings.Contains(cookie, "o-secret") || strings.Contains(cookie, "Secure") {
		t.Errorf("got cookie %q without TLS", cookie)
	}
	page := b.get("/ui/cluster")
	w.shows(page, http.StatusOK, "olga", "(operate)", "Sign out")
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin"} {
		if got := page.header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	csp := page.header.Get("Content-Security-Policy")
	if !strings.HasPrefix(csp, "default-src 'none'; script-src 'self'; style-src 'self';") || strings.Contains(csp, "unsafe") || !strings.Contains(csp, "require-trusted-types-for 'script'") {
		t.Errorf("got policy %q", csp)
	}
	if a := b.get("/ui/sign-in"); a.status != http.StatusSeeOther {
		t.Errorf("signed in already: got %d", a.status)
	}
	if a := b.do(http.MethodPost, "/ui/sign-out", "x="); a.status != http.StatusSeeOther || !strings.Contains(a.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("sign out: got %d, %s", a.status, a.header.Get("Set-Cookie"))
	}
	if a := b.get("/ui/cluster"); a.status != http.StatusSeeOther {
		t.Errorf("signed out: got %d", a.status)
	}
	// The cookie opens pages and nothing else: no other site can use it on the API.
	for _, path := range []string{"/v2/tasks", "/v2/keys", "/metrics"} {
		if a := w.signedIn(root).get(path); a.status != http.StatusUnauthorized {
			t.Errorf("%s with a cookie: got %d", path, a.status)
		}
	}
}

func TestWrongSecretIsSaidOnThePage(t *testing.T) {
	w := newWorld(t, withPages)
	b := w.browser()
	for _, form := range []string{"key=olga&secret=wrong", "key=nobody&secret=o-secret", "key=&secret="} {
		a := b.do(http.MethodPost, "/ui/sign-in", form)
		w.shows(a, http.StatusUnauthorized, "do not belong together", `role="alert"`)
		if a.header.Get("WWW-Authenticate") != "" || a.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: got headers %v", form, a.header)
		}
	}
	if a := b.do(http.MethodPost, "/ui/sign-in", "key="+strings.Repeat("x", 20<<10)); a.status != http.StatusBadRequest {
		t.Errorf("a large form: got %d", a.status)
	}
}

func TestFormsOfOtherSitesAreRefused(t *testing.T) {
	w := newWorld(t, withPages)
	form := url.Values{"key": {olga}, "secret": {"o-secret"}}.Encode()
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"}} {
		if a := w.browser().do(http.MethodPost, "/ui/sign-in", form, header...); a.status != http.StatusForbidden || a.header.Get("Set-Cookie") != "" {
			t.Errorf("sign in with %v: got %d", header, a.status)
		}
		b := w.signedIn(olga)
		if a := b.do(http.MethodPost, "/ui/sign-out", "x=", header...); a.status != http.StatusForbidden {
			t.Errorf("sign out with %v: got %d", header, a.status)
		}
	}
	if a := w.browser().do(http.MethodPost, "/ui/sign-in", form, "Sec-Fetch-Site", "same-origin", "Origin", w.url); a.status != http.StatusSeeOther {
		t.Errorf("from the dashboard itself: got %d", a.status)
	}
}

func TestCookieThatWasNotMadeHereIsNobodys(t *testing.T) {
	now := time.Now()
	w := newWorld(t, withPages, func(c *Config) { c.Now = func() time.Time { return now } })
	rec := httptest.NewRecorder()
	if err := w.handler.beginSession(rec, newRequest(), olga); err != nil {
		t.Fatal(err)
	}
	token := rec.Result().Cookies()[0].Value
	as := func(token string) bool {
		r := newRequest()
		r.AddCookie(&http.Cookie{Name: cookieBare, Value: token})
		_, ok := w.handler.visitor(r)
		return ok
	}
	if !as(token) {
		t.Fatal("the session that was made does not count")
	}
	parts := strings.Split(token, ".")
	for i := range token { // any character changed
		changed := []byte(token)
		changed[i] ^= 1
		if as(string(changed)) {
			t.Errorf("changed at %d it still counts: %s", i, changed)
		}
	}
	for _, bad := range []string{"", "..", ".", "x", parts[0] + ".zzzzzzz." + parts[2], "cm9vdA." + parts[1] + "." + parts[2], token + ".", token + "=", strings.Repeat("x", 5000)} {
		if as(bad) {
			t.Errorf("%.60q counts", bad)
		}
	}
	now = now.Add(sessionFor - time.Second)
	if !as(token) {
		t.Error("it ended early")
	}
	now = now.Add(time.Second)
	if as(token) {
		t.Error("it never ends")
	}
}

func TestSessionEndsWithItsKey(t *testing.T) {
	w := newWorld(t, withPages)
	w.handler.cfg.Auth = NewKeyring(nil, "", w)
	hash, err := HashSecret("secret")
	if err != nil {
		t.Fatal(err)
	}
	w.apply(state.PutKey{Key: access.Key{ID: "k1", Role: access.Run, Hash: hash}})
	b := w.browser()
	if a := b.do(http.MethodPost, "/ui/sign-in", "key=k1&secret=secret"); a.status != http.StatusSeeOther {
		t.Fatalf("sign in: got %d %s", a.status, a.body)
	}
	w.shows(b.get("/ui/tasks"), http.StatusOK, "(run)")
	req, err := http.NewRequest(http.MethodGet, w.url+"/ui/tasks/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	live, err := b.client.Do(req)
	if err != nil || live.StatusCode != http.StatusOK {
		t.Fatalf("live: %v %v", live, err)
	}
	defer live.Body.Close()
	w.apply(state.RevokeKey{ID: "k1", By: "root"})
	if a := b.get("/ui/tasks"); a.status != http.StatusSeeOther {
		t.Errorf("revoked: got %d", a.status)
	}
	w.shows(b.get("/ui/sign-in"), http.StatusOK, "The session has ended")
	w.apply(state.Submit{Task: &task.Task{ID: "t1", Owner: "k1", State: task.Pending, Spec: task.Spec{Image: "busybox:1"}}})
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, live.Body)
		ended <- err
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the stream of a revoked key goes on")
	}
}

func TestGuessingIsSlowedOnTheSignInPageToo(t *testing.T) {
	ring := NewKeyring(nil, "", nil)
	ring.guessing = bound{rate: 1.0 / 60, burst: 2}
	w := newWorld(t, withPages, func(c *Config) { c.Auth = ring })
	b := w.browser()
	for range 2 {
		w.shows(b.signIn(bob), http.StatusUnauthorized, "do not belong together")
	}
	a := b.signIn(bob)
	w.shows(a, http.StatusTooManyRequests, "Too many wrong keys or secrets", "Try again in")
	if a.header.Get("Retry-After") == "" {
		t.Error("it does not say when to come back")
	}
}

func TestPageShowsWhatTheKeyMaySee(t *testing.T) {
	w := newWorld(t, withPages)
	own := w.ran("hello <script>alert(1)</script> \x1b[31mred\x1b[0m")
	a, b, o := w.signedIn(alice), w.signedIn(bob), w.signedIn(olga)
	w.shows(a.get("/ui/tasks/"+own), http.StatusOK, "hello &lt;script&gt;alert(1)&lt;/script&gt; red", "Where its time went", "the program itself", "/ui/logs?cid=")
	w.shows(o.get("/ui/tasks/"+own), http.StatusOK, own)
	w.shows(b.get("/ui/tasks/"+own), http.StatusNotFound, "there is no such task", "belong to another key than bob")
	w.shows(b.get("/ui/tasks/"+own+"/output?stream=stdout"), http.StatusNotFound, "there is no such task")
	w.shows(b.get("/ui/tasks/"+own+"/events"), http.StatusNotFound, "there is no such task")
	w.shows(a.get("/ui/tasks"), http.StatusOK, own)
	w.shows(b.get("/ui/tasks"), http.StatusOK, "No task yet")
	w.shows(b.get("/ui/tasks?owner=alice"), http.StatusForbidden, "the tasks of others take a key with the role operate", "Sign out, and in again")
	w.shows(o.get("/ui/tasks?owner=alice&state=finished"), http.StatusOK, own)
	w.shows(o.get("/ui/tasks?state=running"), http.StatusOK, "No task matches")
	w.shows(o.get("/ui/tasks?label=%3Dx"), http.StatusBadRequest, "must be key=value", "correct the filter")
	w.shows(b.get("/ui/cluster"), http.StatusForbidden, "the key has the role run; this takes operate")
	w.shows(o.get("/ui/cluster"), http.StatusOK, "agent-1", "Zone <code>a</code>", "64", "leader")
	w.shows(o.get("/ui/nope"), http.StatusNotFound, "no such page")
	w.shows(o.do(http.MethodPost, "/ui/tasks", "x="), http.StatusMethodNotAllowed, "only shows")
	if strings.Contains(string(b.get("/ui/tasks").body), "/ui/cluster") {
		t.Error("a key that may not see the cluster is led there")
	}
	d := a.get("/ui/tasks/" + own + "/output?stream=stdout")
	if d.status != http.StatusOK || !strings.HasPrefix(string(d.body), "hello <script>") || d.header.Get("Content-Type") != "application/octet-stream" ||
		!strings.HasPrefix(d.header.Get("Content-Disposition"), "attachment") || !strings.HasPrefix(d.header.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("download: got %d %v %s", d.status, d.header, d.body)
	}
}

func TestLogsPageShowsWhatTheAPIFinds(t *testing.T) {
	w := newWorld(t, withPages)
	w.logs = LogsFound{Asked: 2, Lines: [][]byte{[]byte(`{"time":"2026-11-27T09:00:00.123456Z","level":"WARN","msg":"odd \u001b[31m<b>","node":"c1","cid":"c","task":"t1","took":1500000,"deep":{"a":1}}`)},
		Silent: []Silent{{Node: "a9", Role: "agent", Detail: "no route"}}}
	b := w.signedIn(bob)
	w.shows(b.get("/ui/logs?cid=c"), http.StatusOK, "09:00:00.123", "odd &lt;b&gt;", "1.5ms", `href="/ui/tasks/t1"`, "{&#34;a&#34;:1}", "did not answer: no route")
	if w.search.Owner != bob || w.search.CID != "c" {
		t.Errorf("searched for %+v", w.search)
	}
	w.shows(b.get("/ui/logs"), http.StatusOK, "X-Correlation-ID")
	w.shows(b.get("/ui/logs?cid=%0a"), http.StatusOK, "X-Correlation-ID")
	w.shows(b.get("/ui/logs?cid=a+b"), http.StatusBadRequest, "This is no correlation id")
	w.logs = LogsFound{Asked: 2}
	w.shows(b.get("/ui/logs?cid=c"), http.StatusOK, "No node has a line")
	w.signedIn(olga).get("/ui/logs?cid=c")
	if w.search.Owner != "" {
		t.Errorf("an operator's search is for %q only", w.search.Owner)
	}
}

func TestListIsPagedAndKeepsItsFilter(t *testing.T) {
	w := newWorld(t, withPages)
	for range 51 {
		w.submitted(`{"image":"busybox:1","labels":{"job":"a b"}}`)
	}
	b := w.signedIn(alice)
	first := b.get("/ui/tasks?label=job%3Da+b&label=&state=pending")
	w.shows(first, http.StatusOK, `value="job=a b" checked`, `value="pending" checked`, "Older")
	_, at, _ := strings.Cut(string(first.body), `rel="next"`)
	from := strings.LastIndex(string(first.body[:len(first.body)-len(at)]), `href="`)
	address, _, _ := strings.Cut(string(first.body[from+len(`href="`):]), `"`)
	second := b.get(html.UnescapeString(address))
	w.shows(second, http.StatusOK, "Newest", `value="job=a b" checked`)
	if n := strings.Count(string(second.body), `<tr id="t-`); n != 1 || strings.Contains(string(second.body), `rel="next"`) {
		t.Errorf("the second page of 51 holds %d tasks, at %s", n, address)
	}
}

func TestPageIsToldOfChangesThatItShows(t *testing.T) {
	w := newWorld(t, withPages)
	b := w.signedIn(bob)
	page := string(b.get("/ui/tasks").body)
	_, rest, _ := strings.Cut(page, `data-live="`)
	address, _, _ := strings.Cut(rest, `"`)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+html.UnescapeString(address), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := b.client.Do(req)
	if err != nil || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("got %v, %v", resp, err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Scan() // the first beat: what is shown is what is there
	if lines.Text() != ": " {
		t.Errorf("got %q though nothing has changed", lines.Text())
	}
	w.ran("of alice, whose tasks bob does not see")
	for lines.Scan() && lines.Text() != ": " {
		if lines.Text() != "" {
			t.Errorf("got %q of another's task", lines.Text())
		}
	}
	w.apply(state.Submit{Task: &task.Task{ID: "of-bob", Owner: bob, State: task.Pending, Spec: task.Spec{Image: "busybox:1"}}})
	var got []string
	for lines.Scan() && len(got) < 2 {
		if text := lines.Text(); text != "" && text != ": " {
			got = append(got, text)
		}
	}
	if len(got) != 2 || !strings.HasPrefix(got[0], "id: ") || got[1] != "event: changed" {
		t.Errorf("got %q of a task of bob's", got)
	}
}

func TestEventsOfATaskComeThroughTheDashboard(t *testing.T) {
	w := newWorld(t, withPages)
	id := w.ran("some output")
	a := w.signedIn(alice).get("/ui/tasks/" + id + "/events")
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "text/event-stream" || !strings.Contains(string(a.body), "some output") || !strings.Contains(string(a.body), `"state":"finished"`) {
		t.Errorf("got %d %v %s", a.status, a.header, a.body)
	}
	_, last, _ := strings.Cut(string(a.body[strings.LastIndex(string(a.body), "id: "):]), "id: ")
	last, _, _ = strings.Cut(last, "\n")
	if a := w.signedIn(alice).do(http.MethodGet, "/ui/tasks/"+id+"/events", "", "Last-Event-ID", last); a.status != http.StatusNoContent {
		t.Errorf("behind the end: got %d", a.status)
	}
}

func TestLimitsOfAKeyCountForItsPages(t *testing.T) {
	w := newWorld(t, withPages, func(c *Config) { c.Limits = Limits{KeyRate: 1, AddressRate: 1, AddressConcurrency: 1} })
	b := w.signedIn(alice)
	w.shows(b.get("/ui/tasks"), http.StatusOK)
	a := b.get("/ui/tasks")
	w.shows(a, http.StatusTooManyRequests, limitKeyRate, "Try again in 1 s")
	if a.header.Get("Retry-After") != "1" {
		t.Errorf("got Retry-After %q", a.header.Get("Retry-After"))
	}
}

// What a page looks at again by itself counts for its key, as its requests do.
func TestALookOfAPageCountsForItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{Auth: pairs{}, Sealer: seals{}, Log: slog.New(slog.DiscardHandler), Limits: Limits{KeyRate: 2}})
		v := &Visit{h: h, who: access.Principal{Owner: alice}}
		began := time.Now()
		for range 10 { // two at once, and then two a second
			if !v.Pace(t.Context()) {
				t.Fatal("it was not let look")
			}
		}
		if took := time.Since(began); took < 4*time.Second || took > 5*time.Second {
			t.Errorf("10 looks took %s, want 4s", took)
		}
		if _, err := h.gates.key(v.who, time.Now()); err == nil {
			t.Error("a request is let in although the page's looks have spent the rate")
		}
		if _, err := h.gates.key(access.Principal{Owner: bob}, time.Now()); err != nil {
			t.Errorf("another key is refused: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if v.Pace(ctx) {
			t.Error("it looks for who is gone")
		}
	})
}

func TestAssetsNeedNobodySignedInAndAreKept(t *testing.T) {
	w := newWorld(t, withPages)
	b := w.browser()
	page := string(b.get("/ui/sign-in").body)
	_, rest, _ := strings.Cut(page, `href="/ui/assets/`)
	hash, _, _ := strings.Cut(rest, "/")
	for name, kind := range map[string]string{"style.css": "text/css; charset=utf-8", "app.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"} {
		a := b.get("/ui/assets/" + hash + "/" + name)
		if a.status != http.StatusOK || a.header.Get("Content-Type") != kind || !strings.Contains(a.header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: got %d %v", name, a.status, a.header)
		}
		if a := b.get("/ui/assets/other/" + name); a.status != http.StatusOK || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s of another version: got %d %v", name, a.status, a.header)
		}
	}
	for _, name := range []string{"/nope.css", "/../templates/task.html", "/", ""} {
		if a := b.get("/ui/assets/" + hash + name); a.status == http.StatusOK {
			t.Errorf("%q: got %d %s", name, a.status, a.body)
		}
	}
}

// Behind a proxy that ends TLS the session is for TLS alone, as it is without one.
func TestSessionBehindAProxyIsSecure(t *testing.T) {
	w := newWorld(t, withPages, func(c *Config) { c.Proxies, _ = ParseProxies([]string{"127.0.0.1"}) })
	b := w.browser()
	a := b.do(http.MethodPost, "/ui/sign-in", "key="+alice+"&secret=a-secret", "X-Forwarded-For", "192.0.2.1", "X-Forwarded-Proto", "https")
	if cookie := a.header.Get("Set-Cookie"); a.status != http.StatusSeeOther || !strings.HasPrefix(cookie, cookieSecure+"=") || !strings.Contains(cookie, "Secure") {
		t.Errorf("got %d, cookie %q, want one for TLS", a.status, cookie)
	}
	if a.header.Get("Strict-Transport-Security") == "" {
		t.Error("nothing keeps the browser on TLS")
	}
}
