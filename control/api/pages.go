package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/julienschmidt/httprouter"

	"ecs/internal/access"
	"ecs/internal/telemetry"
	"ecs/proto/api"
)

const (
	// PagesPath is what everything that people look at in a browser is below.
	PagesPath = "/ui/"
	// AssetsPath is where they are made of; it needs nobody signed in and shows
	// nothing of the cluster.
	AssetsPath = PagesPath + "assets/"
)

// Pages serve what is below PagesPath. They have no way to the record but Visit,
// which asks this API as whoever is signed in.
type Pages func(w http.ResponseWriter, r *http.Request, v *Visit)

// index serves GET /: a browser is sent to the dashboard, programs are told what
// there is.
func (h *Handler) index(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	v := api.Index{Version: h.cfg.Version, Documentation: "/docs", OpenAPI: "/openapi.yaml"}
	if h.cfg.Pages != nil {
		v.Dashboard = PagesPath
		w.Header().Set("Vary", "Accept")
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			http.Redirect(w, r, PagesPath, http.StatusSeeOther)
			return nil
		}
	}
	h.json(w, r, http.StatusOK, v)
	return nil
}

func (h *Handler) page(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
	x := exchangeOf(r)
	x.route = PagesPath
	if !strings.HasPrefix(r.URL.Path, AssetsPath) {
		// Caches keep nothing of it apart for each visitor.
		w.Header().Set("Vary", "Cookie")
	}
	h.cfg.Pages(w, r, &Visit{h: h, w: w, r: r, who: x.principal})
}

// refusedPage has the dashboard say why a page is refused.
func (h *Handler) refusedPage(w http.ResponseWriter, r *http.Request, err error) {
	v := &Visit{h: h, w: w, r: r, who: exchangeOf(r).principal, refused: h.problemFor(r, err)}
	h.complete(r, v.refused)
	h.cfg.Pages(w, r, v)
}

// isPage reports whether a path is served by Pages.
func (h *Handler) isPage(path string) bool {
	return h.cfg.Pages != nil && strings.HasPrefix(path, PagesPath)
}

// admitVisitor lets everybody in, and knows who has a session. Those count for
// their key; its address was counted when they signed in.
func (h *Handler) admitVisitor(r *http.Request) (end func(), err error) {
	who, ok := h.visitor(r)
	if !ok || strings.HasPrefix(r.URL.Path, AssetsPath) {
		return h.gates.docs(r, time.Now())
	}
	x := exchangeOf(r)
	x.principal, x.owner = who, who.Owner
	if end, err = h.gates.key(who, time.Now()); err == nil {
		knownOn(r)
	}
	return end, err
}

// Visit is one request for a page. It is used by one goroutine.
type Visit struct {
	h   *Handler
	w   http.ResponseWriter
	r   *http.Request
	who access.Principal

	refused *api.Problem
}

// Refused says why this request may not be served, because of a limit; nil: it may.
func (v *Visit) Refused() *api.Problem { return v.refused }

// Holder is the key that is signed in, and its role. ok is false for a stranger.
func (v *Visit) Holder() (key string, role access.Role, ok bool) {
	return v.who.Owner, v.who.Role, v.who.Owner != ""
}

// Counts reports whether whoever was signed in when the request came still is:
// the session may have ended since, or the key been revoked.
func (v *Visit) Counts() bool {
	who, ok := v.h.visitor(v.r)
	return ok && who.Owner == v.who.Owner
}

// Lapsed reports whether the browser has a session that does not count any more.
func (v *Visit) Lapsed() bool { return v.who.Owner == "" && hasSession(v.r) }

// Pace waits until the key that is signed in may make another request, and counts
// one: a page that looks again by itself costs what asking again would. false: nobody
// waits any more.
func (v *Visit) Pace(ctx context.Context) bool {
	for {
		err := v.h.gates.again(v.who, time.Now())
		var excess *Excess
		if !errors.As(err, &excess) {
			return err == nil
		}
		due := time.NewTimer(excess.RetryAfter)
		select {
		case <-due.C:
		case <-ctx.Done():
			due.Stop()
			return false
		}
	}
}

// CID is the request's correlation id.
func (v *Visit) CID() string { return telemetry.CID(v.r.Context()) }

// SignIn begins a session, if key and secret belong together. The error is a
// *api.Problem.
func (v *Visit) SignIn(key, secret string) error {
	holdOpen(v.w) // as in admit
	who, err := v.h.authenticate(v.r, key, secret, true)
	if err == nil {
		v.who = who
		x := exchangeOf(v.r)
		x.principal, x.owner = who, who.Owner
		err = v.h.beginSession(v.w, v.r, key)
	}
	if err == nil {
		return nil
	}
	p := v.h.problemFor(v.r, err)
	v.h.complete(v.r, p)
	return p
}

