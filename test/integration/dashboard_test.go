package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"ecs/proto/api"
)

// tab is a browser's, with what it complained of on its console.
type tab struct {
	t    *testing.T
	ctx  context.Context
	base string

	mu         sync.Mutex
	complaints []string
}

func newTab(t *testing.T, base string) *tab {
	t.Helper()
	b := &tab{t: t, base: base}
	// It leaves what it has in TMPDIR. The name is short, for it has sockets there.
	temp, err := os.MkdirTemp("", "tab")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(temp); err != nil {
			t.Error(err)
		}
	})
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.Flag("headless", "new"), chromedp.UserDataDir(t.TempDir()), chromedp.Env("TMPDIR="+temp))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // it has none for root
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	b.ctx, cancel = chromedp.NewContext(ctx, chromedp.WithListener(func(e any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := e.(type) {
		case *cdplog.EventEntryAdded:
			b.complaints = append(b.complaints, e.Entry.Text)
		case *runtime.EventExceptionThrown:
			b.complaints = append(b.complaints, "exception: "+e.ExceptionDetails.Text)
		}
	}))
	t.Cleanup(cancel)
	t.Cleanup(func() { _ = chromedp.Cancel(b.ctx) }) // first: the browser ends in order
	return b
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string]("document.body.innerText"))
		b.t.Fatalf("%v\nthe page: %s", err, text)
	}
}

func (b *tab) open(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base+path), chromedp.WaitReady(chromedp.CSS("footer")))
}

func evaluate[T any](b *tab, script string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", script, err)
	}
	return v
}

// until waits for what a script says to be true. While a page is on its way there
// may be nothing yet that the script can look at.
func (b *tab) until(what, script string) {
	b.t.Helper()
	var last error
	defer func() {
		if b.t.Failed() && last != nil {
			b.t.Logf("%s: %v", script, last)
		}
	}()
	within(b.t, 30*time.Second, what, func() (ok bool) {
		ok, last = chromedp.Run(b.ctx, chromedp.Evaluate[bool](script, chromedp.EvalAwaitPromise))
		return last == nil && ok
	})
}

// holds waits until an element's text holds another.
func (b *tab) holds(id, text string) {
	b.t.Helper()
	b.until(fmt.Sprintf("%s holds %q", id, text), fmt.Sprintf("(document.getElementById(%q)?.textContent ?? '').includes(%q)", id, text))
}

// signIn types and presses Enter, as somebody without a mouse.
func (b *tab) signIn(key, secret string) {
	b.t.Helper()
	b.open("/")
	b.until("the key has the focus", "document.activeElement?.id === 'key'")
	b.do(chromedp.KeyEvent(key), chromedp.KeyEvent("\t"), chromedp.KeyEvent(secret), chromedp.KeyEvent("\r"))
	b.until("signed in", "document.querySelector('header nav a[aria-current]') !== null")
}

// focus presses Tab until an element has the focus, and wants it to be seen there.
func (b *tab) focus(selector string) {
	b.t.Helper()
	for range 60 {
		b.do(chromedp.KeyEvent("\t"))
		if evaluate[bool](b, fmt.Sprintf("document.activeElement?.matches(%q) ?? false", selector)) {
			if evaluate[string](b, "getComputedStyle(document.activeElement).outlineStyle") == "none" {
				b.t.Errorf("%s has the focus and nothing shows it", selector)
			}
			return
		}
	}
	b.t.Fatalf("%s is not reached by Tab", selector)
}

func (b *tab) dark(on bool) {
	b.t.Helper()
	scheme := map[bool]string{true: "dark", false: "light"}[on]
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}); err != nil {
		b.t.Fatal(err)
	}
}

// calm fails when the browser complained, of the page's policy for example.
func (b *tab) calm() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.complaints {
		b.t.Errorf("on the console: %s", c)
	}
}

const hostile = `printf '\033]0;title\007\033[31mred\033[0m <img src=x onerror="document.title=1">\n'; `

