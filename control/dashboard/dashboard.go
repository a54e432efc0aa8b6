// Package dashboard is what a control node shows to people in a browser: pages
// made here of what the HTTP API answers to whoever is signed in.
//
// It reads nothing but that API, through Visit, and changes nothing: a page can't
// show what a key may not see. It keeps no state and starts no goroutine.
//
// Everything a task wrote is hostile. Pages are made by html/template, scripts set
// text and never markup (which the policy of every page enforces), and what would
// steer a terminal is taken out; see plain.
package dashboard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"ecs/internal/access"
	"ecs/proto/api"
)

// Visit is one request of a browser as the API sees it.
type Visit interface {
	// Holder is the key that is signed in; ok is false for a stranger.
	Holder() (key string, role access.Role, ok bool)
	// Counts reports whether the one who was signed in still is.
	Counts() bool
	// Lapsed reports whether a session came that does not count any more.
	Lapsed() bool
	CID() string
	// Refused says why this request may not be served; nil: it may.
	Refused() *api.Problem

	// SignIn begins a session. What it refuses is a *api.Problem.
	SignIn(key, secret string) error
	SignOut()

	// Ask reads a document of the API as the one who is signed in; Pass answers
	// with it as it is. What the API refuses is a *api.Problem, and then nothing
	// is answered yet.
	Ask(target string, into any) error
	Pass(target string) error
	// Changed gives channels that close when a task or a node changes.
	Changed() (tasks, nodes <-chan struct{})
	// Pace waits until another look may be had, and counts it.
	Pace(ctx context.Context) bool
}

// Dashboard serves the pages. It is safe for concurrent use.
type Dashboard struct {
	base   string // of all paths, "/ui/"
	log    *slog.Logger
	assets *assets
	pages  *template.Template
	cross  *http.CrossOriginProtection
}

// New makes a dashboard below base, a path that begins and ends with a slash.
func New(base string, log *slog.Logger) (*Dashboard, error) {
	d := &Dashboard{base: base, log: log, cross: http.NewCrossOriginProtection()}
	var err error
	if d.assets, err = loadAssets(base + "assets/"); err != nil {
		return nil, fmt.Errorf("dashboard: %w", err)
	}
	if d.pages, err = loadTemplates(); err != nil {
		return nil, fmt.Errorf("dashboard: %w", err)
	}
	return d, nil
}

// The policy of every page: nothing but our own files, no script or style inside
// the page, and no way for a script to make markup of text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// maxForm bounds the sign-in form, in bytes.
const maxForm = 8 << 10

// Serve answers one request below the base.
func (d *Dashboard) Serve(w http.ResponseWriter, r *http.Request, v Visit) {
	path := strings.TrimPrefix(r.URL.Path, d.base)
	refused := v.Refused()
	if name, ok := strings.CutPrefix(path, "assets/"); ok && refused == nil {
		d.assets.serve(w, r, name)
		return
	}
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Referrer-Policy", "same-origin")
	t := &turn{d: d, w: w, r: r, v: v}
	t.key, t.role, t.known = v.Holder()
	if refused != nil {
		t.fail(refused)
	} else if err := t.route(path); err != nil {
		t.fail(err)
	}
}

// turn is one request while it is answered.
type turn struct {
	d *Dashboard
	w http.ResponseWriter
	r *http.Request
	v Visit

	key   string
	role  access.Role
	known bool
}

func (t *turn) route(path string) error {
	if t.r.Method == http.MethodPost {
		return t.post(path)
	}
	if path == "sign-in" {
		return t.signInPage()
	}
	parts := strings.Split(path, "/")
	if !t.known {
		return t.stranger(parts[len(parts)-1])
	}
	switch {
	case path == "":
		t.redirect(t.home())
		return nil
	case path == "cluster":
		return t.cluster()
	case path == "tasks":
		return t.tasks()
	case path == "cluster/live":
		return t.live(t.clusterData)
	case path == "tasks/live":
		return t.live(t.tasksData)
	case path == "logs":
		return t.logs()
	case len(parts) == 2 && parts[0] == "tasks":
		return t.task(parts[1])
	case len(parts) == 3 && parts[0] == "tasks":
		return t.pass(parts[1], parts[2])
	}
	return &api.Problem{Status: http.StatusNotFound, Title: "Not found", Code: api.CodeNotFound, Detail: "the dashboard has no such page"}
}