// SignOut ends the session in this browser.
func (v *Visit) SignOut() { endSession(v.w, v.r) }

// Changed gives channels that close when a task or a node changes, anybody's:
// whoever waits for them looks again and may find that nothing he may see did.
func (v *Visit) Changed() (tasks, nodes <-chan struct{}) {
	sn := v.h.cfg.Reader.Snapshot()
	return sn.Watch(), sn.WatchNodes()
}

// Ask reads a document of the API as whoever is signed in. What the API refuses is
// a *api.Problem.
func (v *Visit) Ask(target string, into any) error {
	k := &keptAnswer{header: make(http.Header)}
	if err := v.get(k, target); err != nil {
		return err
	}
	if k.status != http.StatusOK {
		return k.problem()
	}
	if err := json.Unmarshal(k.body.Bytes(), into); err != nil {
		return fmt.Errorf("read the answer of %s: %w", target, err)
	}
	return nil
}

// Pass answers with what the API answers to whoever is signed in, for as long as
// the session counts. What the API refuses is a *api.Problem, and nothing is
// answered yet.
func (v *Visit) Pass(target string) error {
	p := &passing{ResponseWriter: v.w, visit: v}
	if err := v.get(p, target); err != nil {
		return err
	}
	if p.refused != nil {
		return p.refused.problem()
	}
	return nil
}

// get makes the visitor's request of this node's own router, which checks his role
// as it does for everyone.
func (v *Visit) get(w http.ResponseWriter, target string) error {
	x := &exchange{start: exchangeOf(v.r).start, owner: v.who.Owner, principal: v.who}
	r, err := http.NewRequestWithContext(context.WithValue(v.r.Context(), exchangeKey{}, x), http.MethodGet, target, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", target, err)
	}
	r.RemoteAddr, r.Proto, r.ProtoMajor, r.ProtoMinor = v.r.RemoteAddr, v.r.Proto, v.r.ProtoMajor, v.r.ProtoMinor
	for _, name := range []string{api.HeaderLastEventID, "Range", "If-Range"} {
		if value := v.r.Header.Get(name); value != "" {
			r.Header.Set(name, value)
		}
	}
	v.h.router.ServeHTTP(w, r)
	if x.code != "" {
		exchangeOf(v.r).code = x.code // the audit stream tells what was refused
	}
	return nil
}

// keptAnswer is an answer of the API that a page is made of. Documents of the API
// are bounded, so this is.
type keptAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *keptAnswer) Header() http.Header { return k.header }

func (k *keptAnswer) WriteHeader(status int) {
	if k.status == 0 {
		k.status = status
	}
}

func (k *keptAnswer) Write(p []byte) (int, error) {
	k.WriteHeader(http.StatusOK)
	return k.body.Write(p)
}

func (k *keptAnswer) problem() error {
	p := new(api.Problem)
	if err := json.Unmarshal(k.body.Bytes(), p); err != nil {
		return fmt.Errorf("read a problem of status %d: %w", k.status, err)
	}
	if seconds, err := strconv.Atoi(k.header.Get("Retry-After")); err == nil {
		p.RetryAfter = time.Duration(seconds) * time.Second
	}
	return p
}

// passing hands an answer on, but for one that refuses.
type passing struct {
	http.ResponseWriter
	visit   *Visit
	begun   bool
	refused *keptAnswer
}

func (p *passing) WriteHeader(status int) {
	if p.begun || p.refused != nil {
		return
	}
	if status >= http.StatusBadRequest {
		p.refused = &keptAnswer{header: p.Header().Clone(), status: status}
		for _, name := range []string{"Content-Type", "Content-Length", "Retry-After"} {
			p.Header().Del(name)
		}
		return
	}
	p.begun = true
	p.ResponseWriter.WriteHeader(status)
}

// Write ends the answer of one who was signed out meanwhile, whose key was revoked
// for example. Streams beat every 15 s, so it ends by then.
func (p *passing) Write(b []byte) (int, error) {
	if p.refused != nil {
		return p.refused.Write(b)
	}
	p.WriteHeader(http.StatusOK)
	if !p.visit.Counts() {
		panic(http.ErrAbortHandler)
	}
	return p.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (p *passing) Unwrap() http.ResponseWriter { return p.ResponseWriter }