func TestDashboardFollowsATaskWithoutAMouse(t *testing.T) {
	c := sharedCluster(t)
	b := newTab(t, c.Endpoints[0])
	b.signIn(c.Key, c.Secret)
	b.until("every zone is shown", "document.querySelectorAll('.zone').length === 3")
	b.focus("header nav a[href$='/tasks']")
	b.do(chromedp.KeyEvent("\r"))
	b.until("the list is live", "location.pathname === '/ui/tasks' && document.getElementById('link').textContent === 'Live'")

	// It appears by itself, and the session counts on the other nodes.
	task := c.start(t, 1, api.TaskRequest{Image: busybox, OpenStdin: true, Labels: map[string]string{"from": "dashboard"},
		Command: []string{"sh", "-c", hostile + "read x; echo over; exit 3"}})
	row := "a[href='/ui/tasks/" + task.ID + "']"
	b.until("the task is listed", fmt.Sprintf("document.querySelector(%q) !== null", row))
	b.base = c.Endpoints[1]
	b.open("/ui/tasks?label=from%3Ddashboard")
	b.focus(row)
	b.do(chromedp.KeyEvent("\r"))
	b.holds("stdout", "red <img src=x")
	if text := evaluate[string](b, "document.getElementById('stdout').textContent"); strings.Contains(text, "\x1b") || strings.Contains(text, "title\a") {
		t.Errorf("got output %q with what steers a terminal", text)
	}
	c.call(0, http.MethodPost, "/v2/tasks/"+task.ID+"/cancel", nil)
	b.until("the bill is shown", "document.querySelectorAll('.bill .part').length > 5")
	b.holds("facts", "cancelled")
	if n := evaluate[int](b, "document.querySelectorAll('#output img').length"); n != 0 {
		t.Errorf("output became %d images", n)
	}
	b.focus("#facts dd a[href*='/ui/logs?cid=']")
	b.do(chromedp.KeyEvent("\r"))
	b.holds("main", "attempt assigned")
	b.holds("main", "task ended")
	b.calm()
}

func TestDashboardInDarkLightAndANarrowWindow(t *testing.T) {
	c := sharedCluster(t)
	task := c.run(t, 0, api.TaskRequest{Image: busybox, Command: []string{"echo", strings.Repeat("wide", 500)}})
	b := newTab(t, c.Endpoints[0])
	b.signIn(c.Key, c.Secret)
	b.do(chromedp.EmulateViewport(360, 700))
	for _, path := range []string{"/ui/cluster", "/ui/tasks", "/ui/tasks/" + task.ID, "/ui/logs?cid=" + task.CID} {
		b.open(path)
		var ground [2]string
		for i, dark := range []bool{false, true} {
			b.dark(dark)
			ground[i] = evaluate[string](b, "getComputedStyle(document.documentElement).backgroundColor")
		}
		if ground[0] == ground[1] {
			t.Errorf("%s is %s in dark and in light", path, ground[0])
		}
		if over := evaluate[int](b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
			t.Errorf("%s is %d pixels wider than the window", path, over)
		}
	}
	b.calm()
}

func TestDashboardShowsAKeyItsOwnAndSignsOut(t *testing.T) {
	c := sharedCluster(t)
	others := c.run(t, 0, api.TaskRequest{Image: busybox, Command: []string{"echo", "secret"}})
	status, _, body := c.call(0, http.MethodPost, "/v2/keys", map[string]any{"role": "run", "name": "dashboard test"})
	var key struct{ ID, Secret string }
	if err := json.Unmarshal(body, &key); err != nil || status >= 300 {
		t.Fatalf("make a key: %d %s, %v", status, body, err)
	}
	b := newTab(t, c.Endpoints[2])
	b.signIn(key.ID, key.Secret)
	b.holds("main", "No task yet")
	b.open("/ui/tasks/" + others.ID)
	b.holds("main", "there is no such task")
	b.open("/ui/cluster")
	b.holds("main", "this takes operate")
	b.focus("header form button")
	b.do(chromedp.KeyEvent("\r"))
	b.holds("main", "You are signed out.")
	b.open("/ui/tasks")
	b.until("signed out", "location.pathname === '/ui/sign-in'")
	b.signIn(key.ID, key.Secret)
	b.until("live", "document.getElementById('link').textContent === 'Live'")
	if status, _, body := c.call(0, http.MethodDelete, "/v2/keys/"+key.ID, nil); status >= 300 {
		t.Fatalf("revoke: %d %s", status, body)
	}
	within(t, 10*time.Second, "the session ended on another node", func() bool {
		b.open("/ui/tasks")
		return evaluate[string](b, "location.pathname") == "/ui/sign-in"
	})
	b.holds("main", "The session has ended")
}

// The script and the server make the same of what would steer a terminal.
func TestDashboardScriptSteersNoTerminal(t *testing.T) {
	text, err := os.ReadFile("../../control/dashboard/testdata/terminal.json")
	if err != nil {
		t.Fatal(err)
	}
	c := sharedCluster(t)
	b := newTab(t, c.Endpoints[0])
	b.open("/ui/sign-in")
	wrong := evaluate[[]string](b, fmt.Sprintf(`import(document.querySelector('script').src.replace('app.js', 'terminal.js')).then(({ Terminal }) =>
		%s.flatMap((c) => { const t = new Terminal(); const got = c.in.map((s) => t.write(s)).join(''); return got === c.out ? [] : [c.name + ': ' + JSON.stringify(got)]; }))`, text))
	for _, w := range wrong {
		t.Error(w)
	}
}