// home is the page to begin with.
func (t *turn) home() string {
	if t.role.May(access.Operate) {
		return t.d.base + "cluster"
	}
	return t.d.base + "tasks"
}

// stranger sends who is not signed in to where that is done, and from there back.
// A stream is refused: whoever reads it is a script of ours.
func (t *turn) stranger(last string) error {
	if last == "live" || last == "events" {
		return &api.Problem{Status: http.StatusUnauthorized, Title: "Signed out", Code: api.CodeUnauthorized, Detail: "sign in again"}
	}
	if t.r.Header.Get("Sec-Fetch-Site") == "cross-site" && t.r.Header.Get("Sec-Fetch-Mode") == "navigate" {
		// A link from elsewhere: the browser keeps the session's cookie back until
		// it comes from here.
		return t.render(http.StatusOK, "again", page{Title: "One moment", Data: t.r.URL.RequestURI()})
	}
	next := ""
	if t.r.URL.RequestURI() != t.d.base {
		next = "?next=" + url.QueryEscape(t.r.URL.RequestURI())
	}
	t.redirect(t.d.base + "sign-in" + next)
	return nil
}

func (t *turn) redirect(to string) { http.Redirect(t.w, t.r, to, http.StatusSeeOther) }

// page is what every page is made of.
type page struct {
	Title string
	Nav   string // which part of the dashboard it belongs to
	Live  string // where its changes are told; empty: nowhere
	Data  any

	// Filled in by render.
	Base, Assets, Key, Role, CID string
	Operates                     bool
}

// render answers with a page.
func (t *turn) render(status int, name string, p page) error {
	p.Base, p.Assets, p.CID = t.d.base, t.d.assets.base, t.v.CID()
	if t.known {
		p.Key, p.Role, p.Operates = t.key, string(t.role), t.role.May(access.Operate)
	}
	var b bytes.Buffer
	if err := t.d.pages.ExecuteTemplate(&b, name+".html", p); err != nil {
		return fmt.Errorf("make page %s: %w", name, err)
	}
	t.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	t.w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	t.w.WriteHeader(status)
	_, _ = t.w.Write(b.Bytes()) // a browser that is gone needs no page
	return nil
}

// fault is what the page of an error shows.
type fault struct {
	*api.Problem
	Remedy string
	Retry  bool // the same may work later
}

// fail answers with a page that names what is wrong and what to do.
func (t *turn) fail(err error) {
	var p *api.Problem
	if !errors.As(err, &p) {
		t.d.log.ErrorContext(t.r.Context(), "page failed", "path", t.r.URL.Path, "err", err)
		p = &api.Problem{Status: http.StatusInternalServerError, Title: "Internal error", Code: api.CodeInternal}
	}
	if p.RetryAfter > 0 {
		t.w.Header().Set("Retry-After", strconv.Itoa(seconds(p.RetryAfter)))
	}
	f := fault{Problem: p, Remedy: t.remedy(p), Retry: p.RetryAfter > 0 || p.Status >= http.StatusInternalServerError}
	if err := t.render(p.Status, "error", page{Title: p.Title, Data: f}); err != nil {
		t.d.log.ErrorContext(t.r.Context(), "page of an error failed", "err", err)
		http.Error(t.w, p.Title, p.Status)
	}
}

func (t *turn) remedy(p *api.Problem) string {
	switch {
	case p.Code == api.CodeForbidden && t.known:
		return "Sign out, and in again with a key of the role that it takes; or ask an admin for one (ecsctl keys create --role)."
	case p.Code == api.CodeNotFound:
		return "Look at the address: the task may be forgotten after its retention, or belong to another key than " + t.keyOr("yours") + "."
	case p.Code == api.CodeBadRequest:
		return "Go back and correct the filter or the address."
	case p.Code == api.CodeOutputLost:
		return "What the record still holds of it is on the task's page. The rest went with the node that ran it."
	case p.RetryAfter > 0:
		return fmt.Sprintf("Try again in %d s.", seconds(p.RetryAfter))
	case p.Status >= http.StatusInternalServerError:
		return "Try again. If it stays, give an operator the correlation id below: it leads to the log lines."
	}
	return ""
}

// seconds are whole ones, so that nobody comes too early.
func seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }

func (t *turn) keyOr(otherwise string) string {
	if t.known {
		return t.key
	}
	return otherwise
}
